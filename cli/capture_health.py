"""What the capture stage says of itself each second, and the alarms it raises."""

import os
import time
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..sniffer.sources.capture_file import CaptureError
from ..sniffer.sources.interfaces import counters
from ..storage import state
from . import notify
from .logs import log

if TYPE_CHECKING:
    from .capture_stage import CaptureStage

LINGER_S = 60.0
"""How long an alarm about something that happened, rather than is, stays raised, in seconds."""
QUIET_S = 120.0
"""How long nothing at all may come before that is an alarm, in seconds: even an idle network has some broadcasts."""
RATE_S = 5
BEHIND = 0.25
"""Share of the memory before the disk from which on it is an alarm."""


class Health:
    """Counts and alarms of one run; `tick` once a second."""

    def __init__(self, stage: "CaptureStage") -> None:
        self.folder = Path(stage.settings.storage.state)
        self.flood_calls = 0
        self._stage = stage
        self._scribe = stage.scribe
        self._alarms = state.Alarms(self.folder, "capture")
        self._started = datetime.now().astimezone()
        self._downtime: list[dict[str, Any]] = []
        self._drops = [0] * len(stage.rings)
        self._rates: deque[tuple[float, int]] = deque(maxlen=RATE_S + 1)
        self._happened: dict[str, tuple[int, float]] = {}
        self._last_packet = time.monotonic()
        self._seen = 0
        self._wake = notify.watchdog_interval()

    def begun(self) -> None:
        """The run begins: say how long the recorder was down, and what was lost with its memory."""
        before = state.read(self.folder, "capture")
        if before is not None and isinstance(before.get("updated"), (int, float)):
            self._note_downtime(before)
        self.note("capture started", interfaces=[ring.name for ring in self._stage.rings])
        self.tick()
        notify.ready("listening")

    def _note_downtime(self, before: dict[str, Any]) -> None:
        since = datetime.fromtimestamp(before["updated"]).astimezone().isoformat(timespec="milliseconds")
        until = self._started.isoformat(timespec="milliseconds")
        clean = bool(before.get("clean"))
        unclaimed = before.get("unclaimed") or {}
        lost = 0 if clean else unclaimed.get("packets", 0)
        entry = {"from": since, "to": until, "clean": clean, "unclaimed_lost": lost}
        earlier = before.get("downtime")
        self._downtime = [*(earlier if isinstance(earlier, list) else []), entry][-50:]
        self.note("downtime", **entry)
        self.say("warning", f"recorder down from {since} to {until}", clean=clean, unclaimed_packets_lost=lost)

    def note(self, event: str, **facts: Any) -> None:
        """Have an event written to the log of events."""
        self._scribe.do(lambda: state.append(self.folder, event, **facts))

    def say(self, level: str, text: str, **facts: Any) -> None:
        """Have something written to the log of the service."""
        self._scribe.do(lambda: getattr(log(), level)(text, **facts))

    def taken_over(self, files: int, calls: int) -> None:
        """Calls of an earlier run were handed over, or may go on."""
        if files or calls:
            self.note("taken over", unfinished=files, running=calls)
            self.say("warning", "an earlier run left calls", handed_over=files, watched_for=calls)

    def recalled(self, connections: int) -> None:
        """TLS connections of an earlier run are gone on with."""
        if connections:
            self.say("info", "TLS connections of an earlier run are known", connections=connections)

    def lost(self, frames: int) -> None:
        """Frames of calls found no room before the disk: they are no longer kept."""
        account = self._stage.engine.account
        account.packet("kept", "handed to calls", -frames)
        account.packet("overload_dropped", "disk full or too slow", frames)

    def tick(self) -> None:
        """Look at everything, raise and clear alarms, write the report, feed the watchdog."""
        self._look_at_interfaces()
        self._look_at_traffic()
        self._look_at_disk()
        self._look_at_keys()
        self._report(clean=False)
        if self._wake is not None:
            notify.watchdog()

    def ended(self, unwritten: int) -> None:
        """The run is over, with so many bytes that could not be written."""
        if unwritten:
            self.say("critical", "the disk did not take all that was heard", bytes=unwritten)
        self.note("capture stopped", unwritten_bytes=unwritten)
        self._report(clean=unwritten == 0)

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look_at_interfaces(self) -> None:
        stage = self._stage
        gone = []
        for place, ring in enumerate(stage.rings):
            counts = ring.statistics()
            new, self._drops[place] = counts.drops - self._drops[place], counts.drops
            if new:
                stage.engine.account.kernel_dropped(new)
            if ring.gone and not ring.reopen():
                gone.append(ring.name)
        stage.book.kernel_drops = total = sum(self._drops)
        text = f"the kernel dropped {total} packets since the start: the machine is too slow, or the ring too small"
        self._event("CAPTURE_LOSS", total, f"{text} (capture.ring_mb)", "critical")
        away = f"{', '.join(gone)}: gone or down; listening goes on when it is back"
        self._state("INTERFACE_GONE", bool(gone), away, "critical")

    def _look_at_traffic(self) -> None:
        stage, now = self._stage, time.monotonic()
        account = stage.engine.account
        if account.seen != self._seen:
            self._seen, self._last_packet = account.seen, now
        self._rates.append((now, account.seen))
        quiet = f"no packet for {now - self._last_packet:.0f} s: is the mirror port still set up?"
        self._state("NO_TRAFFIC", now - self._last_packet > QUIET_S, quiet, "critical")
        gate = stage.engine.gate
        flood = f"more than {gate.rate} new calls a second: {gate.refused} messages were turned away so far"
        self._state("SIP_FLOOD", gate.flooded(stage.engine.now), flood, "critical")
        if self.flood_calls:
            self.note("calls of a flood", without_answer=self.flood_calls)
            self.flood_calls = 0
        missed = stage.gaps.packets
        self._event("MIRROR_LOSS", missed, f"{missed} packets missed in all streams at once: the mirror loses packets")
        dropped = sum(count for (fate, _), count in account.packets.items() if fate == "overload_dropped")
        dropped -= account.packets["overload_dropped", "flood of SIP"]
        self._event("OVERLOAD", dropped, f"{dropped} packets were given up for want of memory", "critical")
        steps = stage.clock.set
        self._event(
            "CLOCK_STEP", steps, f"the system's clock was set {steps} x while recording; no sound changes by it"
        )

    def _look_at_disk(self) -> None:
        stage = self._stage
        backlog = stage.queue.backlog
        limit = stage.settings.capture.memory_mb << 20
        waits = f"{backlog.waiting >> 20} of {limit >> 20} MiB wait in memory"
        full = f"cannot write to the spool ({backlog.error}): recording goes on in memory; {waits}: make room"
        self._state("DISK_FULL", bool(backlog.error), full, "critical")
        slow = f"the disk is too slow: {waits}"
        self._state("SPOOL_BEHIND", not backlog.error and backlog.waiting > BEHIND * limit, slow)
        space = os.statvfs(stage.files.folder)
        free = space.f_bavail * space.f_frsize
        low = f"{free >> 20} MiB are free for running calls: make room"
        self._state("DISK_LOW", free < stage.settings.storage.reserve_mb << 20, low)

    def _look_at_keys(self) -> None:
        keys = self._stage.keys
        trouble = keys.trouble if keys is not None else ""
        self._state("KEY_LOG", bool(trouble), f"the key log of TLS sessions (tls.key_log): {trouble}")

    def _state(self, code: str, is_so: bool, text: str, severity: state.Severity = "warning") -> None:
        """Raise or clear an alarm. Alarms belong to the scribe's thread."""
        alarms = self._alarms
        self._scribe.do((lambda: alarms.raise_(code, text, severity)) if is_so else (lambda: alarms.clear(code)))

    def _event(self, code: str, count: int, text: str, severity: state.Severity = "warning") -> None:
        """Raise an alarm when a count has grown, for a while."""
        before, when = self._happened.get(code, (0, -LINGER_S))
        if count > before:
            when = time.monotonic()
            self._happened[code] = count, when
        self._state(code, count > 0 and time.monotonic() - when < LINGER_S, text, severity)

    # -- saying --------------------------------------------------------------------------------------------------------

    def _report(self, clean: bool) -> None:
        stage = self._stage
        account, backlog = stage.engine.account, stage.queue.backlog
        unclaimed = stage.engine.hold.frames
        totals = account.packet_totals()
        packets = {"in_calls": totals.pop("kept"), **totals, "waiting": stage.engine.waiting}
        packets["unaccounted"] = 2 * packets["seen"] - sum(packets.values())
        report = {
            "started": self._started.isoformat(timespec="milliseconds"),
            "clean": clean,
            "interfaces": [self._interface(place) for place in range(len(stage.rings))],
            "packets": packets,
            "packet_kinds": account.packet_kinds(),
            "rate": self._rate(),
            "calls": {
                **stage.counts,
                "open": len(stage.engine.correlator.open),
                "running": len(stage.answered),
                "refused": stage.engine.correlator.dialogs.refused_calls,
            },
            "unclaimed": {"packets": unclaimed, "bytes": stage.engine.hold.size},
            "spool": {
                "files": len(stage.files),
                "queued_bytes": backlog.waiting,
                "written_bytes": stage.files.written,
                "error": backlog.error,
            },
            "mirror_loss": {"packets": stage.gaps.packets},
            "clock": {"offset_ms": stage.clock.ahead / 1e6, "steps": stage.clock.set},
            "downtime": self._downtime,
            "tls": self._tls(),
        }
        self._scribe.do(lambda: state.write(self.folder, "capture", {**report, "alarms": self._alarms.active}))

    def _interface(self, place: int) -> dict[str, Any]:
        ring = self._stage.rings[place]
        counts = ring.statistics()
        return {
            "name": ring.name,
            "packets": counts.packets,
            "drops": counts.drops,
            "freezes": counts.freezes,
            "tx_packets": _sent(ring.name),
            "present": not ring.gone,
            "ring_fill": round(ring.fill, 3),
        }

    def _tls(self) -> dict[str, Any]:
        """Return how SIP over TLS is read: secrets that are known, and what could not be read, by kind."""
        engine, kind = self._stage.engine, "SIP over TLS: "
        lost = {text.removeprefix(kind): count for text, count in engine.account.notes.items() if text.startswith(kind)}
        return {"secrets": len(engine.secrets), "not_read": lost}

    def _rate(self) -> float:
        (first, before), (last, after) = self._rates[0], self._rates[-1]
        return round((after - before) / (last - first), 1) if last > first else 0.0


def _sent(name: str) -> int | None:
    """Return what went out of an interface since it came up, None if it is gone."""
    try:
        return counters(name).tx_packets
    except CaptureError:
        return None
