"""Checks of how an installation is secured. Pure: values in, a `Finding` a check out."""

from dataclasses import dataclass, field

from ..sniffer import advice
from ..sniffer.finding import Finding, bad, ok, unjudged, warn
from ..sniffer.machine import Card, separate

NET_RAW = 1 << 13
"""CAP_NET_RAW, the one capability that capture may keep."""
MAX_EXPOSURE = 2.5
"""What `systemd-analyze security` may say of a unit at most; 10 is wide open."""
_INSTALL = "run `tapdeck install` (as root)"


@dataclass(frozen=True, slots=True)
class Account:
    """A system user of a stage. `password` is locked, set, empty or unknown; `uid` is None if there is no such user."""

    stage: str
    name: str
    uid: int | None
    shell: str = ""
    password: str = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or file: its mode and owner, None if it does not exist; and who should own it."""

    path: str
    mode: int | None
    owner: str = ""
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A stage that runs: its user's number, and its effective capabilities as bits."""

    stage: str
    pid: int
    uid: int
    capabilities: int


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket of a stage that takes what others send."""

    stage: str
    protocol: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Installation:
    """All that the checks need to know. `units` are the services' exposures by `systemd-analyze`, None: not scored;
    `allowed` the addresses and ports that the configuration opens.
    """

    accounts: tuple[Account, ...] = ()
    without_password: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    config: Place | None = None
    units: dict[str, float | None] = field(default_factory=dict)
    cards: tuple[Card, ...] = ()
    card_count: int = 2
    other_way: bool = True
    processes: tuple[Process, ...] = ()
    listeners: tuple[Listener, ...] = ()
    allowed: frozenset[tuple[str, int]] = frozenset()
    is_root: bool = True


def judge(found: Installation) -> list[Finding]:
    """Return a finding for each check."""
    return [
        _users(found.accounts),
        _passwords(found),
        _folders(found.places),
        _config(found.config),
        _units(found.units),
        _processes(found),
        _listeners(found),
        _two_cards(found),
        _capture_card(found),
    ]


def _users(accounts: tuple[Account, ...]) -> Finding:
    missing = [one for one in accounts if one.uid is None]
    if missing:
        names = ", ".join(f"{one.name or '(none)'} ({one.stage})" for one in missing)
        return bad("users", f"no such user: {names}", f"Each stage needs a user of its own: {_INSTALL}.")
    numbers = {one.uid for one in accounts}
    if len(numbers) < len(accounts) or 0 in numbers:
        who = ", ".join(f"{one.stage}: {one.name}" for one in accounts)
        return bad("users", f"stages share a user, or run as root ({who})", f"Give each a user of its own: {_INSTALL}.")
    login = [one.name for one in accounts if not one.shell.endswith(("nologin", "false"))]
    if login:
        todo = "Take their shell: usermod -s /usr/sbin/nologin USER."
        return warn("users", f"users that may log in: {', '.join(login)}", todo)
    return ok("users", f"{', '.join(one.name for one in accounts)}: each its own, none may log in")


def _passwords(found: Installation) -> Finding:
    if not found.is_root:
        return unjudged("passwords", "only root may see whether accounts have passwords")
    if found.without_password:
        names = ", ".join(found.without_password)
        return bad("passwords", f"accounts of this machine without a password: {names}", "Lock them: passwd -l USER.")
    known = [one.name for one in found.accounts if one.password == "set"]
    if known:
        todo = "Nobody logs in as them: lock them, passwd -l USER."
        return warn("passwords", f"users of stages with a password: {', '.join(known)}", todo)
    return ok("passwords", "no account of this machine is without; Tapdeck has none of its own")


def _folders(places: tuple[Place, ...]) -> Finding:
    missing = [one.path for one in places if one.mode is None]
    there = [one for one in places if one.mode is not None]
    open_ = [f"{one.path} ({one.mode:04o})" for one in there if one.mode is not None and one.mode & 0o007]
    if open_:
        todo = "Take away others' rights: chmod o= FOLDER. Recordings are nobody's business."
        return bad("folders", f"open to every user: {', '.join(open_)}", todo)
    foreign = [f"{one.path} ({one.owner}, not {one.expected})" for one in there if one.owner != one.expected]
    if foreign:
        return warn("folders", f"of another owner: {', '.join(foreign)}", f"Set them right: {_INSTALL}.")
    if missing:
        return warn("folders", f"not there: {', '.join(missing)}", f"Make them: {_INSTALL}.")
    return ok("folders", f"{len(there)} folders, closed to others")


def _config(config: Place | None) -> Finding:
    if config is None or config.mode is None:
        return unjudged("config", "no configuration file")
    seen = f"{config.path} ({config.owner}, {config.mode:04o})"
    if (
        config.mode & 0o002
        or (config.mode & 0o020 and config.owner != "root")
        or config.owner not in ("root", config.expected)
    ):
        todo = f"Who may change it may change what is recorded: chown root {config.path}; chmod go-w {config.path}."
        return bad("config", f"{seen}: others than root may change it", todo)
    if config.mode & 0o004:
        todo = f"It may hold what is nobody's business: chmod o= {config.path}."
        return warn("config", f"{seen}: every user may read it", todo)
    return ok("config", seen)


def _units(units: dict[str, float | None]) -> Finding:
    if not units:
        return warn("units", "no services of Tapdeck are installed", f"To run for good: {_INSTALL}.")
    said = ", ".join(f"{name} {'not scored' if score is None else score}" for name, score in units.items())
    weak = [name for name, score in units.items() if score is not None and score > MAX_EXPOSURE]
    if weak:
        todo = f"Restore the units that Tapdeck brings: {_INSTALL}; see systemd-analyze security {weak[0]}."
        return bad("units", f"exposed more than {MAX_EXPOSURE}: {said}", todo)
    if None in units.values():
        return unjudged("units", f"exposure of {said}: systemd-analyze is not there")
    return ok("units", f"exposure of {said}")


def _processes(found: Installation) -> Finding:
    if not found.processes:
        return unjudged("processes", "no stage runs")
    strong = [
        f"{one.stage} (user {one.uid}, capabilities {one.capabilities:#x})"
        for one in found.processes
        if one.stage != "run" and (one.uid == 0 or one.capabilities & ~(NET_RAW if one.stage == "capture" else 0))
    ]
    if strong:
        todo = (
            "Stages give up root where users.capture, users.seal and users.deliver name users: check the configuration."
        )
        return bad("processes", f"stages with more rights than they need: {', '.join(strong)}", todo)
    return ok("processes", f"{', '.join(one.stage for one in found.processes)}: no more rights than needed")


def _listeners(found: Installation) -> Finding:
    if not found.processes:
        return unjudged("listeners", "no stage runs")
    if not found.is_root:
        return unjudged("listeners", "only root may see what the stages listen on")
    strange = [
        f"{one.stage} {one.protocol} {one.address}:{one.port}"
        for one in found.listeners
        if (one.address, one.port) not in found.allowed
    ]
    if strange:
        todo = "Nothing but monitoring.prometheus_listen opens a port: find out what this is, and report it."
        return bad("listeners", f"ports open that no setting names: {', '.join(strange)}", todo)
    names = ", ".join(f"{address}:{port}" for address, port in sorted(found.allowed)) or "none"
    return ok("listeners", f"{names}, as configured" if found.listeners else "none")


def _two_cards(found: Installation) -> Finding:
    if found.card_count >= 2 and found.other_way:
        return ok(
            "two-cards", f"{found.card_count} network cards, this machine is reached by another than the mirror's"
        )
    if found.card_count >= 2:
        todo = "Give the management card its address, and the capture card none."
        return warn(
            "two-cards", f"{found.card_count} network cards, but none with an address beside the mirror's", todo
        )
    return bad("two-cards", "one network card for the mirror and everything else", advice.TWO_CARDS)


def _capture_card(found: Installation) -> Finding:
    if not found.cards:
        return unjudged("capture-card", "no interface is configured (capture.interfaces)")
    findings = [separate(card, found.other_way) for card in found.cards]
    worst = max(findings, key=lambda one: ("open", "green", "amber", "red").index(one.colour.value))
    return Finding("capture-card", worst.colour, "; ".join(one.seen for one in findings), worst.todo)
