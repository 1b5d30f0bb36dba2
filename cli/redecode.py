"""`tapdeck redecode`: a recording's sound made again from its kept packets."""

import tempfile
from pathlib import Path

import click

from ..storage.atomic import AtomicFiles
from ..storage.kept_file import KeptError
from ..storage.redecode import Remade
from ..storage.safe_text import for_terminal
from ..storage.wav import WavTooLong
from .exit_codes import ExitCode, Proof

_ENDINGS = ("_info.txt", "_hash.txt", "_hash.SHA256withRSA.sig", ".wav", ".pcapng")


@click.command()
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the WAV there, in place of comparing it with the one that was recorded.",
)
def redecode(recording: Path, out: Path | None) -> int:
    """Make a recording's sound again from the packets that are kept beside it.

    RECORDING is one of its files. Without --out the sound is compared with that of its WAV: the exit code is 0 if they
    are the same, byte for byte, 1 if not. Another version of the decoding library may round otherwise; the info file
    names the one that made the WAV (`Decoded`). Nothing of the recording is changed.
    """
    stem = _stem(recording)
    kept, wav = (stem.parent / f"{stem.name}{ending}" for ending in (".pcapng", ".wav"))
    if not kept.is_file():
        raise Unreadable(
            f"{for_terminal(str(kept))} does not exist: packets are kept only of calls whose WAV does not hold them as "
            "they crossed the wire"
        )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            remade = Remade(kept, Path(scratch))
        except KeptError as error:
            raise Unreadable(f"{for_terminal(str(kept))}: {error}") from None
        try:
            return _write(remade, out) if out is not None else _compare(remade, wav)
        finally:
            remade.close()


class Unreadable(click.ClickException):
    """The packets are not there or make no sense."""

    exit_code = ExitCode.UNREADABLE_INPUT


def _stem(recording: Path) -> Path:
    """Return the path of a recording's files without ending."""
    for ending in _ENDINGS:
        if recording.name.endswith(ending):
            return recording.with_name(recording.name.removesuffix(ending))
    return recording


def _write(remade: Remade, out: Path) -> int:
    try:
        with AtomicFiles(out.parent) as files:
            file = files.open(out.name)
            for part in remade.wav():
                file.write(part)
    except FileExistsError:
        raise click.BadParameter(
            f"{for_terminal(str(out))} exists with other content: choose another name", param_hint="--out"
        ) from None
    except WavTooLong as error:
        raise Unreadable(str(error)) from None
    click.echo(f"{remade.seconds:.3f} s written to {for_terminal(str(out))}")
    return ExitCode.OK


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
