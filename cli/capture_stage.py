"""The capture stage: rings are emptied, the engine decides, the spool's thread writes. Hot, and never waiting."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..sip.call import Answered, Ended, Event, Revived, Ringing
from ..sip.dialog import Call, Party
from ..sniffer.datagrams import RtpColumns
from ..sniffer.direction import direction
from ..sniffer.engine import Listener
from ..sniffer.gaps import Gaps
from ..sniffer.items import Cycle, Over
from ..sniffer.live import LiveEngine
from ..sniffer.monotonic import SteadyClock
from ..sniffer.records import Records
from ..sniffer.sources import clocks
from ..sniffer.sources.capture_file import CaptureError
from ..sniffer.sources.ring import Ring
from ..sniffer.streams import Lookup
from ..sniffer.tap import Interleave
from ..sniffer.tracked import SECOND, Tracked
from ..storage import tls_memory
from ..storage.resume import take_over
from ..storage.spool import SpoolBook, SpoolFiles
from ..storage.spool_queue import SpoolQueue
from . import notify
from .call_events import CallEvent, EventPrinter
from .capture_health import Health
from .parts import live_engine, origin
from .record import call_settings, link_headers, own_of
from .rings import set_filters
from .scribe import Scribe
from .settings import ConfigError, Settings, all_settings
from .tls_keys import TlsKeys

READ_BYTES = 8 << 20
"""Bytes of a ring that are looked at in one step: larger steps fall out of the processor's cache."""
FIXED = frozenset(
    f"capture.{name}"
    for name in (
        "interfaces",
        "ring_mb",
        "block_kb",
        "block_timeout_ms",
        "promiscuous",
        "hardware_stamps",
        "cycle_ms",
        "sync_s",
        "memory_mb",
    )
) | {
    "storage.spool",
    "storage.state",
    "tls.key_log",
    "tls.server_keys",
    "tls.ports",
    "users.capture",
    "recording.instance",
    "limits.max_calls",
    "limits.max_streams",
    "limits.unclaimed_memory_mb",
    "monitoring.log_level",
}
"""Settings that are looked at once, at the start."""
REMEMBER_S = 30.0
"""How often it is noted how far TLS connections have got, in seconds."""
LAST_WORDS_S = 5.0
"""How long a stop waits for a terminal or log that takes nothing, in seconds."""
DRAIN_S = 20.0
"""How long a stop waits for the disk, in seconds."""
MAX_STEPS = 64


@dataclass(slots=True)
class CaptureStage:
    """One run of the stage on rings that are open. `reload` reads the settings again; `keys` are those of TLS."""

    settings: Settings
    rings: list[Ring]
    printer: EventPrinter
    reload: Callable[[], Settings]
    keys: TlsKeys | None = None
    engine: LiveEngine = field(init=False)
    book: SpoolBook = field(init=False)
    queue: SpoolQueue = field(init=False)
    files: SpoolFiles = field(init=False)
    clock: SteadyClock = field(init=False)
    gaps: Gaps = field(init=False)
    scribe: Scribe = field(init=False)
    health: Health = field(init=False)
    counts: dict[str, int] = field(init=False)
    answered: set[int] = field(init=False, default_factory=set)
    _interleave: Interleave = field(init=False)
    _steps: list[tuple[int, int]] = field(init=False, default_factory=list)
    _stopping: bool = field(init=False, default=False)
    _reloading: bool = field(init=False, default=False)
    _unheard: int = field(init=False, default=0)
    _remembered: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        own, capture = self.settings, self.settings.capture
        self.clock = SteadyClock(*clocks.both())
        self.gaps = Gaps()
        links, secrets = tuple(ring.link for ring in self.rings), self.keys.secrets if self.keys else None
        self.engine = live_engine(own, links, _GapListener(self.gaps), secrets)
        names = ", ".join(ring.name for ring in self.rings)
        self.book = SpoolBook(origin(own, names, self.engine.links), self._steps)
        self.files = SpoolFiles(Path(own.storage.spool))
        self.queue = SpoolQueue(self.files, capture.memory_mb << 20, capture.sync_s)
        self.counts = dict.fromkeys(("seen", "answered", "handed_over", "without_media"), 0)
        self.scribe = Scribe()
        self.health = Health(self)
        self._interleave = Interleave((2 * capture.block_timeout_ms + 50) * 1_000_000)

    # -- the run -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Listen until SIGTERM or SIGINT. Returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._ask_reload)
        self._resume()
        if self.keys is not None and self.keys.secrets:
            self.keys.watch()
            self.health.recalled(self.engine.recall_tls(tls_memory.load(self.files.folder)))
        self.queue.start()
        self.scribe.start()
        self.health.begun()
        cycle = self.settings.capture.cycle_ms / 1000
        second = time.monotonic()
        while not self._stopping:
            began = time.monotonic()
            self._visit()
            if began >= second:
                second = began + 1
                self.health.tick()
                self._remember_tls(REMEMBER_S)
            if self._reloading:
                self._reload()
            if max(ring.fill for ring in self.rings) < 0.25:
                time.sleep(max(cycle - (time.monotonic() - began), 0.001))
        return self._finish()

    def _resume(self) -> None:
        """Go on with the calls of an earlier run."""
        patience = int(self.settings.calls.held_silence_s * SECOND)
        left = take_over(self.files.folder, self.engine.sip_ports, self.clock.now - patience)
        for path in left.unreadable:
            self.health.say("warning", "what was said in a call of an earlier run cannot be read", file=path.name)
        self._take(self.engine.resume(left.history))
        going = self.engine.correlator.open.values()
        self.answered = {one.call.number for one in going if one.call.answered is not None and one.call.ended is None}
        self.health.taken_over(left.handed_over, len({past.id for past, _ in left.history}))

    def _remember_tls(self, every: float) -> None:
        """Keep what another run has to know of TLS connections, if that was not done for so long (s)."""
        now = time.monotonic()
        if self.keys is None or not self.keys.secrets or now - self._remembered < every:
            return
        self._remembered = now
        sessions, folder = self.engine.remember_tls(), self.files.folder
        self.scribe.do(lambda: tls_memory.save(folder, sessions))

    def _visit(self) -> None:
        """Empty the rings once."""
        if len(self.rings) == 1:
            self._visit_one(self.rings[0])
        else:
            self._visit_all()

    def _visit_one(self, ring: Ring) -> None:
        limit = max(READ_BYTES // (self.settings.capture.block_kb << 10), 1)
        heard = False
        for _ in range(1 + ring.blocks // limit):
            captured = ring.read(limit)
            if captured is None:
                break
            self._listen(self._steady(captured.records, ring))
            ring.release(captured.blocks)
            heard = True
        if heard:
            self.clock.sample(*clocks.both())
        else:
            self._nothing()

    def _visit_all(self) -> None:
        read: list[Records | None] = []
        taken = []
        for ring in self.rings:
            captured = ring.read()
            read.append(self._steady(captured.records, ring) if captured is not None else None)
            taken.append(captured.blocks if captured is not None else 0)
        self.clock.sample(*clocks.both())
        due = self._interleave.take(read, self.clock.now)
        for ring, blocks in zip(self.rings, taken, strict=True):
            ring.release(blocks)
        if due is None:
            self._nothing()
        else:
            self._listen(due)

    def _steady(self, records: Records, ring: Ring) -> Records:
        """Return the frames of a ring with steady times."""
        source, more = self.rings.index(ring), ring.ready > 0
        card = ring.hardware_stamps
        steady, _ = self.clock.cycle(records.time, *clocks.both(), source=source, backlog=more, card=card)
        return replace(records, time=steady)

    def _listen(self, records: Records) -> None:
        self._follow_clock()
        self._take(self.engine.listen(records))

    def _nothing(self) -> None:
        """No frame came: let time pass, a little behind what may still be on its way through the rings."""
        behind = (2 * self.settings.capture.block_timeout_ms + 300) * 1_000_000
        self.clock.sample(*clocks.both())
        self._follow_clock()
        self._take(self.engine.idle(self.clock.now - behind))

    def _follow_clock(self) -> None:
        """Note what the clock was set to in the spool of each running call."""
        steps = self.clock.steps
        last = self._steps[-1][0] if self._steps else -1
        for since, ahead in zip(steps.since[-16:], steps.ahead[-16:], strict=True):
            if since > last:
                self._steps.append((since, ahead))
                self._take(self.engine.note({"note": "clock", "since": since, "ahead": ahead}))
        del self._steps[:-MAX_STEPS]

    def _take(self, cycle: Cycle) -> None:
        """Pass on what a visit gave."""
        ids = {
            item.tracked.call.number: self.book.id_of(item.tracked.call.number)
            for item in cycle.items
            if isinstance(item, Over)
        }
        jobs = self.book.jobs(cycle.items)
        for job in self.queue.put(jobs):
            self.book.lost(job)
            self.health.lost(job.frames)
        for tracked, event in cycle.events:
            self._show(tracked, event)
        for item in cycle.items:
            if isinstance(item, Over):
                self._over(item, ids[item.tracked.call.number])

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _show(self, tracked: Tracked, event: Event) -> None:
        call = tracked.call
        match event:
            case Ringing():
                self._print("ringing", event.time, call)
            case Answered():
                self.counts["answered"] += 1
                self.answered.add(call.number)
                self._print("answered", event.time, call)
            case Ended():
                self.answered.discard(call.number)
                if call.answered is not None:
                    self._print("ended", event.time, call, event.reason)
            case Revived():
                if call.answered is not None:
                    self.answered.add(call.number)

    def _over(self, item: Over, name: str) -> None:
        call = item.tracked.call
        self.counts["seen"] += 1
        self.answered.discard(call.number)
        if item.frames:
            self.counts["handed_over"] += 1
            return
        self.counts["without_media"] += 1
        if item.running:
            return
        if not name and self.engine.gate.flooded(self.engine.now):
            self.health.flood_calls += 1
            return
        self._print("not recorded", call.ended or item.time, call, f"no media: {call.end_reason or 'unknown'}", name)
        self.health.note("call", **self._facts(call, name))

    def _facts(self, call: Call, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "outcome": "without_media",
            "caller": call.caller.number,
            "callee": call.callee.number,
            "direction": self._direction(call),
            "started": self._local(call.started).isoformat(timespec="milliseconds"),
            "duration_s": 0.0,
            "codec": "",
            "reason": call.end_reason,
            "call_id": call.call_id,
        }

    def _print(self, kind: str, when: int, call: Call, detail: str = "", name: str = "") -> None:
        name = name or self.book.id_of(call.number)
        event = CallEvent(
            kind, self._local(when), name, call.caller.number, call.callee.number, self._direction(call), detail
        )
        self.scribe.do(lambda: self.printer.show(event))

    def _local(self, when: int) -> datetime:
        return self.settings.zone().local(self.clock.wall(when))

    def _direction(self, call: Call) -> str:
        addresses = [call.signalling[party][0] if party in call.signalling else "" for party in Party]
        return direction(own_of(self.settings), call.caller.number, call.callee.number, *addresses)

    # -- signals -------------------------------------------------------------------------------------------------------

    def _stop(self, number: int, frame: Any) -> None:
        self._stopping = True

    def _ask_reload(self, number: int, frame: Any) -> None:
        self._reloading = True

    def _reload(self) -> None:
        """Take new settings between two visits; the ring goes on filling meanwhile."""
        self._reloading = False
        notify.reloading()
        try:
            settings = self.reload()
        except ConfigError as error:
            self.health.say("error", "the new configuration is not taken", reason=str(error))
        else:
            self._go_on_with(settings)
        notify.ready()

    def _go_on_with(self, settings: Settings) -> None:
        before, self.settings = self.settings, settings
        if settings.capture.filter != before.capture.filter:
            try:
                set_filters(self.rings, settings.capture.filter)
            except CaptureError as error:
                self.health.say("error", "the new filter is not taken", reason=str(error))
        self.engine.mask_digits = settings.recording.mask_digits
        self.engine.reconfigure(
            call_settings(settings),
            frozenset(settings.sip.ports),
            settings.capture.new_calls_per_s,
            link_headers(settings),
        )
        self.health.note("configuration reloaded", source=settings.source)
        self.health.say("info", "configuration reloaded", source=settings.source or "no file")
        later = [one.name for one in all_settings() if one.name in FIXED and one.of(settings) != one.of(before)]
        if later:
            self.health.say("warning", "these settings hold from the next start on", settings=", ".join(later))

    def _finish(self) -> int:
        """Empty the rings a last time, hand everything over, and say so."""
        notify.stopping()
        time.sleep(2 * self.settings.capture.block_timeout_ms / 1000)
        self._visit()
        self._take(self.engine.stop())
        self._remember_tls(0.0)
        left = self.queue.stop(DRAIN_S)
        self.health.ended(left)
        self.scribe.stop(LAST_WORDS_S)
        if self.keys is not None:
            self.keys.stop()
        for ring in self.rings:
            ring.close()
        return 0


class _GapListener(Listener):
    """Looks for moments at which all streams miss packets."""

    def __init__(self, gaps: Gaps) -> None:
        self._gaps = gaps

    def streamed(self, rtp: RtpColumns, found: Lookup) -> None:
        """Look at a slice's media."""
        self._gaps.take(rtp, found)
