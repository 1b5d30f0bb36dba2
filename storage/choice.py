"""A target's selection in words: to see whether it has changed, and to say why a recording is not one of it. Pure."""

import json
from collections.abc import Iterator

from .about import About
from .route import Selection


def selection_text(selection: Selection) -> str:
    """Return what tells a selection from others, empty for one that leaves nothing out."""
    numbers = selection.numbers
    if not (selection.classes or selection.directions or numbers.numbers):
        return ""
    country = numbers.country_code if numbers.numbers else ""
    return json.dumps([sorted(selection.classes), sorted(selection.directions), sorted(numbers.numbers), country])


def why_not(selection: Selection, about: About) -> str:
    """Return why a recording is not selected, empty if it is."""
    return "; ".join(_reasons(selection, about))


def _reasons(selection: Selection, about: About) -> Iterator[str]:
    if selection.classes and about.kind not in selection.classes:
        kind = f"the recording's is {about.kind!r}" if about.kind else "the recording has none"
        yield f"classes = {_list(selection.classes)}, and {kind}"
    if selection.directions and about.direction not in selection.directions:
        yield f"directions = {_list(selection.directions)}, and the recording's is {about.direction!r}"
    numbers = selection.numbers
    if numbers.numbers and not any(map(numbers.number, (about.caller, about.callee))):
        parties = f"{about.caller or 'unknown'} and {about.callee or 'unknown'}"
        yield f"numbers = {_list(numbers.numbers)}, and the recording's are {parties}"


def _list(words: frozenset[str] | tuple[str, ...]) -> str:
    return json.dumps(sorted(words), ensure_ascii=False)
