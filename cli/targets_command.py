"""`tapdeck targets`: which there are, whether they work, and whether what was delivered is still there."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..storage import state
from ..storage.remote_check import VERDICTS, Checked, Delivered, RemoteCheck, sample
from ..storage.safe_text import for_json, for_terminal
from .config import load
from .exit_codes import ExitCode, Proof, Verdict
from .nearest import nearest
from .privileges import drop_to
from .progress import ProgressBar
from .settings import ConfigError, Settings
from .target_advice import ONLY_HERE
from .target_settings import TargetSettings
from .target_trial import Trial, trial_folder, try_target
from .targets import Destination, all_targets, destinations, known_targets, with_secrets
from .users import with_present_users

_MOST_MB = 4096
_COLOURS = {"intact": "green", "missing": "red", "altered": "red", "cannot be read": "yellow"}

_config = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration file; else TAPDECK_CONFIG, ./tapdeck.toml or /etc/tapdeck/tapdeck.toml.",
)
_json = click.option("--json", "as_json", is_flag=True, help="As one JSON object.")


class NotAllowed(click.ClickException):
    """The user may not read what the stages write."""

    exit_code = ExitCode.NO_PERMISSION


class NoQueue(click.ClickException):
    """Nothing tells what was delivered."""

    exit_code = ExitCode.UNREADABLE_INPUT


@click.group()
def targets() -> None:
    """List the targets, test them, and check what was delivered to them."""


# -- list --------------------------------------------------------------------------------------------------------------


@targets.command("list")
@_config
@_json
def list_(config: Path | None, as_json: bool) -> None:
    """List the targets and how they do, by what the deliver stage says of them. Nothing is connected to."""
    settings = load(config)
    told = _told(Path(settings.storage.state))
    rows = [_row(target, told.get(target.name, {})) for target in all_targets(settings)]
    if as_json:
        click.echo(json.dumps(for_json({"targets": rows}), ensure_ascii=False))
        return
    if not rows:
        click.echo(ONLY_HERE)
    for row in rows:
        click.echo(for_terminal(f"{row['name']}: {row['kind']} {row['place']}; {_how(row)}", 1000))


def _told(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the deliver stage says of each target, by name."""
    found = (state.read(folder, "deliver") or {}).get("targets")
    every = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return {one["name"]: one for one in every if isinstance(one.get("name"), str)}


def _row(target: TargetSettings, told: dict[str, Any]) -> dict[str, Any]:
    own = {key: getattr(target, key) for key in ("name", "kind", "place", "enabled", "required", "hours")}
    return own | {key: told.get(key) for key in ("waiting", "confirmed", "error", "failing_since")}


def _how(row: dict[str, Any]) -> str:
    words = ["required" if row["required"] else "not required"]
    if not row["enabled"]:
        words = ["disabled"]
    if row["hours"]:
        words.append(f"used {row['hours']}")
    if row["waiting"] is not None:
        words.append(f"{row['confirmed']} delivered, {row['waiting']} waiting")
    if row["error"]:
        words.append(f"fails since {row['failing_since']}: {row['error']}")
    return ", ".join(words)


# -- test --------------------------------------------------------------------------------------------------------------


@targets.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--size", type=click.IntRange(1, _MOST_MB), default=8, show_default=True, metavar="MB", help="What is sent, in MiB."
)
@_config
@_json
def test(names: tuple[str, ...], size: int, config: Path | None, as_json: bool) -> int:
    """Try the targets that are enabled, or those named: connect, write, rename, read back, compare, delete.

    It is done as the user of the deliver stage, in a folder of its own that is removed again, at whatever hour and
    without the limit of bandwidth. The exit code is 0 if all went well, 1 if a target failed.
    """
    settings = _as_deliver(config)
    chosen = _chosen(settings, names)
    known, folder = known_targets(Path(settings.storage.state)), trial_folder(Path(settings.storage.state))
    enabled = {one.name: one for one in destinations(settings)}
    found: dict[str, Trial | None] = {}
    for target in chosen:
        one = enabled.get(target.name)
        if one is None:
            found[target.name] = None
        else:
            found[target.name] = try_target(one.make(), folder, one.name in known, size << 20)
        if not as_json:
            for line in _trial_lines(target, found[target.name]):
                click.echo(line)
    failed = [name for name, trial in found.items() if trial is not None and trial.error]
    if as_json:
        report = {"passed": not failed, "targets": [_trial_json(one, found[one.name]) for one in chosen]}
        click.echo(json.dumps(for_json(report), ensure_ascii=False))
    return Verdict.FAILED if failed else Verdict.PASSED


def _trial_lines(target: TargetSettings, trial: Trial | None) -> Iterator[str]:
    name = f"{target.shown}: {target.kind} {target.place}"
    if trial is None:
        yield f"{click.style('skipped', fg='yellow')}  {name}: it is disabled, no connection was made"
        return
    yield f"{click.style('failed ', fg='red') if trial.error else click.style('good   ', fg='green')}  {name}"
    if not trial.error:
        yield f"         up {_speed(trial.up)}, down {_speed(trial.down)}, in all {trial.seconds:.2f} s"
    for what, fact in trial.facts.items():
        yield f"         {for_terminal(what)}: {for_terminal(fact, 300)}"
    if trial.error:
        yield f"       > {for_terminal(trial.error, 1000)}"


def _trial_json(target: TargetSettings, trial: Trial | None) -> dict[str, Any]:
    own = {"name": target.name, "kind": target.kind, "place": target.place, "skipped": trial is None}
    if trial is None:
        return own
    speeds = {"up_bytes_per_s": round(trial.up), "down_bytes_per_s": round(trial.down)}
    facts = {"passed": not trial.error, "seconds": round(trial.seconds, 3), "facts": trial.facts}
    return own | facts | ({"error": trial.error} if trial.error else speeds)


def _speed(rate: float) -> str:
    return f"{rate / 1e6:,.1f} MB/s"


# -- check -------------------------------------------------------------------------------------------------------------


@targets.command()
@click.option(
    "--sample", "number", type=click.IntRange(1), required=True, metavar="N", help="Recordings of each target."
)
@click.option("--target", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated.")
@_config
@_json
def check(number: int, names: tuple[str, ...], config: Path | None, as_json: bool) -> int:
    """Read N recordings that were delivered, chosen at random, from each target, and compare them.

    They are compared with the copies on this machine, or where these are gone with the recordings' own signed hash
    files. What was found goes into the event log. The exit code is 0 if all are intact, 1 if one is missing or altered,
    2 if one cannot be read, or there was none.
    """
    settings = _as_deliver(config)
    folder = Path(settings.storage.state)
    enabled = {one.name: one for one in destinations(settings)}
    chosen = [target for target in _chosen(settings, names) if target.name in enabled]
    found: dict[str, list[Checked]] = {}
    with _queue_read():
        samples = {target.name: sample(folder / "queue.sqlite", target.name, number) for target in chosen}
    total = sum(one.parcel.bytes for some in samples.values() for one in some)
    with ProgressBar(total) as bar:
        look = _Look(bar)
        for name, some in samples.items():
            found[name] = list(look.at(enabled[name], some, Path(settings.storage.recordings)))
    _log(folder, found)
    if as_json:
        click.echo(json.dumps(for_json({"targets": [_check_json(*one) for one in found.items()]}), ensure_ascii=False))
    else:
        for line in _check_lines(found):
            click.echo(line)
    return _proof(found)


class _Look:
    """Checks recordings, and shows how far that is."""

    def __init__(self, bar: ProgressBar) -> None:
        self._bar, self._read, self._seen = bar, 0, 0

    def at(self, destination: Destination, some: Sequence[Delivered], root: Path) -> Iterator[Checked]:
        """Yield what was found of each on one target. Without any there is no connection."""
        if not some:
            return
        target = destination.make()
        one_by_one = RemoteCheck(target, destination.route, root, self._moved)
        try:
            one_by_one.begin()
            for one in some:
                yield one_by_one.check(one)
                self._seen += 1
                self._moved(0)
        finally:
            target.close()

    def _moved(self, size: int) -> None:
        self._read += size
        self._bar.show(self._read, f"{self._seen:,} recordings")


def _log(folder: Path, found: dict[str, list[Checked]]) -> None:
    for name, checked in found.items():
        for one in checked:
            facts = {"target": name, "id": one.id, "folder": one.folder, "text": one.reason}
            if one.verdict == "missing":
                state.append(folder, "copy missing", **facts)
            elif one.verdict == "altered":
                state.append(folder, "copy altered", **facts)
        state.append(folder, "copies checked", target=name, **{key.replace(" ", "_"): n for key, n in _counts(checked)})


def _counts(checked: Sequence[Checked]) -> list[tuple[str, int]]:
    return [(verdict, sum(one.verdict == verdict for one in checked)) for verdict in VERDICTS]


def _check_lines(found: dict[str, list[Checked]]) -> Iterator[str]:
    if not found:
        yield ONLY_HERE
    for name, checked in found.items():
        for one in checked:
            if one.verdict != "intact":
                word = click.style(one.verdict.upper(), fg=_COLOURS[one.verdict])
                yield f"{word}: {for_terminal(f'{one.id} on {name} in {one.folder}: {one.reason}', 1000)}"
        counts = ", ".join(f"{number:,} {verdict}" for verdict, number in _counts(checked) if number)
        yield f"{for_terminal(name)}: {counts or 'nothing was delivered to it yet'}"


def _check_json(name: str, checked: Sequence[Checked]) -> dict[str, Any]:
    counts = {verdict.replace(" ", "_"): number for verdict, number in _counts(checked)}
    return {"name": name, **counts, "recordings": [asdict(one) for one in checked]}


def _proof(found: dict[str, list[Checked]]) -> Proof:
    verdicts = {one.verdict for checked in found.values() for one in checked}
    if verdicts & {"missing", "altered"}:
        return Proof.ALTERED
    return Proof.INTACT if verdicts == {"intact"} else Proof.CANNOT_CHECK


# -- what they have in common ------------------------------------------------------------------------------------------


def _as_deliver(config: Path | None) -> Settings:
    """Read the settings, and become the user of the deliver stage: what it may not do must not work here either."""
    settings = with_secrets(with_present_users(load(config)))
    drop_to(settings.users.deliver, [settings.users.group] if settings.users.group else [], "users.deliver")
    return settings


def _chosen(settings: Settings, names: Sequence[str]) -> list[TargetSettings]:
    every = all_targets(settings)
    if not every:
        raise ConfigError(ONLY_HERE)
    known = [target.name for target in every]
    for name in names:
        if name not in known:
            raise click.UsageError(f"there is no target {for_terminal(name)}{nearest(name, known)}")
    return [target for target in every if not names or target.name in names]


@contextmanager
def _queue_read() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NotAllowed(f"{error.filename}: permission denied: run it as root, or as the user of deliver") from None
    except FileNotFoundError as error:
        raise NoQueue(f"{error.filename} is not there: `tapdeck deliver` makes it when it starts") from None
    except OSError as error:
        raise NoQueue(f"{error.filename}: {error.strerror}") from None
