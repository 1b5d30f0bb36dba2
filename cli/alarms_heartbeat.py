"""The signs of life of the alarms stage: sent while the box is healthy enough, and what does not get through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..storage import heartbeat, state
from ..storage.alarm_book import iso
from ..storage.alarm_words import heartbeat_letter
from ..storage.heartbeat import HeartbeatError
from ..storage.outbox import Outbox
from . import box
from .background import Background
from .settings import HeartbeatSettings

_HANGS_S = 120.0


@dataclass(slots=True)
class Heartbeat:
    """Sends signs of life. Belongs to the stage's thread; the sending itself has one of its own."""

    alarms: state.Alarms
    sent: int = 0
    _due: float = 0.0
    _began: float = 0.0
    _work: Background[list[str]] = field(default_factory=lambda: Background("heartbeat"))

    def step(self, wanted: HeartbeatSettings, reports: box.Reports, instance: str, outbox: Outbox, now: float) -> None:
        """Send a sign of life if one is due, and the box is well enough to be said to be alive."""
        self._collect(now)
        if not (wanted.file or wanted.url or wanted.mail) or now < self._due <= now + wanted.every_s:
            return
        self._due = now + wanted.every_s
        if not is_healthy(reports):
            return
        content = sign(reports, instance, wanted.every_s, now)
        if wanted.mail:
            outbox.post(heartbeat_letter(wanted.mail, content, instance, now))
        if (wanted.file or wanted.url) and not self._work.busy:
            self._began = now
            self._work.start(partial(_send, wanted, content))

    def _collect(self, now: float) -> None:
        for troubles in self._work.take():
            if troubles:
                self.alarms.raise_("HEARTBEAT_FAILED", "; ".join(troubles))
            else:
                self.sent += 1
                self.alarms.clear("HEARTBEAT_FAILED")
        if self._work.busy and now - self._began > _HANGS_S:
            self.alarms.raise_(
                "HEARTBEAT_FAILED", "the last sign of life hangs: does the share of heartbeat.file answer?"
            )


def is_healthy(reports: box.Reports) -> bool:
    """Whether the box does what it is for: every stage runs, and no alarm is critical. Warnings are told by mail."""
    critical = any(alarm.get("severity") == "critical" for alarm in box.active_alarms(reports))
    down = [stage for stage in box.missing(reports) if stage != "alarms"]
    return "capture" in reports.alive and not down and not critical


def sign(reports: box.Reports, instance: str, every_s: float, now: float) -> dict[str, Any]:
    """Return what a sign of life says."""
    codes = sorted({str(alarm.get("code")) for alarm in box.active_alarms(reports)})
    return {
        "time": iso(now),
        "instance": instance,
        "state": "warning" if codes else "healthy",
        "alarms": codes,
        "recording_since": reports.of.get("capture", {}).get("started"),
        "every_s": every_s,
        "version": __version__,
    }


def _send(wanted: HeartbeatSettings, content: Mapping[str, Any]) -> list[str]:
    """Send it in all ways; return what went wrong."""
    troubles = []
    for way in ("file", "url"):
        try:
            if way == "file" and wanted.file:
                heartbeat.write(Path(wanted.file), content)
            if way == "url" and wanted.url:
                heartbeat.call(wanted.url, wanted.method, content)
        except HeartbeatError as error:
            troubles.append(str(error))
    return troubles
