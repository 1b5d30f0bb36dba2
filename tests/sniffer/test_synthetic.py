"""The synthetic call, looked at by others: scapy reads its frames, `tapdeck record` makes a recording of them."""

import ipaddress
from itertools import pairwise
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.rtp import RTP

from tapdeck.sip.dialog import Party
from tapdeck.sniffer.synthetic import SyntheticCall, synthetic_call
from tests.support.files import pcap_header, pcap_record
from tests.support.record import assert_sound, record

STARTED = 1_772_445_600_000_000_000
DOCUMENTATION = [ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
"""RFC 5737."""


def call(token: str = "abc") -> SyntheticCall:
    return synthetic_call(token, STARTED)


def test_nothing_in_it_can_be_taken_for_a_customer_s() -> None:
    for _, frame in call().frames:
        packet = Ether(frame)
        assert {packet.src[:14], packet.dst[:14]} == {"00:00:5e:00:53"}  # RFC 7042, 2.1.1
        for address in (packet[IP].src, packet[IP].dst):
            assert any(ipaddress.ip_address(address) in network for network in DOCUMENTATION)
    invite = bytes(Ether(call().frames[0][1])[UDP].payload).decode()
    assert invite.startswith("INVITE sip:tapdeck-selftest@callee.selftest.invalid SIP/2.0\r\n")
    assert 'From: "tapdeck-selftest caller" <sip:tapdeck-selftest@caller.selftest.invalid>' in invite
    assert "Call-ID: tapdeck-selftest-abc@selftest.invalid" in invite


def test_the_frames_are_sound_packets_and_messages() -> None:
    frames = [Ether(frame) for _, frame in call().frames]
    for packet in frames:
        whole = IP(bytes(packet[IP]))
        given, whole.chksum = whole.chksum, None
        assert IP(bytes(whole)).chksum == given
        assert packet[UDP].len == packet[IP].len - 20 == len(packet) - 34
    sip = [bytes(packet[UDP].payload) for packet in frames if packet[UDP].sport == 5060]
    lines = [message.split(b"\r\n", 1)[0] for message in sip]
    assert [line.split()[0 if b"@" in line else 1] for line in lines] == [
        b"INVITE", b"100", b"180", b"200", b"ACK", b"BYE", b"200"
    ]  # fmt: skip
    for message in sip:
        head, _, body = message.partition(b"\r\n\r\n")
        assert int(head.split(b"Content-Length: ")[1]) == len(body)
    rtp = [RTP(bytes(packet[UDP].payload)) for packet in frames if packet[UDP].sport != 5060]
    assert {(one.version, one.payload_type, len(one.load)) for one in rtp} == {(2, 8, 160)}
    for ssrc in {one.sourcesync for one in rtp}:
        mine = [one for one in rtp if one.sourcesync == ssrc]
        steps = {(after.sequence - one.sequence) % 65536 for one, after in pairwise(mine)}
        stamps = {(after.timestamp - one.timestamp) % 2**32 for one, after in pairwise(mine)}
        assert (len(mine), steps, stamps) == (100, {1}, {160})
        assert mine[-1].sequence < mine[0].sequence  # both have wrapped
        assert mine[-1].timestamp < mine[0].timestamp


def test_a_recording_of_it_holds_its_sound(tmp_path: Path) -> None:
    made = call()
    capture = tmp_path / "call.pcap"
    records = (pcap_record(time, frame, nano=True) for time, frame in made.frames)
    capture.write_bytes(pcap_header(1, nano=True) + b"".join(records))
    recording = record(tmp_path / "out", capture).only()
    assert_sound(recording, made.sound[Party.CALLER], made.sound[Party.CALLEE])
    assert recording.info["CallId"] == made.call_id


def test_another_token_gives_another_call() -> None:
    one, same, other = call(), call(), call("abd")
    assert one == same
    assert one.call_id != other.call_id
    for party in Party:
        assert one.sound[party] != other.sound[party]
    assert one.sound[Party.CALLER] != one.sound[Party.CALLEE]


def test_visits_hold_all_frames_in_order() -> None:
    made = call()
    visits = list(made.visits())
    assert len(visits) > 5
    times = [time for visit in visits for time in visit.time.tolist()]
    assert times == [time for time, _ in made.frames] == sorted(times)
    data = [
        visit.data[start : start + size].tobytes()
        for visit in visits
        for start, size in zip(visit.offset.tolist(), visit.length.tolist(), strict=True)
    ]
    assert data == [frame for _, frame in made.frames]
    assert {len(set(visit.link.tolist()) | {1}) for visit in visits} == {1}
