"""A flood of INVITEs while calls are running: these stay whole, memory stays bounded, and there is an alarm.

    python bench/flood.py                       50,000 INVITEs a second for 20 s, 20 calls
    python bench/flood.py --rate 20000 --seconds 5 --json

Each INVITE has a Call-ID, tags and a source address of its own, as from a tool that wants to fill a recorder's tables.
Needs root.
The exit code is 1 when a call that ran before the flood is not whole, when memory grew beyond the limit, when the alarm
SIP_FLOOD was not raised, or when a packet was dropped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from bench import compare, sender  # noqa: E402
from bench.invites import Flood  # noqa: E402
from bench.traffic import Plan, call_id  # noqa: E402
from bench.usage import Watch  # noqa: E402
from tests.support.box import Box  # noqa: E402
from tests.support.netns import Namespaces, Wire, end_in_order, missing  # noqa: E402

BEFORE_S, AFTER_S = 4, 4
"""Calls run so long before the flood begins and after it ends."""
SPREAD_S = 2
SETTLE_S = 3
LIMIT_MB = 400


@dataclass(frozen=True)
class Flooded:
    """What the flood did. Memory is the capture stage's own, in bytes, before the flood and at most."""

    invites: int
    invite_rate: float
    calls: int
    recordings: int
    wrong: list[str]
    alarm: bool
    refused: int
    seen: int
    sent: int
    dropped: int
    memory_before: int
    memory_peak: int
    cores: float
    limit: int

    @property
    def good(self) -> bool:
        whole = not self.wrong and not self.dropped and self.seen == self.sent
        return whole and self.alarm and self.memory_peak <= self.limit


def flood(rate: int, seconds: int, calls: int, folder: Path, limit_mb: int = LIMIT_MB) -> Flooded:
    """Run it in a folder of its own."""
    plan = Plan(calls, BEFORE_S + seconds + AFTER_S, SPREAD_S)
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        with Box(wire.tap, [wire.tap_interface], folder) as box, Watch(box.pids, 0.5) as watch:
            talking = sender.start(wire.sender, wire.interface, [plan])
            time.sleep(SPREAD_S + BEFORE_S)
            before = watch.peak("capture")
            flooding = sender.start(wire.sender, wire.interface, Flood.lasting(rate, seconds))
            alarm = False
            while not flooding.done():
                alarm |= any(one["code"] == "SIP_FLOOD" for one in box.report("capture")["alarms"])
                time.sleep(0.5)
            sent, talked = flooding.wait(), talking.wait()
            box.wait_until_recorded(calls)
            report = _settled(box)
            found = compare.by_call(box.recordings())
    wrong = [compare.whole(plan, call, found.get(call_id(call), [])) for call in range(calls)]
    [port] = report["interfaces"]
    return Flooded(
        invites=sent.packets,
        invite_rate=sent.rate,
        calls=calls,
        recordings=sum(map(len, found.values())),
        wrong=[text for text in wrong if text],
        alarm=alarm,
        refused=report["packet_kinds"].get("overload_dropped", {}).get("flood of SIP", 0),
        seen=port["packets"] - port["drops"],
        sent=sent.packets + talked.packets,
        dropped=port["drops"],
        memory_before=before,
        memory_peak=watch.peak("capture"),
        cores=watch.cores("capture"),
        limit=limit_mb << 20,
    )


def _settled(box: Box) -> dict[str, Any]:
    """The capture stage's report when nothing more comes: what it is behind waits in the ring."""
    before, report = -1, box.report("capture")
    while report["interfaces"][0]["packets"] != before:
        before = report["interfaces"][0]["packets"]
        time.sleep(SETTLE_S)
        report = box.report("capture")
    return report


def text(one: Flooded) -> str:
    """The outcome for a reader."""
    return "\n".join(
        [
            f"{one.invites:,} INVITEs at {one.invite_rate:,.0f}/s; {one.refused:,} turned away;"
            f" {one.sent:,} packets sent, {one.seen:,} seen, {one.dropped:,} dropped",
            f"{one.calls} calls, {one.recordings} recordings, {len(one.wrong)} not whole",
            *one.wrong[:5],
            f"alarm SIP_FLOOD: {'raised' if one.alarm else 'NOT RAISED'}",
            f"capture: {one.memory_before / 1e6:.0f} MB before, {one.memory_peak / 1e6:.0f} MB at most"
            f" (limit {one.limit / 1e6:.0f}); {one.cores:.2f} cores",
        ]
    )


def main() -> int:
    """Flood, print what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--limit-mb", type=int, default=LIMIT_MB)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    end_in_order()
    if reason := missing():
        raise SystemExit(reason)
    with TemporaryDirectory(prefix="bench") as name:
        done = flood(arguments.rate, arguments.seconds, arguments.calls, Path(name), arguments.limit_mb)
    print(json.dumps(asdict(done) | {"good": done.good}) if arguments.json else text(done))
    return 0 if done.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
