"""What the alarms stage must not forget, in one file that is replaced in one step: so an alarm that is in the book is
also in the queue of those who are to be told of it, whenever the process is killed.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .alarm_book import Book, Change
from .atomic import replace_file
from .event_cursor import Cursor
from .outbox import Outbox

VERSION = 1
MOST_CALLS = 1000
FOLDER, FILE = "alarms", "book.json"

_MAX_FILE = 64 << 20


@dataclass(slots=True)
class Desk:
    """Everything there is to remember. `calls` are events that the alarm hook is to be given, with how often it was
    tried; `alive` is the day of the last mail that all is well.
    """

    book: Book = field(default_factory=Book)
    outbox: Outbox = field(default_factory=Outbox)
    calls: list[dict[str, Any]] = field(default_factory=list)
    cursor: Cursor | None = None
    alive: str = ""
    lost_calls: int = 0

    def take(self, change: Change, mail: bool, hook: bool) -> None:
        """Have everybody told who is to be told."""
        if mail and change.kind in ("raised", "over"):
            self.outbox.note(change)
        if hook:
            self.calls.append({"event": change.shown(), "tries": 0})
            if len(self.calls) > MOST_CALLS:
                del self.calls[0]
                self.lost_calls += 1

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for the file."""
        return {
            "version": VERSION,
            "book": self.book.as_json(),
            "outbox": self.outbox.as_json(),
            "calls": [dict(one) for one in self.calls],
            "cursor": self.cursor,
            "alive": self.alive,
            "lost_calls": self.lost_calls,
        }

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Desk":
        """Return what `as_json` has given. Raises TypeError, KeyError, ValueError for anything else."""
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        book, outbox = Book.of(content["book"]), Outbox.of(content["outbox"])
        calls = [{"event": dict(one["event"]), "tries": int(one["tries"])} for one in content["calls"]]
        cursor = content["cursor"]
        places = None if cursor is None else {str(name): int(at) for name, at in cursor.items()}
        return cls(book, outbox, calls, places, str(content["alive"]), int(content["lost_calls"]))


def load(state: Path, complain: Callable[[str], None]) -> Desk:
    """Read the desk of a state folder. One that is damaged is set aside. Raises OSError."""
    path = state / FOLDER / FILE
    try:
        with path.open("rb") as file:
            return Desk.of(json.loads(file.read(_MAX_FILE)))
    except FileNotFoundError:
        return Desk()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        complain(f"{path} was damaged ({error}) and is set aside as {aside.name}: the book of alarms begins anew")
        return Desk()


def save(state: Path, desk: Desk) -> None:
    """Write the desk, durably. Raises OSError."""
    content = json.dumps(desk.as_json(), ensure_ascii=False, separators=(",", ":"))
    replace_file(state / FOLDER / FILE, content.encode("utf-8", "replace"))


def peek(state: Path) -> Desk | None:
    """Return the desk as it was last written, for somebody who only looks; None if there is none to be read."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Desk.of(json.loads((state / FOLDER / FILE).read_bytes()))
    return None
