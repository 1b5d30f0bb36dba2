"""Every RTP stream of every capture, beside what tshark counts: packets and loss, after a mirror's copies are removed.

Tshark is asked without any hint from Tapdeck: it finds streams by SDP and by its heuristic. A stream that differs
stands in `DIFFERENT` with its reason, and one that stands there must differ.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.record import REPOSITORY

FEWEST = 3
"""Of streams with fewer packets nobody can tell whether they are RTP."""
COPY_S = 0.05
"""The same datagram again within this time is the mirror's copy."""
SELECTIONS = 500
"""As many frames may be named to editcap at a time."""

CAPTURES = Path(os.environ.get("TAPDECK_CAPTURES", REPOSITORY.parent / "shared" / "captures"))
LAB = Path(os.environ.get("TAPDECK_LAB", REPOSITORY.parent / "shared" / "lab" / "captures"))
OURS = sorted((REPOSITORY / "fixtures" / "lab").glob("*.pcap*"))
OTHERS = [*sorted(LAB.glob("*.pcap*")), *sorted(CAPTURES.glob("*.pcap*"))]

NETBIOS = "NetBIOS name service, which tshark's heuristic takes for RTP in part; Tapdeck sees that it has no sequence"
DIFFERENT = {
    ("FAX-Call-t38.pcap", "10.35.60.100:15580 > 10.23.1.52:16756 0x0eaf0eaf"): (
        "from the offer of T.38 on, tshark takes the port's packets for T.38, although the offer was refused with 488 "
        "and RTP went on"
    ),
    ("aaa.pcap", "192.168.1.2:137 > 192.168.1.255:137 0x00000000"): NETBIOS,
    ("fuzz-2006-06-26-2594.pcap", "192.168.1.2:137 > 192.168.1.255:137 0x00000000"): NETBIOS,
}

needs_tshark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("tshark", "editcap")), reason="tshark and editcap are not installed"
)


@dataclass(frozen=True)
class Counted:
    """Packets and loss of a stream; `certain` unless the stream is called a likely accident."""

    packets: int
    lost: int
    certain: bool = True


def run(*command: str | Path) -> str:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TAPDECK_")}
    environment |= {"PYTHONPATH": str(REPOSITORY / "src"), "TZ": "UTC"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.stdout or not done.returncode, done.stderr
    return done.stdout


# -- the mirror's copies -----------------------------------------------------------------------------------------------

_FIELDS = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport", "udp.payload")


def copies(capture: Path) -> list[int]:
    """The numbers of the frames whose datagram was seen just before: same ends and bytes, whatever head it has."""
    fields = [word for name in _FIELDS for word in ("-e", name)]
    table = run(
        *("tshark", "-n", "-r", capture, "-Y", "udp", "-T", "fields", "-E", "occurrence=l"),
        *("-e", "frame.number", "-e", "frame.time_epoch", *fields),
    )
    seen: dict[tuple[str, ...], float] = {}
    found = []
    for line in table.splitlines():
        number, time, *datagram = line.split("\t")
        if datagram[-1][:1] not in tuple("89ab"):  # RTP begins with the bits 10
            continue
        before = seen.get(tuple(datagram))
        if before is not None and float(time) - before <= COPY_S:
            found.append(int(number))
        else:
            seen[tuple(datagram)] = float(time)
    return found


def without_copies(capture: Path, folder: Path) -> Path:
    """The capture with each datagram once. The last frames go first, so that the numbers before them stay true."""
    numbers = copies(capture)
    for stop in range(len(numbers), 0, -SELECTIONS):
        less = folder / f"{stop}-{capture.name}"
        run("editcap", capture, less, *map(str, numbers[max(stop - SELECTIONS, 0) : stop]))
        capture = less
    return capture


# -- the two opinions --------------------------------------------------------------------------------------------------

_ROW = re.compile(
    r"\s*\S+\s+\S+\s+(?P<source>\S+)\s+(?P<from_>\d+)\s+(?P<target>\S+)\s+(?P<to>\d+)\s+0x(?P<ssrc>[0-9A-F]{8})\s+"
    r".*?\s+(?P<packets>\d+)\s+(?P<lost>-?\d+) \(-?[\d.]+%\)"
)


def of_tshark(capture: Path) -> dict[str, Counted]:
    """The table of `tshark -z rtp,streams`."""
    table = run(
        *("tshark", "-n", "-q", "-r", capture, "-z", "rtp,streams"),
        *("-o", "udp.try_heuristic_first:TRUE", "--enable-heuristic", "rtp_udp"),
    )
    assert "RTP Streams" in table
    rows = [match for match in map(_ROW.match, table.splitlines()) if match]
    assert len(rows) == len(re.findall("0x[0-9A-F]{8}", table)), "a row was not understood"
    return {
        f"{_end(row['source'], row['from_'])} > {_end(row['target'], row['to'])} 0x{row['ssrc'].lower()}": Counted(
            int(row["packets"]), int(row["lost"])
        )
        for row in rows
    }


def _end(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def of_tapdeck(capture: Path) -> dict[str, Counted]:
    """The streams of `tapdeck inspect`, those of calls and all others."""
    report = json.loads(run(sys.executable, "-m", "tapdeck.cli", "inspect", "--json", capture))
    found = {}
    for one in report["streams"]:
        certain = bool(one["calls"]) or "by accident" not in one["why_no_call"]
        name = f"{one['source']} > {one['destination']} {one['ssrc']}"
        assert name not in found, "a stream is told of twice"
        found[name] = Counted(one["packets"], one["lost"], certain)
    return found


def differences(capture: Path) -> dict[str, str]:
    """The streams on which the two do not agree."""
    ours, theirs = of_tapdeck(capture), of_tshark(capture)
    found = {}
    for name in {*ours, *theirs}:
        mine, other = ours.get(name), theirs.get(name)
        if max(one.packets for one in (mine, other) if one) < FEWEST:
            continue
        if other is None and mine is not None and not mine.certain:
            continue  # neither takes it for RTP
        if mine is None or other is None or (mine.packets, mine.lost) != (other.packets, other.lost):
            found[name] = f"Tapdeck {mine}, tshark {other}"
    return found


# -- the tests ---------------------------------------------------------------------------------------------------------


def assert_agreement(capture: Path, folder: Path) -> None:
    found = differences(without_copies(capture, folder))
    known = {stream for name, stream in DIFFERENT if name == capture.name}
    new = {stream: text for stream, text in found.items() if stream not in known}
    assert not new, f"{capture.name}: streams differ that are not in the table"
    assert not known - found.keys(), f"{capture.name}: streams in the table that agree now"


@needs_tshark
@pytest.mark.parametrize("capture", OURS, ids=lambda path: path.name)
def test_our_captures(capture: Path, tmp_path: Path) -> None:
    assert of_tshark(capture), "tshark finds streams in it"
    assert_agreement(capture, tmp_path)


@needs_tshark
@pytest.mark.skipif(not OTHERS, reason="no public captures: set TAPDECK_CAPTURES to their folder")
@pytest.mark.parametrize("capture", OTHERS, ids=lambda path: path.name)
def test_other_captures(capture: Path, tmp_path: Path) -> None:
    assert_agreement(capture, tmp_path)


@needs_tshark
@pytest.mark.skipif(not OTHERS, reason="no public captures: set TAPDECK_CAPTURES to their folder")
def test_the_table_names_captures_that_are_there() -> None:
    if not (names := {path.name for path in CAPTURES.glob("*.pcap*")}):
        pytest.skip("only the lab's captures are there")
    assert {name for name, _ in DIFFERENT} <= names
