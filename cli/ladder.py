"""A call's messages as a ladder of text: a column a host, an arrow a message, fit to the width of a terminal."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..sniffer.explain import Arrow, endpoint_text
from ..sniffer.watch import Endpoint
from ..storage.safe_text import for_terminal
from .report import columns, fit

_TIME = 11
"""Columns that the time takes before the first lifeline."""
_NARROWEST, _WIDEST = 18, 34
_INDENT = 4


@dataclass(frozen=True, slots=True)
class Ladder:
    """A call to draw: its messages in the order of time, which times are relative to (ns), who is where."""

    arrows: Sequence[Arrow]
    start: int
    roles: Mapping[str, str]
    """Role of a host, by its label (see `host_labels`)."""
    more: int = 0


def host_labels(arrows: Sequence[Arrow]) -> dict[Endpoint, str]:
    """Return the column that each endpoint belongs to: its address, unless two ports of it talk to each other."""
    split = {arrow.source[0] for arrow in arrows if arrow.source[0] == arrow.destination[0]}
    ports: dict[str, set[int]] = {}
    for arrow in arrows:
        for address, port in (arrow.source, arrow.destination):
            ports.setdefault(address, set()).add(port)
    labels = {}
    for arrow in arrows:
        for endpoint in (arrow.source, arrow.destination):
            alone = len(ports[endpoint[0]]) == 1
            labels[endpoint] = endpoint_text(endpoint) if alone or endpoint[0] in split else endpoint[0]
    return labels


def draw(ladder: Ladder, width: int) -> list[str]:
    """Return the lines of a ladder, at most `width` columns wide as far as that can be."""
    labels = host_labels(ladder.arrows)
    hosts = list(dict.fromkeys(labels.values()))
    hosts.sort(key=lambda host: {"caller": 0, "callee": 2}.get(ladder.roles.get(host, ""), 1))
    longest = max((len(host) for host in hosts), default=0) + 2
    room = (width - _TIME - 2) // max(len(hosts), 1)
    if room < _NARROWEST:
        lines = [line for arrow in ladder.arrows for line in _row(arrow, ladder, width)]
    else:
        names, legend = (hosts, []) if longest <= room else _letters(hosts)
        step = max(_NARROWEST, min(room, _WIDEST, max(longest, _label_room(ladder.arrows))) if not legend else 26)
        lines = [*legend, *_heads(names, hosts, ladder.roles, min(step, room))]
        for arrow in ladder.arrows:
            ends = hosts.index(labels[arrow.source]), hosts.index(labels[arrow.destination])
            lines += _rung(arrow, ladder.start, ends, (len(hosts), min(step, room)), width)
    if ladder.more:
        lines.append(" " * _TIME + f"... and {ladder.more:,} more messages")
    return [line.rstrip() for line in lines]


def _label_room(arrows: Sequence[Arrow]) -> int:
    return max((len(arrow.label) for arrow in arrows), default=0) + 7


def _letters(hosts: Sequence[str]) -> tuple[list[str], list[str]]:
    names = [chr(ord("A") + index % 26) for index in range(len(hosts))]
    legend = [f"{'':{_TIME}}{name} = {host}" for name, host in zip(names, hosts, strict=True)]
    return names, legend


def _heads(names: Sequence[str], hosts: Sequence[str], roles: Mapping[str, str], step: int) -> list[str]:
    under = [roles.get(host, "") for host in hosts]
    lines = ["".join(f"{text:<{step}}" for text in row) for row in (names, under)]
    return [" " * _TIME + line for line in lines if line.strip()]


def _rung(arrow: Arrow, start: int, ends: tuple[int, int], shape: tuple[int, int], width: int) -> list[str]:
    """Return one message's line, and lines for its note where that does not fit beside it."""
    count, step = shape
    left, right = min(ends), max(ends)
    label = for_terminal(arrow.label)
    text = ["|" + " " * (step - 1)] * count
    text[-1] = "|"
    if left == right:
        tail = f"|<> {label}"
        text[left] = fit(tail, step - 1) + " " if left < count - 1 else tail
    else:
        body = _shaft(label, (right - left) * step - 1, to_right=ends[0] < ends[1])
        text[left : right + 1] = ["|" + body, *[""] * (right - left - 1), text[right]]
    line = f"{_seconds(arrow.time - start):>{_TIME - 2}}  " + "".join(text)
    note = for_terminal(arrow.note, 400)
    if not note:
        return [line]
    beside = width - columns(line) - 2
    if columns(note) <= beside:
        return [f"{line}  {note}"]
    return [line, *_below(note, width)]


def _shaft(label: str, room: int, to_right: bool) -> str:
    """Return `--- INVITE -->` of exactly `room` columns."""
    label = fit(label, min(columns(label), room - 5))
    dashes = room - columns(label) - 3
    before = dashes // 2
    shaft = f"{'-' * before} {label} {'-' * (dashes - before)}"
    return f"{shaft}>" if to_right else f"<{shaft}"


def _row(arrow: Arrow, ladder: Ladder, width: int) -> list[str]:
    """Return a message as lines, for where columns do not fit."""
    way = f"{endpoint_text(arrow.source)} > {endpoint_text(arrow.destination)}"
    line = f"{_seconds(arrow.time - ladder.start):>{_TIME - 2}}  {way}  {for_terminal(arrow.label)}"
    return [line, *_below(for_terminal(arrow.note, 400), width)]


def _below(note: str, width: int) -> list[str]:
    indent = " " * (_TIME + _INDENT)
    width = max(width, len(indent) + 20)
    return textwrap.wrap(note, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.3f}"
