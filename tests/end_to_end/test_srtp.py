"""Calls over SRTP with keys in the SDP, encrypted by libsrtp: the sound is the plain payload, or there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import files
from tests.support.ip import Packet
from tests.support.live import Capture, offline, sealed, sealer
from tests.support.media import FORMS, MS, Form, Rtp, delayed, lost, talk, with_digit
from tests.support.record import Result, record, unbalanced
from tests.support.scene import START_NS, Scene, answered_ns, in_order, plain_call, set_up
from tests.support.signalling import sdp
from tests.support.srtp import BY_HAND, PROFILES, SUITE, Key, Locked, announced, lock, packets, secure, shaped
from tests.support.wrap import WRAPPINGS

CALLER, CALLEE = Key(1), Key(2)


def run(folder: Path, heard: Sequence[Packet]) -> Result:
    """Record a capture of these packets; the books must balance, and no key may be in anything that came of it."""
    result = record(folder / "out", files.write(folder, files.pcap(heard, nano=True)))
    assert unbalanced(result.summary["packets"]) == unbalanced(result.summary["calls"]) == 0
    return result


def sound(result: Result) -> tuple[bytes, bytes]:
    return result.only().wav.channels()


def spread(*keys: Key) -> list[bytes]:
    """How keys may look wherever they must not be."""
    return [
        form
        for key in keys
        for form in (key.raw[:16], key.raw.hex().encode(), key.text.encode(), key.text[:20].encode())
    ]


def plain(scene: Scene, offer: Key = CALLER, answer: Key = CALLEE) -> list[Packet]:
    return packets(announced(scene, [offer], [answer]), lock(scene.left, offer), lock(scene.right, answer))


@pytest.mark.parametrize("suite", PROFILES)
def test_every_suite_gives_the_plain_payload(suite: str, tmp_path: Path) -> None:
    scene = plain_call(1, six=suite.startswith("AEAD"))
    result = run(tmp_path, plain(scene, Key(1, suite), Key(2, suite)))
    assert sound(result) == scene.channels()
    info = result.only().info
    assert info["Encrypted"] == f"SRTP {suite} (SDES)"
    assert info["Caller-Srtp"] == info["Callee-Srtp"] == "authenticated=50 failed=0"
    assert result.summary["calls"]["recorded"] == 1
    assert result.summary["packets"]["refused"] == 0


@pytest.mark.parametrize("suite", BY_HAND)
@pytest.mark.parametrize("told", ["as registered", "as phones have it"])
def test_suites_of_rfc_6188_across_a_wrap(suite: str, told: str, tmp_path: Path) -> None:
    """AES with keys of 192 and 256 bits in counter mode; drafts of the RFC named them AES_CM_256_..., as phones do."""
    scene = plain_call(1, seq=65_520)
    keys = Key(1, suite, mki=b"\1", more="|2^31|1:1"), Key(2, suite)
    heard = plain(scene, *keys)
    if told != "as registered":
        bits = suite.split("_")[1]
        heard = [
            replace(one, ip=resized(one.ip, f"AES_{bits}_CM_".encode(), f"AES_CM_{bits}_".encode())) for one in heard
        ]
    result = run(tmp_path, heard)
    assert sound(result) == scene.channels()
    assert result.only().info["Encrypted"] == f"SRTP {suite} (SDES)"
    assert result.only().info["Caller-Srtp"] == result.only().info["Callee-Srtp"] == "authenticated=50 failed=0"


def resized(packet: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    return packet.replace(old, new)


@pytest.mark.parametrize("form", FORMS)
def test_headers_of_any_shape_and_padding(form: str, tmp_path: Path) -> None:
    scene = plain_call(2)
    scene = replace(scene, left=shaped(scene.left, FORMS[form]))
    result = run(tmp_path, plain(scene))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=50 failed=0"
    assert result.summary["packets"]["not_a_call"] == 0


@pytest.mark.parametrize("suite", PROFILES)
def test_short_padded_packets_whose_count_is_cipher(suite: str, tmp_path: Path) -> None:
    """Digits of 4 bytes among them: nearly every count that is read from the cipher text is more than there is."""
    scene = plain_call(2, duration_ms=3000)
    scene = replace(scene, left=shaped(with_digit(scene.left, 10, "7"), FORMS["padding"]))
    keys = Key(1, suite), Key(2, suite)
    heard = plain(scene, *keys)
    result = run(tmp_path, heard)
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=150 failed=0"
    assert result.only().info["Digits"] == "7"
    with Capture(tmp_path) as capture:
        capture.hear(heard, size=7)
    assert sealed(tmp_path) == offline(tmp_path, heard)


def test_padded_packets_of_which_the_end_was_not_captured(tmp_path: Path) -> None:
    """The last packet of the file is cut short; its UDP header says that it goes on behind the file's end."""
    scene = plain_call(3)
    scene = replace(scene, right=shaped(scene.right, FORMS["padding"]))
    heard = [packet for packet in plain(scene) if b"BYE" not in packet.ip]
    last = heard.pop()
    data = files.pcap(heard, nano=True)
    data += files.pcap_record(last.time_ns, WRAPPINGS["ethernet"].frame(last.ip), nano=True, snap=120)
    result = record(tmp_path / "out", files.write(tmp_path, data))
    assert unbalanced(result.summary["packets"]) == 0
    assert result.only().info["Callee-Srtp"] == "authenticated=49 failed=1"


def test_a_plain_packet_whose_padding_lies_is_silence(tmp_path: Path) -> None:
    scene = plain_call(4)
    lies = replace(scene.left[9], form=Form(0xA0, b"", b"\xff"))
    said = replace(scene, left=tuple(lies if one is scene.left[9] else one for one in scene.left))
    result = run(tmp_path, said.packets())
    assert sound(result) == replace(scene, left=lost(scene.left, {9})).channels()
    assert result.summary["packets"]["not_a_call"] == 0


def test_what_networks_do_to_packets(tmp_path: Path) -> None:
    scene = plain_call(3, duration_ms=2000)
    spoiled = delayed(lost(scene.left, {3, 4, 60}), {10, 40}, 70)
    locked = {one.ident: one for one in lock(scene.left, CALLER)}
    left = [replace(locked[packet.seq], time_ns=packet.time_ns) for packet in spoiled]
    again = [replace(left[5], time_ns=left[5].time_ns + 5 * MS)]
    scene = replace(scene, left=spoiled)
    result = run(
        tmp_path,
        packets(
            announced(scene, [CALLER], [CALLEE]),
            sorted([*left, *again], key=lambda one: one.time_ns),
            lock(scene.right, CALLEE),
        ),
    )
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=98 failed=0"
    assert result.only().info["Caller-Packets"].startswith("received=98 expected=100 lost=3 duplicate=1")


def test_digits_are_read(tmp_path: Path) -> None:
    scene = plain_call(4)
    scene = replace(scene, left=with_digit(scene.left, 10, "7"))
    result = run(tmp_path, plain(scene))
    assert result.only().info["Digits"] == "7"
    assert sound(result) == scene.channels()


# -- what is not authentic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", PROFILES)
def test_a_wrong_key_gives_no_sound(suite: str, tmp_path: Path) -> None:
    scene = plain_call(5)
    told = announced(scene, [Key(11, suite)], [Key(12, suite)])
    result = run(tmp_path, packets(told, lock(scene.left, Key(1, suite)), lock(scene.right, Key(2, suite))))
    assert not list(result.out.rglob("*.wav"))
    assert result.lines[0]["outcome"] == "encrypted"
    assert result.lines[0]["notes"] == ["Encrypted: yes, not recordable"]
    assert result.summary["packets"]["refused"] == 100
    assert result.summary["packets"]["kept"] == 0


def test_one_side_with_a_wrong_key_is_silent(tmp_path: Path) -> None:
    scene = plain_call(6)
    told = announced(scene, [CALLER], [Key(12)])
    result = run(tmp_path, packets(told, lock(scene.left, CALLER), lock(scene.right, CALLEE)))
    left, right = sound(result)
    assert left.strip(b"\xd5") == scene.channels()[0].strip(b"\xd5")
    assert set(right) == {0xD5}
    assert result.only().info["Callee-Srtp"] == "authenticated=0 failed=0"
    assert "no key fits 50 SRTP packets of callee" in result.only().info["Note"]


@pytest.mark.parametrize("suite", PROFILES)
@pytest.mark.parametrize("place", [1, 5, 9, 20, -12, -1])
def test_one_flipped_bit_is_one_packet_of_silence(suite: str, place: int, tmp_path: Path) -> None:
    scene = plain_call(7)
    key = Key(1, suite)
    left = lock(scene.left, key)
    spoiled = bytearray(left[20].data)
    spoiled[place] ^= 0x04
    left[20] = replace(left[20], data=bytes(spoiled))
    result = run(tmp_path, packets(announced(scene, [key], [Key(2, suite)]), left, lock(scene.right, Key(2, suite))))
    assert sound(result) == replace(scene, left=lost(scene.left, {20})).channels()
    counts = result.only().info["Caller-Srtp"]
    assert counts == ("authenticated=49 failed=0" if place == 9 else "authenticated=49 failed=1")  # 9: another SSRC


def test_a_stranger_with_the_same_ssrc_is_left_out(tmp_path: Path) -> None:
    """Noise with a header of the stream's own between its packets: nothing of it is heard, and nothing is lost."""
    scene = plain_call(8)
    noise = [replace(one, time_ns=one.time_ns + 3 * MS) for one in lock(scene.left, Key(99))][::5]
    left = sorted([*lock(scene.left, CALLER), *noise], key=lambda one: one.time_ns)
    result = run(tmp_path, packets(announced(scene, [CALLER], [CALLEE]), left, lock(scene.right, CALLEE)))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=50 failed=10"


# -- which key, which counter --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [SUITE, "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_256_GCM"])
def test_the_sequence_wraps_in_mid_call(suite: str, tmp_path: Path) -> None:
    scene = plain_call(9, seq=65_516)
    result = run(tmp_path, plain(scene, Key(1, suite), Key(2, suite)))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=50 failed=0"


@pytest.mark.parametrize("wraps", [1, 3])
def test_joining_late_after_wraps(wraps: int, tmp_path: Path) -> None:
    """The recorder hears SIP and media from a re-INVITE on, when the numbers have wrapped `wraps` times."""
    scene = plain_call(10, seq=700)
    shape = scene.dialog
    before = talk(
        shape.caller.media,
        shape.callee.media,
        0,
        20 * 65_536 * wraps,
        seed=0,
        ptime_ms=20,
        seq=700,
        ssrc=scene.left[0].ssrc,
    )
    short = [replace(packet, payload=b"") for packet in before]
    left = [replace(packet, seq=packet.seq + 65_536 * wraps) for packet in scene.left]
    locked = lock([*short, *left], CALLER)[-len(left) :]
    result = run(tmp_path, packets(announced(scene, [CALLER], [CALLEE]), locked, lock(scene.right, CALLEE)))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=50 failed=0"


def test_a_re_invite_changes_the_keys(tmp_path: Path) -> None:
    scene = plain_call(11, duration_ms=2000)
    shape, middle = scene.dialog, answered_ns(START_NS) + 1000 * MS
    new = Key(21), Key(22)
    again = (
        shape.invite(middle - 6 * MS, secure(sdp(shape.caller.media, session=2), new[0]), cseq=2, again=True),
        shape.reply(middle - 3 * MS, "200 OK", secure(sdp(shape.callee.media, session=2), new[1]), cseq=2),
        shape.request(middle - 1 * MS, "ACK", cseq=2),
    )
    told = announced(scene, [CALLER], [CALLEE])
    told = replace(told, signals=tuple(sorted([*told.signals, *again], key=lambda one: one.time_ns)))
    sides = []
    for stream, first, second in ((scene.left, CALLER, new[0]), (scene.right, CALLEE, new[1])):
        old = [packet for packet in stream if packet.time_ns < middle]
        sides.append([*lock(old, first), *lock(stream[len(old) :], second)])
    result = run(tmp_path, packets(told, *sides))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=100 failed=0"


def test_of_two_lines_the_answer_takes_one(tmp_path: Path) -> None:
    scene = plain_call(12)
    offer = [Key(31, "AEAD_AES_256_GCM", tag=1), Key(32, SUITE, tag=2)]
    answer = Key(33, SUITE, tag=2)
    told = announced(scene, offer, [answer])
    result = run(tmp_path, packets(told, lock(scene.left, offer[1]), lock(scene.right, answer)))
    assert sound(result) == scene.channels()
    assert result.only().info["Encrypted"] == f"SRTP {SUITE} (SDES)"


@pytest.mark.parametrize("suite", PROFILES)
def test_packets_that_bear_a_key_identifier(suite: str, tmp_path: Path) -> None:
    scene = plain_call(13)
    keys = [Key(seed, suite, more="|2^31|258:4", mki=b"\0\0\1\2") for seed in (41, 42)]
    result = run(tmp_path, plain(scene, *keys))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"] == "authenticated=50 failed=0"


def test_an_identifier_that_is_told_and_not_sent(tmp_path: Path) -> None:
    scene = plain_call(14)
    result = run(tmp_path, plain(scene, Key(41, more="|2^31|1:1"), Key(42)))
    assert sound(result) == scene.channels()


def test_early_media_comes_before_its_key(tmp_path: Path) -> None:
    """The callee's sound begins before the 200 that tells its key."""
    scene = plain_call(15, right_later_ms=-60)
    result = run(tmp_path, plain(scene))
    assert sound(result) == scene.channels()


def test_an_offer_with_keys_that_is_declined_is_a_plain_call(tmp_path: Path) -> None:
    scene = plain_call(16)
    shape = scene.dialog
    signals = set_up(
        shape, START_NS, secure(sdp(shape.caller.media), CALLER, profile="RTP/AVP"), sdp(shape.callee.media)
    )
    result = run(tmp_path, replace(scene, signals=signals + scene.signals[-2:]).packets())
    assert sound(result) == scene.channels()
    assert "Encrypted" not in result.only().info


def halves(scene: Scene, first: str, second: str) -> tuple[Scene, list[list[Rtp]]]:
    """The scene with descriptions that a re-INVITE in its middle changes, and each side's packets before and after it.

    Descriptions differ in their media line and in what follows them (`profile|more lines`).
    """
    shape, moment = scene.dialog, answered_ns(START_NS) + 1000 * MS
    said: list[list[str]] = []
    for text in (first, second):
        profile, _, more = text.partition("|")
        said.append(
            [
                sdp(one.media, session=len(said)).replace("RTP/AVP", profile) + more
                for one in (shape.caller, shape.callee)
            ]
        )
    again = (
        shape.invite(moment - 6 * MS, said[1][0], cseq=2, again=True),
        shape.reply(moment - 3 * MS, "200 OK", said[1][1], cseq=2),
        shape.request(moment - 1 * MS, "ACK", cseq=2),
    )
    signals = (*set_up(shape, START_NS, *said[0]), *again, *scene.signals[-2:])
    sides = [
        [[p for p in side if (p.time_ns < moment) is early] for early in (True, False)]
        for side in (scene.left, scene.right)
    ]
    return replace(scene, signals=signals), [part for side in sides for part in side]


def bare(stream: Sequence[Rtp], key: Key | None = None) -> list[Locked]:
    """The stream as it is, whatever the key."""
    return [Locked(one.time_ns, one.source, one.target, one.wire(), one.seq) for one in stream]


@pytest.mark.parametrize("secret_first", [False, True])
def test_encryption_that_begins_or_ends_in_mid_call(secret_first: bool, tmp_path: Path) -> None:
    forms = ["RTP/AVP", f"RTP/SAVP|{CALLER.line}\r\n"]
    scene, (a, b, c, d) = halves(plain_call(30, duration_ms=2000), *(reversed(forms) if secret_first else forms))
    made: list[Callable[[Sequence[Rtp], Key], list[Locked]]] = [lock, bare] if secret_first else [bare, lock]
    sides = [[*made[0](one, CALLER), *made[1](two, CALLER)] for one, two in ((a, b), (c, d))]
    result = run(tmp_path, packets(scene, *sides))
    assert sound(result) == scene.channels()
    assert result.only().info["Caller-Srtp"].endswith(" failed=0")


def test_what_was_plain_before_unknown_keys_is_heard(tmp_path: Path) -> None:
    """DTLS-SRTP from the middle on: the first half is sound, the second silence."""
    forms = "RTP/AVP", "UDP/TLS/RTP/SAVP|a=fingerprint:sha-256 AA:BB\r\n"
    scene, (a, b, c, d) = halves(plain_call(31, duration_ms=2000), *forms)
    sides = [[*bare(one), *lock(two, CALLER)] for one, two in ((a, b), (c, d))]
    result = run(tmp_path, packets(scene, *sides))
    plain_half = replace(scene, left=tuple(a), right=tuple(c)).channels()
    assert [side.rstrip(b"\xd5") for side in sound(result)] == [side.rstrip(b"\xd5") for side in plain_half]
    assert result.summary["packets"]["refused"] == len(b) + len(d)
    assert "no key fits" in result.only().info["Note"]


def test_each_fork_has_its_key(tmp_path: Path) -> None:
    """Two phones ring; the one that answers told another key than the other one's early media."""
    scene = plain_call(32)
    shape = scene.dialog
    told = announced(scene, [CALLER], [CALLEE])
    other = shape.branch_of("fork", shape.callee.sip, replace(shape.callee.media, port=23_000))
    early = other.reply(START_NS + 50 * MS, "183 Progress", secure(sdp(other.callee.media), Key(77)))
    told = replace(told, signals=tuple(sorted([*told.signals, early], key=lambda one: one.time_ns)))
    result = run(tmp_path, packets(told, lock(scene.left, CALLER), lock(scene.right, CALLEE)))
    assert sound(result) == scene.channels()


# -- live, and what is kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_live_gives_what_offline_gives(size: int, tmp_path: Path) -> None:
    scene = plain_call(17, seq=65_500)
    heard = plain(scene)
    with Capture(tmp_path) as capture:
        capture.hear(heard, size=size)
    assert sealed(tmp_path) == offline(tmp_path, heard)


@pytest.mark.parametrize("six", [False, True])
def test_kept_packets_are_decrypted_and_hold_no_key(six: bool, tmp_path: Path) -> None:
    scene = plain_call(18, six=six)
    with Capture(tmp_path) as capture:
        capture.hear(plain(scene))
    maker = sealer(tmp_path)
    maker.keep_packets = True
    for path in capture.files_of("done"):
        assert CALLER.text.encode() in path.read_bytes()
        maker.seal(path)
    (kept,) = (tmp_path / "sealed").rglob("*_packets.pcapng")
    content = kept.read_bytes()
    assert f"a=crypto:1 {SUITE} inline:{'x' * 40}\r\n".encode() in content
    for packet in (*scene.left, *scene.right):
        assert packet.wire() in content
    again = record(tmp_path / "again", kept)
    assert again.lines[0]["outcome"] == "encrypted"  # its SDP says so, and there is no key
    found = b"".join(path.read_bytes() for path in (tmp_path / "sealed").rglob("*") if path.is_file())
    assert not [form for form in spread(CALLER, CALLEE) if form in found]


def test_no_key_is_in_anything_that_is_printed_or_written(tmp_path: Path) -> None:
    wrong = Key(5), Key(6)
    scenes = [plain_call(19), plain_call(20, start_ns=START_NS + 60_000 * MS)]
    told = announced(scenes[1], [wrong[0]], [wrong[1]], start_ns=START_NS + 60_000 * MS)
    heard = in_order(plain(scenes[0]), packets(told, lock(scenes[1].left, CALLER), lock(scenes[1].right, CALLEE)))
    result = run(tmp_path, heard)
    written = b"".join(path.read_bytes() for path in result.out.rglob("*") if path.is_file())
    printed = (result.stdout + result.stderr).encode()
    assert len(result.recordings) == 1
    assert not [form for form in spread(CALLER, CALLEE, *wrong) if form in written + printed]


def test_keys_that_were_declined_are_blanked_too(tmp_path: Path) -> None:
    """A plain call's kept packets are the spool file, byte for byte, but for the key that its offer told."""
    scene = plain_call(33)
    shape = scene.dialog
    signals = set_up(
        shape, START_NS, secure(sdp(shape.caller.media), CALLER, profile="RTP/AVP"), sdp(shape.callee.media)
    )
    with Capture(tmp_path) as capture:
        capture.hear(replace(scene, signals=signals + scene.signals[-2:]).packets())
    maker = sealer(tmp_path)
    maker.keep_packets = True
    (path,) = capture.files_of("done")
    before = path.read_bytes()
    maker.seal(path)
    (kept,) = (tmp_path / "sealed").rglob("*_packets.pcapng")
    assert kept.read_bytes() == before.replace(CALLER.text.encode(), b"x" * len(CALLER.text))
