"""`tapdeck redecode`: a recording's sound made again from its kept packets, or as a copy with its losses concealed."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from ..storage import info
from ..storage.atomic import AtomicFiles
from ..storage.kept_file import KeptError
from ..storage.listening import Copy, of_wave
from ..storage.markers import read_markers
from ..storage.redecode import Remade
from ..storage.safe_text import for_terminal
from ..storage.wav import WavTooLong
from ..storage.waveform import WaveError, open_wave
from .exit_codes import ExitCode, Proof
from .recording_files import ENDINGS, beside, stem_of


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the WAV there, in place of comparing it with the one that was recorded.",
)
@click.option(
    "--conceal",
    is_flag=True,
    help="Make a copy to listen to, its losses concealed; without --out it is NAME_concealed.wav in this folder.",
)
def redecode(recording: Path, out: Path | None, conceal: bool) -> int:
    """Make a recording's sound again from the packets that are kept beside it.

    RECORDING is one of its files. Without --out the sound is compared with that of its WAV: the exit code is 0 if they
    are the same, byte for byte, 1 if not. Another version of the decoding library may round otherwise; the info file
    names the one that made the WAV (`Decoded`). Nothing of the recording is changed.

    With --conceal lost packets are not silence: what was said goes on for up to 60 ms, softer and softer (after ITU-T
    G.711 appendix I). Such a copy is easier to listen to, holds what nobody said, and says so of itself. It is made of
    any recording, of those in G.711 from the WAV and the info file.
    """
    stem = stem_of(recording)
    if out is not None and out.resolve() in {beside(stem, ending).resolve() for ending in ENDINGS}:
        raise click.BadParameter(
            f"{for_terminal(str(out))} is a file of the recording itself: choose another name", param_hint="--out"
        )
    kept, wav = (beside(stem, ending) for ending in (".pcapng", ".wav"))
    if conceal:
        return _conceal(stem, kept, wav, out)
    if not kept.is_file():
        raise Unreadable(
            f"{for_terminal(str(kept))} does not exist: packets are kept only of calls whose WAV does not hold them as "
            "they crossed the wire"
        )
    with tempfile.TemporaryDirectory() as scratch:
        remade = _remade(kept, scratch)
        try:
            if out is None:
                return _compare(remade, wav)
            _write(remade.wav(), out)
        finally:
            remade.close()
    click.echo(f"{remade.seconds:.3f} s written to {for_terminal(str(out))}")
    return ExitCode.OK


class Unreadable(click.ClickException):
    """The packets are not there or make no sense."""

    exit_code = ExitCode.UNREADABLE_INPUT


def _remade(kept: Path, scratch: str) -> Remade:
    try:
        return Remade(kept, Path(scratch))
    except KeptError as error:
        raise Unreadable(f"{for_terminal(str(kept))}: {error}") from None


def _conceal(stem: Path, kept: Path, wav: Path, out: Path | None) -> int:
    """Write a copy to listen to."""
    target = out if out is not None else Path(f"{stem.name}_concealed.wav")
    with tempfile.TemporaryDirectory() as scratch:
        remade = _remade(kept, scratch) if kept.is_file() else None
        try:
            copy = remade.listening() if remade is not None else _of_wave(stem, wav)
            _write(copy.wav(_about(stem)), target)
        except WaveError as error:
            raise Unreadable(f"{for_terminal(str(wav))}: {error}") from None
        finally:
            if remade is not None:
                remade.close()
    count = sum(map(len, copy.losses))
    seconds = f"{copy.frames / copy.rate:.3f} s written to {for_terminal(str(target))}"
    click.echo(f"{seconds}, a copy to listen to: {count} losses concealed")
    return ExitCode.OK


def _of_wave(stem: Path, wav: Path) -> Copy:
    path = beside(stem, "_info.txt")
    for one in (wav, path):
        if not one.is_file():
            raise Unreadable(f"{for_terminal(str(one))} does not exist: a copy needs the WAV and its info file")
    wave = open_wave(wav)
    try:
        with path.open("rb") as file:
            pairs = info.parse(file.read(info.MAX_SIZE + 1))
    except info.InfoError as error:
        raise Unreadable(f"{for_terminal(str(path))}: {error}") from None
    return of_wave(wave, read_markers(pairs, wave.frames / wave.rate))


def _about(stem: Path) -> dict[str, str]:
    return {
        "INAM": f"{stem.name}: copy to listen to, losses concealed",
        "ICMT": "Not as it crossed the wire: where packets were lost, sound was made up. Evidence is the recording.",
        "ISFT": "Tapdeck",
    }


def _write(parts: Iterable[bytes], out: Path) -> None:
    try:
        with AtomicFiles(out.parent) as files:
            file = files.open(out.name)
            for part in parts:
                file.write(part)
    except FileExistsError:
        raise click.BadParameter(
            f"{for_terminal(str(out))} exists with other content: choose another name", param_hint="--out"
        ) from None
    except WavTooLong as error:
        raise Unreadable(str(error)) from None


def _compare(remade: Remade, wav: Path) -> int:
    if not wav.is_file():
        raise Unreadable(f"{for_terminal(str(wav))} does not exist: write the sound elsewhere with --out FILE")
    try:
        difference = remade.compare(wav)
    except KeptError as error:
        raise Unreadable(f"{for_terminal(str(wav))}: {error}") from None
    if difference is None:
        click.echo(f"the same, byte for byte: {remade.seconds:.3f} s")
        return Proof.INTACT
    click.echo(
        f"different from byte {difference.byte} of the sound on: {difference.made} bytes made of the packets, "
        f"{difference.there} in {for_terminal(wav.name)}"
    )
    return Proof.ALTERED
