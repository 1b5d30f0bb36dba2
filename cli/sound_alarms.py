"""Alarms of how calls sound: raised when several calls of late have the same fault, over when calls are well again."""

from collections import deque
from dataclasses import dataclass, field

from ..storage.hearing import CLIPPING, NO_SOUND, ONE_WAY, SAME, faults
from ..storage.recording import Recording
from ..storage.state import Alarms

CODES = (ONE_WAY, NO_SOUND, SAME, CLIPPING)
LATELY = 10
"""Calls that count."""
MANY, WELL = 3, 5
"""So many of them with a fault are no accident; so many calls without it, one after the other, and it is over."""
LEAST_S = 5.0
"""Shorter calls tell nothing."""


@dataclass(slots=True)
class SoundAlarms:
    """Keeps what was wrong with the last calls: the id of each, and its faults by code."""

    alarms: Alarms
    _calls: deque[tuple[str, dict[str, str]]] = field(default_factory=lambda: deque(maxlen=LATELY))

    def met(self, recording: Recording) -> None:
        """Take a call into account, if anybody could have been heard in it."""
        plan = recording.plan
        if plan.listener is None or recording.call.answered is None or recording.duration_s < LEAST_S:
            return
        self._calls.append((recording.id, dict(faults(plan))))
        for code in CODES:
            self._look(code)

    def _look(self, code: str) -> None:
        bad = [(name, found[code]) for name, found in self._calls if code in found]
        if len(bad) >= MANY:
            name, text = bad[-1]
            self.alarms.raise_(code, f"{len(bad)} of the last {len(self._calls)} calls; {name}: {text}")
        last = list(self._calls)[-WELL:]
        if len(last) == WELL and not any(code in found for _, found in last):
            self.alarms.clear(code)
