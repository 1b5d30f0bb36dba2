"""docs/licences.md names everything that is installed with Tapdeck, with the licence that its own metadata gives."""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

TEXT = (Path(__file__).parents[2] / "docs" / "licences.md").read_text(encoding="utf-8")


def installed_with(name: str) -> set[str]:
    """The distributions that one needs here, and what these need, and so on."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for text in metadata.requires(waiting.pop()) or []:
            needed = Requirement(text)
            key = re.sub(r"[-_.]+", "-", needed.name).lower()
            if key not in found and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
                found.add(key)
                waiting.append(key)
    return found


def rows_of(name: str) -> list[str]:
    """The lines of tables that name a distribution in their first column."""
    rows = [line for line in TEXT.splitlines() if line.startswith("|")]
    return [
        row for row in rows if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", row.split("|")[1], re.IGNORECASE)
    ]


def test_everything_that_is_needed_is_listed_with_its_licence() -> None:
    needed = installed_with("tapdeck")
    assert {"numpy", "click", "structlog", "prometheus-client", "sqlalchemy", "scapy", "mdurl"} <= needed
    for name in sorted(needed):
        rows = rows_of(name)
        assert rows, f"{name} is not in docs/licences.md"
        for licence in re.findall(r"[\w.+-]+", " ".join(metadata.metadata(name).get_all("License-Expression") or [])):
            assert licence in ("AND", "OR", "WITH") or licence in rows[0], f"{name}: {licence} is not in {rows[0]}"
