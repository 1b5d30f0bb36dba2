"""Mails that are to be written, and mails that are to be sent: a queue that is small, and outlives a restart.

Nothing here sends, writes or knows the time. What happens at about the same time goes into one mail; a reader gets so
many mails an hour and no more, and what has to wait for that goes into the next one. A server that does not answer
holds up all mails, and is tried later and later; one that it refuses holds up no other, and is given up at some time.
"""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from .alarm_book import Change, Entry

HOUR_S = 3600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 900.0
MOST_LETTERS, MOST_CHANGES = 50, 300
MOST_REFUSALS = 10
"""A server that answers "later" (greylisting) means minutes; so many tries are an hour and a half."""

LetterKind = Literal["alarm", "alive", "heartbeat"]


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail. Its `id` stays the same however often it is sent. Times are in seconds since the epoch."""

    to: tuple[str, ...]
    subject: str
    body: str
    made: float
    kind: LetterKind = "alarm"
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    refusals: int = 0
    due: float = 0.0


@dataclass(slots=True)
class Outbox:
    """The queue. `waited` counts changes that had to wait for the hourly limit, `lost` those there was no room for."""

    changes: list[Change] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    made: list[float] = field(default_factory=list)
    waited: int = 0
    lost: int = 0
    failures: int = 0
    due: float = 0.0

    def note(self, change: Change) -> None:
        """Take a change that is to be told."""
        self.changes.append(change)
        if len(self.changes) > MOST_CHANGES:
            del self.changes[0]
            self.lost += 1

    def gather(self, now: float, gather_s: float, an_hour: int) -> list[Change]:
        """Take out what now goes into a mail: nothing as long as more may come, or no mail may be written."""
        self.made = [moment for moment in self.made if 0 <= now - moment < HOUR_S]
        if not self.changes or 0 <= now - min(change.at for change in self.changes) < gather_s:
            return []
        if len(self.made) >= an_hour:
            self.waited = len(self.changes)
            return []
        if len(self.letters) >= MOST_LETTERS:
            return []
        found, self.changes = self.changes, []
        return found

    def post(self, letter: Letter) -> None:
        """Put a mail into the queue. A sign of life takes the place of the one before: an old one is worth nothing."""
        if letter.kind != "alarm":
            self.letters = [one for one in self.letters if one.kind != letter.kind]
        else:
            if letter.made not in self.made:  # mails of the same moment go to different readers
                self.made.append(letter.made)
            self.waited = self.lost = 0
        self.letters.append(letter)

    def next(self, now: float) -> Letter | None:
        """Return the oldest mail that may be sent now."""
        if now < self.due <= now + LONGEST_PAUSE_S:
            return None
        return next((one for one in self.letters if not now < one.due <= now + LONGEST_PAUSE_S), None)

    def sent(self, letter: Letter) -> None:
        """A mail is with the server."""
        self.letters = [one for one in self.letters if one.id != letter.id]
        self.failures, self.due = 0, 0.0

    def try_again(self) -> None:
        """Something has changed: nothing has to wait for its next try any more."""
        self.failures, self.due = 0, 0.0
        self.letters = [replace(one, due=0.0) for one in self.letters]

    def unreachable(self, now: float) -> None:
        """The server takes no mail at all."""
        self.failures += 1
        self.due = now + pause(self.failures)

    def refused(self, letter: Letter, now: float) -> bool:
        """The server does not take this mail, for those it is still to go to. Returns whether it is given up."""
        self.failures, self.due = 0, 0.0
        known = next((one for one in self.letters if one.id == letter.id), letter)
        self.letters = [one for one in self.letters if one.id != letter.id]
        if known.refusals + 1 >= MOST_REFUSALS:
            return True
        again = replace(known, to=letter.to, refusals=known.refusals + 1, due=now + pause(known.refusals + 4))
        self.letters.append(again)
        return False

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for a file."""
        return asdict(self)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Outbox":
        """Return what `as_json` has given. Raises TypeError, KeyError, ValueError for anything else."""
        changes = [Change(one["kind"], Entry(**one["entry"]), one["at"]) for one in content["changes"]]
        letters = [Letter(**{**one, "to": tuple(one["to"])}) for one in content["letters"]]
        return cls(**{**content, "changes": changes, "letters": letters})


def pause(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: 10, 20, 40 ... and at last a quarter of an hour."""
    return min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_S)
