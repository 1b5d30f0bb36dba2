"""A second opinion on a capture: Wireshark's, asked for the calls by pyshark and for the streams by tshark."""

import ipaddress
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..sniffer.explain import endpoint_text
from ..sniffer.watch import Figures
from ..storage.safe_text import for_terminal
from .exit_codes import ExitCode

if TYPE_CHECKING:
    from .inspect_report import CallReport, Report

MAX_PORTS = 1000
"""UDP ports of our streams that tshark is told to read as RTP; it finds others by itself."""
MAX_SHOWN = 50
RTP_EVERYWHERE = ("-o", "udp.try_heuristic_first:TRUE", "--enable-heuristic", "rtp_udp")
"""Have tshark look for RTP on all ports, also where another protocol is at home."""

StreamKey = tuple[str, int, str, int, int]
_STREAM = re.compile(
    r"\s*[\d.]+\s+[\d.]+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s+0x([0-9A-Fa-f]+)\s+(.+?)\s+(\d+)\s+(-?\d+)\s+\(-?[\d.]+%\)"
)


class NoSecondOpinion(click.ClickException):
    """What the second opinion needs is not installed, or it fails."""

    exit_code = ExitCode.USAGE


@dataclass(slots=True)
class Dialog:
    """What Wireshark makes of the INVITEs of one Call-ID: final responses in the order of time."""

    invites: int = 0
    finals: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Counted:
    """What tshark says of a stream."""

    packets: int
    lost: int
    payload: str


def check_tools(captures: tuple[str, ...]) -> None:
    """Raise `NoSecondOpinion` before any work if it could not be had in the end."""
    if "-" in captures:
        raise NoSecondOpinion("--second-opinion reads the capture again: give it a file, not standard input")
    needed = ["tshark"] + (["mergecap"] if len(captures) > 1 else [])
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        raise NoSecondOpinion(f"--second-opinion needs {missing[0]}: install the package tshark (apt install tshark)")
    try:
        import pyshark  # noqa: F401
    except ImportError:
        raise NoSecondOpinion("--second-opinion needs pyshark: pip install 'tapdeck[second-opinion]'") from None


def ask(captures: tuple[str, ...], report: "Report") -> dict[str, Any]:
    """Return Wireshark's view beside ours. Raises `NoSecondOpinion` if it fails."""
    dialogs: dict[str, Dialog] = {}
    for name in captures:
        _dissect(name, dialogs)
    claimed = [figures for figures, _ in report.streams if figures.uses]
    ports = sorted({end[1] for figures in claimed for end in (figures.source, figures.destination)})
    with tempfile.TemporaryDirectory(prefix="tapdeck-") as folder:
        streams = tshark_streams(_one_file(captures, Path(folder)), ports)
    ours = {call.call_id for call in report.calls}
    if report.filtered:
        dialogs = {call_id: dialog for call_id, dialog in dialogs.items() if call_id in ours}
        mine = {_key(figures) for figures, _ in report.streams}
        streams = {key: counted for key, counted in streams.items() if key in mine}
    calls, agree = _compare_calls(report, dialogs)
    rows = _compare_streams(report, streams)
    theirs = sum(1 for one in dialogs.values() if one.invites)
    return {
        "call_ids": {"tapdeck": len(ours), "wireshark": theirs, "agree": agree},
        "call_differences": calls,
        "streams": rows,
        "stream_differences": sum(1 for row in rows if row["difference"]),
    }


# -- calls -------------------------------------------------------------------------------------------------------------


def _dissect(name: str, dialogs: dict[str, Dialog]) -> None:
    """Add the INVITE transactions of a capture. Only they are handed over: pyshark makes some 300 packets a second."""
    import pyshark

    count = 0
    capture = pyshark.FileCapture(name, display_filter='sip.CSeq.method == "INVITE"', keep_packets=False)
    try:
        for packet in capture:
            for layer in packet.layers:
                if layer.layer_name == "sip":
                    _note(layer, dialogs)
            count += 1
            if sys.stderr.isatty() and count % 50 == 0:
                click.echo(f"\rasking Wireshark: {count:,} messages", nl=False, err=True)
    except Exception as error:  # noqa: BLE001  (pyshark raises what it likes; its text tells)
        raise NoSecondOpinion(f"pyshark failed on {name}: {for_terminal(str(error), 300)}") from None
    finally:
        capture.close()
        if sys.stderr.isatty() and count >= 50:
            click.echo("\r" + " " * 50 + "\r", nl=False, err=True)


def _note(layer: Any, dialogs: dict[str, Dialog]) -> None:
    call_id, method, status = layer.get("call_id"), layer.get("method"), layer.get("status_code")
    if not call_id or layer.get("cseq_method") != "INVITE":
        return
    dialog = dialogs.setdefault(str(call_id), Dialog())
    if method == "INVITE":
        dialog.invites += 1
    elif status is not None and int(status) >= 200 and int(status) not in dialog.finals:
        dialog.finals.append(int(status))


def _compare_calls(report: "Report", dialogs: dict[str, Dialog]) -> tuple[list[dict[str, Any]], int]:
    """Return the Call-IDs that differ, and how many agree."""
    ours: dict[str, list[CallReport]] = {}
    for call in report.calls:
        ours.setdefault(call.call_id, []).append(call)
    differences, agree = [], 0
    for call_id in [*ours, *(one for one, dialog in dialogs.items() if dialog.invites and one not in ours)]:
        calls, dialog = ours.get(call_id, []), dialogs.get(call_id, Dialog())
        reason = _call_difference(calls, dialog)
        if reason is None:
            agree += 1
            continue
        said = [f"answered, {one.reason}" if one.answered is not None else one.reason for one in calls]
        row = {"call_id": call_id, "tapdeck": said, "wireshark": {"invites": dialog.invites, "final": dialog.finals}}
        differences.append(row | {"reason": reason})
    return differences, agree


def _call_difference(calls: "list[CallReport]", dialog: Dialog) -> str | None:
    """Return why a Call-ID differs, "" where we do not know, None if it agrees."""
    if not calls:
        return "its INVITE came in a way that Tapdeck does not read (WebSocket, TLS), or could not be parsed"
    late = any(call.joined_late for call in calls)
    if not dialog.invites:
        return None if late else ""
    answered, theirs = any(call.answered is not None for call in calls), any(200 <= one < 300 for one in dialog.finals)
    if answered and not dialog.finals:
        return "its 200 is not in the capture, but what follows shows that there was one"
    if answered != theirs:
        return ""
    if answered or not dialog.finals:
        return None
    codes = {call.reason[:3] for call in calls}
    if str(dialog.finals[-1]) in codes or any(call.reason == "CANCEL" for call in calls):
        return None  # a cancelled INVITE ends with 487, or with what crossed the CANCEL
    return ""


# -- streams -----------------------------------------------------------------------------------------------------------


def tshark_streams(path: str, ports: list[int]) -> dict[StreamKey, Counted]:
    """Return the RTP streams that tshark finds: by SDP, by its heuristic, and on these UDP ports."""
    command = ["tshark", "-n", "-q", "-r", path, *RTP_EVERYWHERE, "-z", "rtp,streams"]
    for port in ports[:MAX_PORTS]:
        command += ["-d", f"udp.port=={port},rtp"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise NoSecondOpinion(f"tshark cannot be run: {error.strerror}") from None
    if "RTP Streams" not in done.stdout:
        raise NoSecondOpinion(f"tshark failed on {path}: {for_terminal(done.stderr.strip()[-300:], 300)}")
    return parse_streams(done.stdout)


def parse_streams(text: str) -> dict[StreamKey, Counted]:
    """Read the table that `tshark -z rtp,streams` prints."""
    found: dict[StreamKey, Counted] = {}
    for line in text.splitlines():
        match = _STREAM.match(line)
        if match:
            source, source_port, destination, destination_port, ssrc, payload, packets, lost = match.groups()
            key = _plain(source), int(source_port), _plain(destination), int(destination_port), int(ssrc, 16)
            found[key] = Counted(int(packets), int(lost), payload)
    return found


def _plain(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _one_file(captures: tuple[str, ...], folder: Path) -> str:
    """Return one capture with the packets of all, in the order of time."""
    if len(captures) == 1:
        return captures[0]
    merged = folder / "merged.pcapng"
    done = subprocess.run(["mergecap", "-w", str(merged), *captures], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoSecondOpinion(f"mergecap failed: {for_terminal(done.stderr.strip()[-300:], 300)}")
    return str(merged)


def _key(figures: Figures) -> StreamKey:
    return (*figures.source, *figures.destination, figures.ssrc)


def _compare_streams(report: "Report", theirs: dict[StreamKey, Counted]) -> list[dict[str, Any]]:
    """Return a row a stream that either of us takes for RTP."""
    ours: dict[StreamKey, Figures] = {}
    for figures, _ in report.streams:
        ours.setdefault(_key(figures), figures)
    rows = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        mine, other = ours.get(key), theirs.get(key)
        doubtful = mine is not None and not mine.uses and (mine.packets == 1 or mine.accidental)
        if doubtful and other is None:
            continue
        difference, reason = _stream_difference(mine, other, doubtful)
        rows.append(
            {
                "source": endpoint_text(key[:2]),
                "destination": endpoint_text((key[2], key[3])),
                "ssrc": f"0x{key[4]:08x}",
                "tapdeck": None if mine is None else {"packets": mine.packets, "lost": mine.lost},
                "wireshark": None if other is None else {"packets": other.packets, "lost": other.lost},
                "difference": difference,
                "reason": reason,
            }
        )
    return rows


def _stream_difference(mine: Figures | None, other: Counted | None, doubtful: bool) -> tuple[str, str]:
    """Return what differs ("" if nothing) and why, as far as we know."""
    if mine is None:
        return "only Wireshark has it", ""
    if other is None:
        return "only Tapdeck has it", "tshark did not take it for RTP: no SDP that it understood names it"
    if doubtful:
        return "", "looks like RTP by accident"
    if mine.packets != other.packets:
        return "packets", "sequence begun anew" if mine.runs > 1 else ""
    if mine.lost == other.lost:
        return "", ""
    if mine.expected - mine.packets == other.lost:
        return "lost", f"tshark takes the {mine.repeated} repeated packets off the loss"
    if mine.runs > 1:
        return "lost", "the sequence numbers begin anew: Tapdeck counts each run by itself"
    return "lost", ""


# -- text --------------------------------------------------------------------------------------------------------------


def as_lines(opinion: dict[str, Any]) -> Iterator[str]:
    """Yield the comparison for people."""
    calls, rows = opinion["call_ids"], opinion["streams"]
    yield "Second opinion: Wireshark"
    counts = f"Tapdeck {calls['tapdeck']:,}, Wireshark {calls['wireshark']:,}, {calls['agree']:,} agree"
    yield f"  Call-IDs with an INVITE: {counts}"
    for one in opinion["call_differences"][:MAX_SHOWN]:
        final = " ".join(map(str, one["wireshark"]["final"])) or "no final response"
        yield f"    {for_terminal(one['call_id'], 80)}"
        said = "; ".join(one["tapdeck"]) or "no call"
        yield f"      Tapdeck: {for_terminal(said)}  Wireshark: {one['wireshark']['invites']} INVITEs, {final}"
        yield f"      why: {one['reason'] or 'not known'}"
    yield f"  Streams: {len(rows):,}, of which {opinion['stream_differences']:,} differ"
    if rows:
        yield f"    {'':50}  {'Tapdeck':>15}  {'Wireshark':>15}"
        yield f"    {'':50}  {'packets':>8} {'lost':>6}  {'packets':>8} {'lost':>6}"
    for row in sorted(rows, key=lambda one: not one["difference"])[:MAX_SHOWN]:
        yield f"    {row['source'] + ' > ' + row['destination']:50}  {_cell(row['tapdeck'])}  {_cell(row['wireshark'])}"
        if row["difference"]:
            yield f"      {row['ssrc']}, {row['difference']}: {row['reason'] or 'why is not known'}"
    if len(rows) > MAX_SHOWN:
        yield f"    ... and {len(rows) - MAX_SHOWN:,} more; --json tells of all"


def _cell(counted: dict[str, int] | None) -> str:
    return f"{'-':>8} {'-':>6}" if counted is None else f"{counted['packets']:>8,} {counted['lost']:>6,}"
