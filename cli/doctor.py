"""`tapdeck doctor`: what a mirror port shows, what this machine can take, and what to do about both."""

import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import click

from ..sniffer.checkup import Checkup, Picture
from ..sniffer.clock import Clock, Steps
from ..sniffer.diagnosis import judge
from ..sniffer.finding import Finding, warn
from ..sniffer.forecast import G711
from ..sniffer.machine import Card, Machine
from ..sniffer.machine import judge as judge_machine
from ..sniffer.records import Records
from ..sniffer.sources.capture_file import CaptureError, open_capture
from ..sniffer.sources.interfaces import Interface, interface, interfaces
from ..sniffer.sources.payloads import Payloads
from ..sniffer.sources.ring import Ring
from ..sniffer.tap import Interleave
from ..storage import state
from . import machine as this_machine
from .config import load, with_options
from .doctor_report import LivePicture, PlainLines, Silence, exit_code, print_json, print_report, verdict_of
from .record import UnreadableInput
from .settings import Settings
from .tuning import tune

VISIT_S = 0.1
SHOW_S = 0.5
PATIENCE_NS = 200_000_000
"""How long an interface that shows nothing is waited for, where there are several."""
LIVE = 1
"""Where frames of a ring stand in their source: anywhere but at 0, which means bytes put together here."""
USUAL_MINUTES = 300.0
_READY = "This port shows calls, whole and both ways, and this machine can take them: go on with `tapdeck setup`"
_FILE_READY = "This capture shows calls, whole and both ways"


class Show(Protocol):
    """Where the picture of the watch goes."""

    def show(self, head: str, picture: Picture, rate: float, findings: list[Finding]) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


@click.command()
@click.option(
    "-i", "--interface", "names", multiple=True, metavar="NAME", help="Interface of the mirror port; repeatable."
)
@click.option("--seconds", type=click.FloatRange(1, 86_400), default=20, show_default=True, help="How long to watch.")
@click.option(
    "--capture", type=click.Path(dir_okay=False), help="Judge the traffic of a capture file in place of a port."
)
@click.option("--fix", is_flag=True, help="Turn off the card's offloads that put packets together (as root).")
@click.option("--security", is_flag=True, help="Check how this installation is secured; watch nothing.")
@click.option("--minutes-per-day", type=click.FloatRange(0), metavar="N", help="Calls expected, for the disk's space.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end.")
@with_options("sip")
def doctor(
    names: tuple[str, ...],
    seconds: float,
    capture: str | None,
    fix: bool,
    security: bool,
    minutes_per_day: float | None,
    as_json: bool,
    config: Path | None,
    **options: Any,
) -> int:
    """Watch a mirror port for a while, and say what is wrong with it.

    Needs the rights to capture (root, or CAP_NET_RAW). Every check is green, amber or red; the exit code is 0, 1 or 2
    after the worst of them. Ctrl-C ends the watch early, with the verdict so far.
    """
    settings = load(config, options)
    if security:
        from .security import run

        return run(settings, as_json)
    tune()
    if capture:
        return _judge_capture(capture, settings, as_json)
    names = names or settings.capture.interfaces
    if not names:
        raise click.UsageError(f"name the interface of the mirror port with -i: {_candidates()}")
    try:
        found = [interface(name) for name in dict.fromkeys(names)]
        return _Visit(settings, found, seconds, minutes_per_day, as_json).run(fix)
    except CaptureError as error:
        raise UnreadableInput(str(error)) from None


def _candidates() -> str:
    return ", ".join(one.name for one in interfaces() if one.kind != "loopback") or "there is none"


def _judge_capture(name: str, settings: Settings, as_json: bool) -> int:
    """Judge a capture file, by the traffic alone."""
    import tempfile

    checkup = Checkup(sip_ports=frozenset(settings.sip.ports))
    with tempfile.TemporaryDirectory(prefix="tapdeck-") as scratch:
        try:
            source, clock = open_capture(name, Payloads(Path(scratch))), Clock(Steps())
            for records in source.blocks():
                checkup.read(clock.steady(records))
        except CaptureError as error:
            raise UnreadableInput(str(error)) from None
    checkup.finish()
    findings = judge(checkup.traffic())
    if source.damage:
        findings.insert(0, warn("capture", source.damage, "Save it again; what came before was judged."))
    _report(findings, verdict_of(findings, _FILE_READY), [], as_json, {"capture": name})
    return exit_code(findings)


def _report(findings: list[Finding], verdict: str, notes: list[str], as_json: bool, facts: dict[str, Any]) -> None:
    if as_json:
        print_json(findings, verdict, {**facts, "notes": notes})
    else:
        print_report(findings, verdict, notes, colourful=sys.stdout.isatty())


@dataclass(slots=True)
class _Visit:
    """One visit of the doctor to a live port."""

    settings: Settings
    before: list[Interface]
    seconds: float
    minutes_per_day: float | None
    as_json: bool
    checkup: Checkup = field(init=False)
    rings: list[Ring] = field(init=False, default_factory=list)
    _clock: Clock = field(init=False, default_factory=lambda: Clock(Steps()))
    _interleave: Interleave = field(init=False, default_factory=lambda: Interleave(PATIENCE_NS))
    _elapsed: float = field(init=False, default=0.0)
    _stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.checkup = Checkup(
            sip_ports=frozenset(self.settings.sip.ports),
            own=frozenset(int(one.mac.replace(":", ""), 16) for one in interfaces() if one.mac),
            mtu=max(one.mtu for one in self.before),
        )

    def run(self, fix: bool) -> int:
        """Look at the machine, watch the port, and report."""
        notes = this_machine.turn_off_offloads(self.before) if fix else []
        if notes:
            self.before = [interface(one.name) for one in self.before]
        disk = this_machine.disk(Path(self.settings.storage.spool))
        try:
            self._open()
            cards = self._watch()
        finally:
            for ring in self.rings:
                ring.close()
        traffic = self.checkup.traffic(self._elapsed, time.time_ns())
        machine = Machine(
            cards=cards,
            other_way=this_machine.other_way([one.name for one in self.before]),
            clock=this_machine.system_clock(),
            disk=disk,
            minutes_per_day=self._minutes(),
            warn_days=self.settings.storage.warn_days,
        )
        findings = judge(traffic) + judge_machine(machine, traffic)
        if self._stopped:
            notes.append(f"interrupted after {self._elapsed:.0f} s: this is how things stand so far")
        facts = {"interfaces": [one.name for one in self.before], "seconds": round(self._elapsed, 1)}
        _report(findings, verdict_of(findings, _READY), notes, self.as_json, facts)
        return exit_code(findings)

    def _open(self) -> None:
        capture = self.settings.capture
        for one in self.before:
            ring = Ring(
                one.name,
                size=capture.ring_mb << 20,
                block=capture.block_kb << 10,
                timeout_ms=capture.block_timeout_ms,
                promiscuous=capture.promiscuous,
            )
            self.rings.append(ring)

    def _show(self) -> Show:
        if self.as_json:
            return Silence()
        return LivePicture() if sys.stdout.isatty() else PlainLines()

    def _watch(self) -> tuple[Card, ...]:
        """Visit the rings until the time is over, or somebody has seen enough."""
        show = self._show()
        before = [signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            self._visits(show)
        finally:
            show.close()
            for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
                signal.signal(number, handler)
        return self._cards()

    def _stop(self, number: int, frame: object) -> None:
        """End the watch after this visit; a second signal ends the process."""
        self._stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def _visits(self, show: Show) -> None:
        start = shown = time.monotonic()
        seen = 0
        names = ", ".join(one.name for one in self.before)
        while self._elapsed < self.seconds and not self._stopped:
            time.sleep(min(VISIT_S, self.seconds - self._elapsed))
            self._visit(time.time_ns())
            now = time.monotonic()
            self._elapsed = now - start
            if now - shown >= SHOW_S:
                picture = self.checkup.picture()
                rate, seen = (picture.packets - seen) / (now - shown), picture.packets
                head = f"{names}  {self._elapsed:4.0f} s of {self.seconds:.0f} s"
                traffic = self.checkup.traffic(self._elapsed, time.time_ns())
                show.show(head, picture, rate, judge(traffic, over=False))
                shown = now
        self._visit(time.time_ns() + 2 * PATIENCE_NS)  # nothing waits for another interface any more

    def _visit(self, now: int) -> None:
        """Take what the rings hold."""
        captured = [self._read(ring) for ring in self.rings]
        records = [one[0] for one in captured]
        due = records[0] if len(records) == 1 else self._interleave.take(records, now)
        if due is not None and len(due):
            self.checkup.read(replace(self._clock.steady(due), position=LIVE))
        for ring, (_, blocks) in zip(self.rings, captured, strict=True):
            ring.release(blocks)

    @staticmethod
    def _read(ring: Ring) -> tuple[Records | None, int]:
        if ring.gone:
            ring.reopen()
        captured = ring.read()
        return (captured.records, captured.blocks) if captured is not None else (None, 0)

    def _cards(self) -> tuple[Card, ...]:
        cards = []
        for one, ring in zip(self.before, self.rings, strict=True):
            counts = ring.statistics()
            known = this_machine.card(one, self.settings.capture.promiscuous)
            cards.append(replace(known, packets=counts.packets, drops=counts.drops))
        return tuple(cards)

    def _minutes(self) -> float:
        """Return the minutes of calls a day: as told, as deliver has seen, or as in a small office."""
        if self.minutes_per_day is not None:
            return self.minutes_per_day
        report = state.read(Path(self.settings.storage.state), "deliver") or {}
        daily = report.get("disk", {}).get("bytes_per_day") if isinstance(report.get("disk"), dict) else None
        if isinstance(daily, (int, float)) and daily > 0:
            return round(daily / 60 / G711.bytes_per_second, 1)
        return USUAL_MINUTES
