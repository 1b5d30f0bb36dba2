"""Checks of the machine that listens: its cards, its clock, its disk. Pure: values in, a `Finding` a check out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import advice
from .finding import Colour, Finding, bad, ok, unjudged, warn, worst
from .forecast import G711, bytes_per_day, days_until_full, size_text
from .traffic import Traffic

RECEIVE_OFFLOADS = ("gro", "gro-hw", "gro-list", "gro-udp", "lro")
"""Offloads that put packets together; those of `MERGES_UDP` do so with RTP."""
MERGES_UDP = ("gro-list", "gro-udp")
SLOW_MB_S, STALLED_MB_S = 20.0, 4.0
SLOW_SYNC_MS = 300.0
LONG_DAYS = 90


@dataclass(frozen=True, slots=True)
class Card:
    """A capture interface, and what it counted during the watch.

    `machine` is the kind of virtual machine that has such a card, empty for a real one; `offloads` are those of
    `RECEIVE_OFFLOADS` that are on, and whether they can be turned off.
    """

    name: str
    driver: str = ""
    machine: str = ""
    link_up: bool = True
    addresses: tuple[str, ...] = ()
    default_route: bool = False
    promiscuous: bool = True
    offloads: dict[str, bool] = field(default_factory=dict)
    packets: int = 0
    drops: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class SystemClock:
    """Whether the kernel says that the clock is synchronised, and by how much it may be wrong, in ms."""

    synchronised: bool
    error_ms: float


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of the spool: bytes free, MB/s of a small write, ms of an fsync, or why that was not measured."""

    folder: str
    free: int
    write_mb_s: float = 0.0
    sync_ms: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """All that the checks need to know. `other_way` says whether the machine is reached by another interface."""

    cards: tuple[Card, ...] = ()
    other_way: bool = True
    clock: SystemClock | None = None
    disk: Disk | None = None
    minutes_per_day: float = 300.0
    warn_days: float = 14.0


def judge(machine: Machine, traffic: Traffic) -> list[Finding]:
    """Return a finding for each check."""
    cards = [
        _of_all(machine.cards, "link", _link),
        _of_all(machine.cards, "offloads", _offloads),
        _of_all(machine.cards, "ring", _ring),
        _of_all(machine.cards, "virtual-card", lambda card: _virtual(card, traffic)),
        _of_all(machine.cards, "promiscuous", lambda card: _promiscuous(card, traffic)),
        _of_all(machine.cards, "separate-card", lambda card: separate(card, machine.other_way)),
    ]
    found = [one for one in cards if one is not None] + [_clock(machine.clock)]
    if machine.disk is not None:
        found += [_speed(machine.disk), _space(machine.disk, machine)]
    return found


def _of_all(cards: Sequence[Card], check: str, judge_one: Callable[[Card], Finding]) -> Finding | None:
    """Judge each card, and make one finding of it."""
    found = [judge_one(card) for card in cards]
    if len(found) < 2:
        return found[0] if found else None
    named = [f"{card.name}: {one.seen}" for card, one in zip(cards, found, strict=True)]
    todo = dict.fromkeys(one.todo for one in found if one.todo)
    return Finding(check, worst(found), "; ".join(named), " ".join(todo))


# -- cards -------------------------------------------------------------------------------------------------------------


def _link(card: Card) -> Finding:
    if card.link_up:
        return ok("link", "up")
    return bad("link", "no link", f"Plug in the cable, and switch it on: ip link set {card.name} up.")


def _offloads(card: Card) -> Finding:
    if not card.offloads:
        return ok("offloads", "none that put packets together")
    seen = f"on: {', '.join(card.offloads)}"
    stuck = [name for name, changeable in card.offloads.items() if not changeable]
    harmful = any(name in MERGES_UDP for name in card.offloads)
    if len(stuck) == len(card.offloads) and not harmful:
        return ok("offloads", f"{seen}: the driver does not let it be turned off; it joins TCP segments only")
    todo = advice.OFFLOAD.replace("INTERFACE", card.name)
    if any(name in MERGES_UDP for name in stuck):
        todo += f" The driver does not let {', '.join(stuck)} be turned off: use another card."
    if harmful:
        return bad("offloads", f"{seen}: RTP packets may be joined", todo)
    return warn("offloads", f"{seen}: TCP segments come joined, as they never crossed the wire", todo)


def _ring(card: Card) -> Finding:
    if not card.drops:
        return ok("ring", f"no drops of {card.packets:,} packets")
    share = card.drops / max(card.packets, 1)
    seen = f"{card.drops:,} of {card.packets:,} packets dropped by this machine ({share:.2%})"
    return (bad if share > 0.001 else warn)("ring", seen, advice.RING)


def _virtual(card: Card, traffic: Traffic) -> Finding:
    kind = card.driver or "no driver of its own"
    if not card.machine:
        return ok("virtual-card", f"no virtual machine's card ({kind})")
    seen = f"{kind}, a card of {card.machine}"
    if traffic.foreign:
        return ok("virtual-card", f"{seen}; it gets others' packets")
    return warn("virtual-card", f"{seen}, that gets no others' packets", advice.VIRTUAL.get(card.driver, advice.ANY_VM))


def _promiscuous(card: Card, traffic: Traffic) -> Finding:
    if card.promiscuous:
        return ok("promiscuous", "on")
    seen = "off: the card drops what is not addressed to it"
    todo = "Set capture.promiscuous = true, or leave out --no-promiscuous."
    return (warn if traffic.foreign else bad)("promiscuous", seen, todo)


def separate(card: Card, other_way: bool) -> Finding:
    """Judge whether a card is the mirror's alone. `other_way` says that the machine is reached by another one."""
    addresses = [one for one in card.addresses if not one.startswith("fe80:")]
    if card.default_route or (addresses and not other_way):
        seen = f"{card.name} is also the way to this machine ({', '.join(addresses) or 'default route'})"
        return bad("separate-card", seen, advice.TWO_CARDS)
    if addresses:
        seen = f"{card.name} has an address: {', '.join(addresses)}"
        return warn("separate-card", seen, advice.NO_ADDRESS.replace("INTERFACE", card.name))
    if card.sent:
        seen = f"{card.name} has sent {card.sent:,} packets during the watch"
        return warn("separate-card", seen, advice.SILENT.replace("INTERFACE", card.name))
    return ok("separate-card", "no address, nothing sent")


# -- clock and disk ----------------------------------------------------------------------------------------------------


def _clock(clock: SystemClock | None) -> Finding:
    if clock is None:
        return unjudged("clock", "the system does not say whether its clock is synchronised")
    if clock.synchronised:
        return ok("clock", f"synchronised, right to {clock.error_ms:,.0f} ms")
    return warn("clock", "not synchronised: recordings would bear wrong times", advice.CLOCK)


def _speed(disk: Disk) -> Finding:
    if disk.problem:
        return unjudged("disk-speed", disk.problem)
    seen = f"{disk.write_mb_s:,.0f} MB/s, {disk.sync_ms:,.0f} ms a sync ({disk.folder})"
    if disk.write_mb_s < STALLED_MB_S:
        return bad("disk-speed", seen, advice.SLOW_DISK)
    if disk.write_mb_s < SLOW_MB_S or disk.sync_ms > SLOW_SYNC_MS:
        return warn("disk-speed", seen, advice.SLOW_DISK)
    return ok("disk-speed", seen)


def _space(disk: Disk, machine: Machine) -> Finding:
    daily = bytes_per_day(machine.minutes_per_day, G711)
    days = days_until_full(disk.free, daily)
    seen = (
        f"{size_text(disk.free)} free: {days:,.0f} days of {machine.minutes_per_day:g} minutes of calls "
        f"({size_text(daily)} a day)"
    )
    if days < machine.warn_days:
        return bad("disk-space", seen, advice.SPACE)
    if days < LONG_DAYS:
        return warn("disk-space", seen, advice.SPACE)
    return ok("disk-space", seen)


def colours(findings: Sequence[Finding]) -> dict[str, Colour]:
    """Return each check's colour."""
    return {one.check: one.colour for one in findings}
