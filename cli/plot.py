"""`tapdeck plot`: a picture of a recording."""

import hashlib
from pathlib import Path

import click

from ..storage import info
from ..storage.atomic import AtomicFiles
from ..storage.info import Pairs
from ..storage.markers import SIDES, Span, read_markers
from ..storage.safe_text import for_line, for_terminal
from ..storage.verify_files import listed_in
from ..storage.waveform import Wave, WaveError, envelope, open_wave, unlisted
from .exit_codes import ExitCode
from .recording_files import beside, stem_of


class Unreadable(click.ClickException):
    """The recording is not there, or makes no sense."""

    exit_code = ExitCode.UNREADABLE_INPUT


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the picture; without it, a file of the recording's name in this folder.",
)
def plot(recording: Path, out: Path | None) -> int:
    """Draw a recording: both waveforms, losses, digits and holds on the time axis, as a PNG.

    RECORDING is one of its files; read are its WAV and its info file. Lost packets are red, pauses grey, holds amber;
    the bars below a waveform show the loss of each 10 s. Nothing of the recording is changed.
    """
    stem = stem_of(recording)
    target = out if out is not None else Path(f"{stem.name}.png")
    if target in (beside(stem, ".wav"), beside(stem, "_info.txt")):
        raise click.BadParameter("that is a file of the recording itself", param_hint="--out")
    wave, pairs = _wave(beside(stem, ".wav")), _info(beside(stem, "_info.txt"))
    for name in _altered(stem):
        click.echo(f"Warning: {for_terminal(name)} is not as it was sealed: see `tapdeck verify`", err=True)
    picture = _drawn(stem, wave, pairs)
    try:
        with AtomicFiles(target.parent) as files:
            files.open(target.name).write(picture)
    except FileExistsError:
        raise click.BadParameter(
            f"{for_terminal(str(target))} exists with other content: choose another name", param_hint="--out"
        ) from None
    click.echo(f"{wave.frames / wave.rate:.3f} s drawn to {for_terminal(str(target))}")
    return ExitCode.OK


def _wave(path: Path) -> Wave:
    try:
        return open_wave(path)
    except FileNotFoundError:
        raise Unreadable(
            f"{for_terminal(str(path))} does not exist: name one of a recording's files, as its WAV or its _info.txt"
        ) from None
    except (OSError, WaveError) as error:
        raise Unreadable(f"{for_terminal(str(path))}: {_why(error)}") from None


def _info(path: Path) -> Pairs:
    try:
        with path.open("rb") as file:
            return info.parse(file.read(info.MAX_SIZE + 1))
    except FileNotFoundError:
        raise Unreadable(
            f"{for_terminal(str(path))} does not exist: losses, digits and holds are told there; put it beside the WAV"
        ) from None
    except (OSError, info.InfoError) as error:
        raise Unreadable(f"{for_terminal(str(path))}: {_why(error)}") from None


def _why(error: Exception) -> str:
    return for_terminal((error.strerror or str(error)) if isinstance(error, OSError) else str(error))


def _altered(stem: Path) -> list[str]:
    """Return the names of the two files if their hashes are there and are others."""
    try:
        listed = listed_in(beside(stem, "_hash.txt").read_bytes()[: 1 << 20]) or {}
        changed = []
        for ending in (".wav", "_info.txt"):
            path = beside(stem, ending)
            with path.open("rb") as file:
                if path.name in listed and hashlib.file_digest(file, "sha256").hexdigest() != listed[path.name]:
                    changed.append(path.name)
    except OSError:
        return []
    return changed


def _drawn(stem: Path, wave: Wave, pairs: Pairs) -> bytes:
    from .picture import COLUMNS, Contents, png

    first = dict(reversed(pairs))
    seconds = wave.frames / wave.rate
    try:
        low, high = envelope(wave, COLUMNS)
    except (OSError, WaveError) as error:
        raise Unreadable(f"{for_terminal(str(wave.path))}: {_why(error)}") from None
    about = [first.get("Datetime", ""), first.get("Codec", ""), f"{seconds:.3f} s", first.get("RecordingId", "")]
    markers = read_markers(pairs, seconds)
    for side in SIDES:
        found = [
            Span(start / wave.rate, (start + length) / wave.rate) for start, length in unlisted(wave, markers, side)
        ]
        markers.losses[side] += found
        markers.unlisted[side] -= len(found)
    more = sum(count for count in markers.unlisted.values() if count > 0)
    about += [f"{more} more gaps are not marked"] if more else []
    contents = Contents(
        for_line(" → ".join(filter(None, (_party(first, side) for side in SIDES))) or stem.name, 120),
        for_line("   ".join(filter(None, about)), 200),
        {side: _side_text(first, side) for side in SIDES},
        low,
        high,
        seconds,
        markers,
    )
    try:
        return png(contents)
    except ImportError as error:
        raise click.ClickException(f"pictures need matplotlib: install it beside Tapdeck ({error})") from None


def _party(first: dict[str, str], side: str) -> str:
    number, name = first.get(side, ""), first.get(f"{side}Name", "")
    return f"{number} ({name})" if number and name else number or name


def _side_text(first: dict[str, str], side: str) -> str:
    """Return a side's name, its loss and its score."""
    words = f"{first.get(f'{side}-Packets', '')} {first.get(f'{side}-Quality', '')}".split()
    known = dict(word.partition("=")[::2] for word in words)
    names = (("loss", "loss"), ("jitter", "jitter"), ("mos", "MOS"))
    shown = [f"{label} {known[name]}" for name, label in names if name in known]
    return for_line(side.lower(), 40) + "".join(f"\n{for_line(text, 40)}" for text in shown)
