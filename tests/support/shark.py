"""What Wireshark's command-line tools say of a capture: RTP packets, payloads, times. A second opinion, never ours."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_wireshark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("tshark", "capinfos")), reason="tshark and capinfos are not installed"
)

_FIELDS = (
    *("frame.time_epoch", "ip.src", "ipv6.src", "udp.srcport", "ip.dst", "ipv6.dst", "udp.dstport"),
    *("rtp.ssrc", "rtp.p_type", "rtp.seq", "rtp.timestamp", "rtp.payload", "srtp.enc_payload"),
)

_NO_QUOTE = "not icmp and not icmpv6"
"""An ICMP error quotes the datagram that could not be delivered."""


@dataclass(frozen=True)
class RtpPacket:
    """One RTP packet: arrival in seconds since the epoch, header fields, payload; `secret` if that is SRTP's."""

    time_s: float
    payload_type: int
    sequence: int
    stamp: int
    payload: bytes
    secret: bool = False


@dataclass(frozen=True)
class Stream:
    """Packets of one SSRC between two ends, as `Caller-Media` lines write these, in the order of arrival."""

    source: str
    target: str
    ssrc: str
    packets: tuple[RtpPacket, ...]

    @property
    def media_line(self) -> str:
        return f"{self.source} > {self.target} ssrc={self.ssrc}"

    def ordered(self) -> list[RtpPacket]:
        """By sequence number (unwrapped round the first), each number once."""
        first = self.packets[0].sequence
        found: dict[int, RtpPacket] = {}
        for packet in self.packets:
            found.setdefault((packet.sequence - first + 0x8000) & 0xFFFF, packet)
        return [found[number] for number in sorted(found)]


def rtp_streams(capture: Path) -> list[Stream]:
    """All RTP streams that tshark finds, by SDP and by its heuristic."""
    heuristic = ("-o", "udp.try_heuristic_first:TRUE", "--enable-heuristic", "rtp_udp")
    grouped: dict[tuple[str, str, str], list[RtpPacket]] = {}
    for time, v4_source, v6_source, from_, v4_target, v6_target, to, ssrc, *rest in _table(
        capture, "rtp", _FIELDS, heuristic
    ):
        kind, sequence, stamp, payload, secret = rest
        if not ssrc:
            continue
        key = (end(v6_source or v4_source, from_), end(v6_target or v4_target, to), ssrc)
        content = bytes.fromhex(payload or secret)
        packet = RtpPacket(float(time), int(kind), int(sequence), int(stamp), content, bool(secret))
        grouped.setdefault(key, []).append(packet)
    return [Stream(*key, tuple(packets)) for key, packets in grouped.items()]


def udp_payloads(capture: Path, ends: tuple[str, str] | None = None) -> list[str]:
    """The UDP payloads of a capture in hex, in order; `ends` (source, destination) names one direction."""
    rows = _table(capture, "udp", (*_FIELDS[1:7], "udp.payload"))
    return [row[6] for row in rows if ends in (None, (end(row[1] or row[0], row[2]), end(row[4] or row[3], row[5])))]


def starts(captures: list[Path]) -> dict[str, float]:
    """When the first packet of each capture came, in seconds since the epoch, by file name."""
    table = run("capinfos", "-T", "-r", "-S", "-a", *captures)
    rows = [line.split("\t") for line in table.splitlines()]
    return {Path(name).name: float(time) for name, time in rows if time != "n/a"}


def _table(capture: Path, what: str, fields: Sequence[str], more: Sequence[str] = ()) -> list[list[str]]:
    """The innermost value of each field, one row a packet."""
    columns = [word for name in fields for word in ("-e", name)]
    choice = ("-Y", f"{what} and {_NO_QUOTE}", "-T", "fields", "-E", "occurrence=l")
    return [line.split("\t") for line in run("tshark", "-n", "-r", capture, *choice, *columns, *more).splitlines()]


def run(*command: str | Path) -> str:
    # A capture cut in the middle makes both tools fail after they have told what they know.
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.stdout or not done.returncode, done.stderr
    return done.stdout


def end(address: str, port: str) -> str:
    """An address and a port as the info file writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def jitter(capture: Path) -> dict[str, tuple[float, float, int]]:
    """Mean and highest jitter (ms) and the packets of each stream, by its `Caller-Media` line."""
    found: dict[str, tuple[float, float, int]] = {}
    for line in run("tshark", "-n", "-r", capture, "-q", "-z", "rtp,streams").splitlines():
        words = [word for word in line.replace(", ", ",").split() if word != "X"]
        if len(words) >= 15 and words[6].startswith("0x"):
            name = f"{end(words[2], words[3])} > {end(words[4], words[5])} ssrc={words[6].lower()}"
            found[name] = float(words[-2]), float(words[-1]), int(words[8])
    return found


def reports(capture: Path) -> tuple[dict[str, list[float]], dict[str, tuple[int, int, float]]]:
    """What RTCP on the next port tells: by the `Caller-Media` line of the stream whose reports were answered, how long
    (ms) they were under way from here to the one who answered and back; and by the line of the stream that was heard,
    how often that was said, packets lost and jitter (ms, at 8 kHz) when it was said last.
    """
    names = ("frame.time_epoch", *_FIELDS[1:7], "rtcp.senderssrc", "rtcp.timestamp.ntp.msw", "rtcp.timestamp.ntp.lsw")
    blocks = tuple(f"rtcp.ssrc.{name}" for name in ("identifier", "cum_nr", "jitter", "lsr", "dlsr"))
    columns = [word for name in (*names, *blocks) for word in ("-e", name)]
    choice = ("-Y", "rtcp.pt == 200 or rtcp.pt == 201", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;")
    sent: dict[tuple[str, str, str, int], float] = {}
    trips: dict[str, list[float]] = {}
    told: dict[str, tuple[int, int, float]] = {}
    for line in run("tshark", "-n", "-r", capture, *choice, *columns).splitlines():
        time, v4_from, v6_from, port, v4_to, v6_to, other, ssrc, high, low, *lists = line.split("\t")
        here, there = end(v6_from or v4_from, str(int(port) - 1)), end(v6_to or v4_to, str(int(other) - 1))
        if high:
            sent.setdefault((here, there, ssrc, (int(high) & 0xFFFF) << 16 | int(low) >> 16), float(time))
        of, lost, late_jitter, stamps, late = ([one for one in text.split(";") if one] for text in lists)
        for which, missing, shake, stamp, after in zip(of, lost, late_jitter, stamps, late, strict=False):
            name = f"{there} > {here} ssrc={which}"
            told[name] = told.get(name, (0, 0, 0.0))[0] + 1, int(missing), int(shake) / 8
            passed = sent.get((there, here, which, int(stamp)))
            if passed is not None:
                took = max(float(time) - passed - int(after) / 65536, 0.0)  # phones are not exact
                trips.setdefault(name, []).append(took * 1000)
    return trips, told
