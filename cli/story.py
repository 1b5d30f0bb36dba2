"""`tapdeck story`: all calls that a conversation is made of, who spoke with whom, and where their recordings are."""

import json
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ..storage.safe_text import for_json, for_terminal
from ..storage.story import Moment, Story, Told, archived, story_of, told
from ..storage.talks import talks, who
from .config import load, with_options
from .exit_codes import ExitCode
from .settings import OFFLINE, Settings


class NoSuchCall(click.ClickException):
    """Nothing here tells of such a call."""

    exit_code = ExitCode.NO_CALL


@click.command()
@click.argument("call", metavar="CALLID")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@with_options(*OFFLINE)
def story(call: str, paths: tuple[Path, ...], as_json: bool, config: Path | None, **options: Any) -> int:
    """Tell the whole story of a call that was transferred, forwarded, picked up, or crossed a PBX.

    CALLID is the Call-ID of any of its calls, or the id of a recording. PATH is a folder of recordings, or a capture
    file; without any it is looked for among the recordings of this machine. Recordings are joined by what their info
    files say of each other, whichever of them knew it. A capture tells of calls without sound as well, which have no
    recording. The exit code is 1 if there is no such call.
    """
    settings = load(config, options)
    places = paths or (Path(settings.storage.recordings),)
    found = list(archived(path for path in places if path.is_dir()))
    captures = tuple(str(path) for path in paths if not path.is_dir())
    calls = [one for one in found if one is not None]
    calls += _heard(settings, captures) if captures else []
    made = story_of(call, calls)
    unreadable = found.count(None)
    if unreadable:
        click.echo(f"{unreadable} info files cannot be read", err=True)
    if made is None:
        where = ", ".join(map(str, places))
        raise NoSuchCall(f"no call {for_terminal(call)} in {for_terminal(where, 1000)}")
    click.echo(_json(made) if as_json else "\n".join(_text(made)))
    return ExitCode.OK


def _heard(settings: Settings, captures: tuple[str, ...]) -> list[Told]:
    """What captures tell of their calls; nothing is recorded."""
    from ..sniffer.sources.payloads import Payloads, RowParking
    from ..storage.recording import identity_of, related_to
    from ..storage.shapes import outline
    from .record import Captures, build_engine
    from .tls_keys import TlsKeys

    with tempfile.TemporaryDirectory(prefix="tapdeck-") as scratch:
        payloads = Payloads(Path(scratch))
        inputs = Captures(captures, payloads)
        keys = TlsKeys(settings)
        keys.require()
        engine = build_engine(settings, payloads, RowParking(Path(scratch)), keys.secrets)
        zone = settings.zone().on(inputs.steps.wall)
        ended = [one for block in inputs.blocks(engine) for one in engine.feed(block)]
        ended += engine.finish()
        lines = [outline(one, identity_of(one), related_to(one), zone) for one in ended]
    return [one for one in map(told, lines) if one is not None]


# -- as text -----------------------------------------------------------------------------------------------------------


def _text(made: Story) -> Iterator[str]:
    first, last = made.calls[0].start, max(call.end for call in made.calls)
    count = f"{len(made.calls)} call{'s' if len(made.calls) != 1 else ''}"
    yield f"{count}, {first:%Y-%m-%d %H:%M:%S} to {_clock(last, first)}"
    yield ""
    for time, number, text in _events(made):
        yield f"  {_clock(time, first, 3)}  [{number}] {for_terminal(text, 300)}"
    yield ""
    yield "Who spoke with whom"
    spoken = talks(made.calls)
    for talk in spoken:
        seconds = (talk.end - talk.begin).total_seconds()
        parties = f"{for_terminal(talk.caller)} with {for_terminal(talk.callee)}"
        when = f"{_clock(talk.begin, first, 3)} to {_clock(talk.end, first, 3)}"
        yield f"  {when}  [{talk.at + 1}] {parties}, {seconds:.1f} s"
    if not spoken:
        yield "  nobody"
    yield ""
    yield "Calls"
    for number, call in enumerate(made.calls, 1):
        yield f"  [{number}] {call.id}  Call-ID {for_terminal(call.call_id)}"
        for other, (how, by) in _relations(made, call):
            yield f"      [{other}] {how}{f', by {for_terminal(by)}' if by else ''}"
        yield from (f"      {for_terminal(str(path), 1000)}" for path in call.files)
    for name in made.missing:
        yield f"  {name} is named, but not here"


def _clock(time: datetime, first: datetime, digits: int = 0) -> str:
    day = "" if time.date() == first.date() else f"{time:%Y-%m-%d} "
    return f"{day}{time:%H:%M:%S}" + (f".{time.microsecond // 1000:03d}" if digits else "")


def _events(made: Story) -> list[tuple[datetime, int, str]]:
    """What happened, in the order of time, with the number of the call in which it did."""
    events = []
    for number, call in enumerate(made.calls, 1):
        caller, callee = who(call.caller, call.caller_name), who(call.callee, call.callee_name)
        events.append((call.start, 0, number, f"{caller} calls {callee}"))
        if call.answered is not None:
            events.append((call.answered, 1, number, f"{callee} answers"))
        events += [(one.time, 2, number, _words(one, caller, callee)) for one in call.moments]
        events.append((call.end, 3, number, f"over: {call.reason}"))
    return [(time, number, text) for time, _, number, text in sorted(events)]


def _words(moment: Moment, caller: str, callee: str) -> str:
    """A line of an info file, with the parties' names in place of their parts."""
    text, _, rest = moment.text.partition(" at ")
    _, _, result = rest.partition(") ")
    text = text.replace(" by caller", f" by {caller}").replace(" by callee", f" by {callee}")
    kind = {"Hold": "", "Transfer": "transfer, ", "Forwarded": "forwarded: "}[moment.kind]
    return f"{kind}{text}" + (f" ({result})" if result else "")


def _relations(made: Story, call: Told) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, other in enumerate(made.calls, 1):
        if other.id in call.related:
            yield number, call.related[other.id]


# -- as JSON -----------------------------------------------------------------------------------------------------------


def _json(made: Story) -> str:
    shown = {
        "calls": [_call(made, number, call) for number, call in enumerate(made.calls, 1)],
        "talks": [
            {
                "from": talk.begin.isoformat(timespec="milliseconds"),
                "to": talk.end.isoformat(timespec="milliseconds"),
                "seconds": round((talk.end - talk.begin).total_seconds(), 3),
                "between": [talk.caller, talk.callee],
                "call": talk.at + 1,
            }
            for talk in talks(made.calls)
        ],
        "events": [
            {"time": time.isoformat(timespec="milliseconds"), "call": number, "text": text}
            for time, number, text in _events(made)
        ],
        "missing": made.missing,
    }
    return json.dumps(for_json(shown), ensure_ascii=False)


def _call(made: Story, number: int, call: Told) -> dict[str, Any]:
    return {
        "number": number,
        "id": call.id,
        "call_id": call.call_id,
        "start": call.start.isoformat(timespec="milliseconds"),
        "answered": call.answered.isoformat(timespec="milliseconds") if call.answered else None,
        "end": call.end.isoformat(timespec="milliseconds"),
        "end_reason": call.reason,
        "caller": call.caller,
        "caller_name": call.caller_name,
        "callee": call.callee,
        "callee_name": call.callee_name,
        "referred_by": call.referred_by,
        "related": [{"call": other, "is": how, "by": by} for other, (how, by) in _relations(made, call)],
        "transfers": [one.text for one in call.moments if one.kind == "Transfer"],
        "forwards": [one.text for one in call.moments if one.kind == "Forwarded"],
        "holds": [one.text for one in call.moments if one.kind == "Hold"],
        "files": [str(path) for path in call.files],
    }
