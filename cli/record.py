"""`tapdeck record`: from capture files to recordings."""

import ipaddress
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..sniffer.clock import Clock, Steps
from ..sniffer.correlator import CallSettings
from ..sniffer.datagrams import Datagrams
from ..sniffer.direction import Own
from ..sniffer.engine import Engine, Limits
from ..sniffer.merge import Input, merge
from ..sniffer.sources.capture_file import CaptureError, CaptureFile, first_time, open_capture
from ..sniffer.sources.payloads import Payloads, RowParking
from ..sniffer.tls.secrets import Secrets
from ..storage.atomic import make_folder
from ..storage.facts import Recorder
from ..storage.hearing import Hearing
from ..storage.localtime import Zone
from ..storage.recording import Archive, Recording
from .config import load, with_options
from .exit_codes import ExitCode
from .progress import ProgressBar
from .report import CallLine, Reporter, Summary
from .settings import OFFLINE, Settings
from .tls_keys import TlsKeys
from .tuning import tune

if TYPE_CHECKING:
    from ..storage.signing import Signing

LOG_FOLDER = ".tapdeck"
"""Where below the output the log of what was sealed is kept."""


@click.command()
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the recordings."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a call, and a summary at the end.")
@click.option("--keep-packets", is_flag=True, help="Keep the packets of each call too, fax and video among them.")
@click.option("--sign", is_flag=True, help="Seal the recordings, with the key of signing.keys.")
@with_options(*OFFLINE)
def record(
    captures: tuple[str, ...],
    out: Path,
    as_json: bool,
    keep_packets: bool,
    sign: bool,
    config: Path | None,
    **options: Any,
) -> int:
    """Record the calls in capture files.

    CAPTURE is a pcap or pcapng file, gzip or not, or - for standard input. Several are read as one, in the order of
    time. For each call with media OUT gets a stereo WAV (left the caller, right the callee) and an info file beside it,
    in a folder for each day. A second run over the same capture changes nothing.

    With --keep-packets there is a capture file of all media packets too; a call without sound, a fax or video, is then
    recorded as that alone.

    With --sign each recording is sealed and chained to the one before, as the box does it; the log of it is kept in
    OUT/.tapdeck. It then needs the user whose key it is.
    """
    settings = load(config, options)
    tune()
    try:
        make_folder(out)
    except OSError as error:
        raise CannotWrite(f"{out}: {error.strerror}: choose a folder that can be written with --out") from None
    signing = _signing(settings, out) if sign else None
    try:
        return _Run(settings, captures, out, as_json, keep_packets, signing).run()
    finally:
        if signing is not None:
            signing.ledger.close()


def _signing(settings: Settings, out: Path) -> "Signing":
    """Return what seals, with an open key. Raises KeyUnusable, OSError."""
    from ..storage.keys import KeyLocked
    from .signing import signing_with

    signing = signing_with(settings, make_folder(out / LOG_FOLDER) / "ledger.sqlite")
    try:
        signing.ready()
    except KeyLocked as error:
        signing.ledger.close()
        raise KeyUnusable(str(error)) from None
    return signing


class CannotWrite(click.ClickException):
    """The output cannot be written at all."""

    exit_code = ExitCode.CANNOT_WRITE


class KeyUnusable(click.ClickException):
    """The key that should seal cannot be opened."""

    exit_code = ExitCode.CONFIG


class UnreadableInput(click.ClickException):
    """An input is no capture or cannot be opened."""

    exit_code = ExitCode.UNREADABLE_INPUT


def build_engine(
    settings: Settings, payloads: Payloads, parking: RowParking | None, secrets: Secrets | None = None
) -> Engine:
    """Return an engine with these settings. `secrets` are those of TLS and DTLS sessions."""
    limits = settings.limits
    return Engine(
        stash=payloads.stash,
        parking=parking,
        settings=call_settings(settings),
        limits=Limits(limits.max_calls, limits.max_streams, limits.unclaimed_memory_mb << 20),
        sip_ports=frozenset(settings.sip.ports),
        link_headers=link_headers(settings),
        secrets=secrets if secrets is not None else Secrets(),
        tls_ports=frozenset(settings.tls.ports),
    )


def call_settings(settings: Settings) -> CallSettings:
    """Return when calls are over, as the engine wants it."""
    calls = settings.calls
    return CallSettings(calls.media_silence_s, calls.held_silence_s, calls.unclaimed_hold_s, calls.bye_linger_s)


def link_headers(settings: Settings) -> tuple[str, ...]:
    """Return the headers in which the legs of a call bear the same value, in lower case."""
    return tuple(name.lower() for name in settings.sip.link_headers)


def own_of(settings: Settings) -> Own:
    """Return what belongs to the house."""
    networks = tuple(ipaddress.ip_network(text) for text in settings.own.networks)
    return Own(settings.own.numbers, networks, settings.own.country_code)


def hearing_of(settings: Settings) -> Hearing:
    """Return what is to be done about keys."""
    return Hearing(settings.recording.inband_digits, settings.recording.mask_digits)


class Captures:
    """The inputs of a run, opened when their time comes. Raises `UnreadableInput` at once for what is no capture."""

    def __init__(self, names: tuple[str, ...], payloads: Payloads) -> None:
        self.names = names
        self.opened: list[CaptureFile] = []
        self.steps = Steps()
        self.clocks: list[Clock] = []
        self._payloads = payloads
        if names.count("-") > 1:
            raise click.UsageError("standard input (-) can be read only once")
        try:
            self._starts = [first_time(name) for name in names]
        except CaptureError as error:
            raise UnreadableInput(str(error)) from None

    @property
    def rereadable(self) -> bool:
        """Whether a second run could read all of it again."""
        return all(Path(name).is_file() for name in self.names)

    @property
    def total(self) -> int | None:
        """Bytes of all inputs, None if nobody knows."""
        return sum(Path(name).stat().st_size for name in self.names) if self.rereadable else None

    @property
    def consumed(self) -> int:
        """Bytes read so far."""
        return sum(capture.consumed for capture in self.opened)

    @property
    def dropped(self) -> int:
        """Packets that, by the captures' own account, were dropped before they could be captured."""
        return sum(sum(capture.drops.values()) for capture in self.opened)

    @property
    def damage(self) -> list[str]:
        """What is wrong with the inputs."""
        return [capture.damage for capture in self.opened if capture.damage]

    def blocks(self, engine: Engine) -> Iterator[Datagrams]:
        """Yield the datagrams of all inputs in the order of time."""
        inputs = [
            Input(start if start is not None else -(1 << 62), lambda name=name: self._read(name, engine))  # type: ignore[misc]
            for name, start in zip(self.names, self._starts, strict=True)
        ]
        return merge(inputs)

    def _read(self, name: str, engine: Engine) -> Iterator[Datagrams]:
        try:
            capture, clock = open_capture(name, self._payloads), Clock(self.steps)
            capture.key_log = engine.secrets.add
            self.opened.append(capture)
            self.clocks.append(clock)
            for records in capture.blocks():
                yield engine.columns.read(clock.steady(records))
            clock.end()
        except CaptureError as error:
            raise UnreadableInput(str(error)) from None


class _Run:
    """One run of the command."""

    def __init__(
        self,
        settings: Settings,
        names: tuple[str, ...],
        out: Path,
        as_json: bool,
        keep_packets: bool,
        signing: "Signing | None",
    ) -> None:
        self.payloads = Payloads(out)
        self.captures = Captures(names, self.payloads)
        self.keys = TlsKeys(settings)
        self.keys.require()
        self.engine = build_engine(settings, self.payloads, RowParking(out), self.keys.secrets)
        self.zone = settings.zone().on(self.captures.steps.wall)
        host = os.uname().nodename
        source = ", ".join("standard input" if name == "-" else Path(name).name for name in names[:8])
        source += f" and {len(names) - 8} more" if len(names) > 8 else ""
        self.archive = Archive(
            root=out,
            naming=replace(settings.naming(), zone=self.zone),
            recorder=Recorder(settings.recording.instance or host, __version__, host, source),
            payloads=self.payloads,
            book=self.engine.book,
            account=self.engine.account,
            own=own_of(settings),
            legs=settings.recording.legs,
            wall=self.captures.steps.walls,
            keep=keep_packets,
            signing=signing,
            hearing=hearing_of(settings),
        )
        self.reporter = Reporter(as_json)
        self.failures: list[str] = []
        self.calls = 0

    def run(self) -> int:
        interrupted = False
        with ProgressBar(self.captures.total) as bar:
            try:
                for block in self.captures.blocks(self.engine):
                    self.keys.poll()
                    for ended in self.engine.feed(block):
                        self._report(self.archive.add(ended))
                    bar.update(self.captures.consumed, self.engine.account.seen, self.calls)
            except KeyboardInterrupt:
                interrupted = True
            if not interrupted or not self.captures.rereadable:
                for ended in self.engine.finish():
                    self._report(self.archive.add(ended))
            self._report(self.archive.flush())
        if interrupted and self.captures.rereadable:
            left = len(self.engine.correlator.open) + len(self.engine.correlator.closed)
            click.echo(
                f"interrupted: {self.calls} calls are recorded; {left} that were not over are still in the capture: "
                "run the same command again to record them too",
                err=True,
            )
            return ExitCode.INTERRUPTED
        self.reporter.finish(self._summary())
        return ExitCode.INTERRUPTED if interrupted else self._exit_code()

    def _report(self, recordings: Iterator[Recording]) -> None:
        for recording in recordings:
            self.calls += 1
            if recording.error:
                self.failures.append(f"call {recording.call.call_id} was not recorded: {recording.error}")
            self.reporter.call(call_line(recording, self.zone))

    def _summary(self) -> Summary:
        account = self.engine.account
        account.dropped(self.captures.dropped)
        account.calls["seen"] += self.engine.correlator.dialogs.refused_calls
        account.calls["failed"] += self.engine.correlator.dialogs.refused_calls
        warnings = [*self.failures, *(f"{text}: {count}" for text, count in sorted(account.notes.items()))]
        if self.engine.correlator.dialogs.refused_calls:
            warnings.append(
                f"{self.engine.correlator.dialogs.refused_calls} calls did not fit into the table (limits.max_calls)"
            )
        for kind, count in self.engine.correlator.dialogs.sdp_errors.items():
            warnings.append(f"session description not readable, {kind}: {count}")
        if self.keys.secrets.odd:
            warnings.append(f"{self.keys.secrets.odd} lines of the key log are no secrets that can be used")
        clocks = self.captures.clocks
        if any(clock.set for clock in clocks):
            times = sum(clock.set for clock in clocks)
            warnings.append(
                f"the capture's clock was set while it ran ({times} x); no sound is longer or shorter for it"
            )
        if any(clock.strays for clock in clocks):
            warnings.append(f"{sum(clock.strays for clock in clocks)} packets bear a time far from all others")
        if self.engine.cut:
            warnings.append(
                f"{self.engine.cut} RTP packets were captured only in part (snap length): the rest of each is silence"
            )
        return Summary(
            packets=account.packet_totals(),
            packet_kinds=account.packet_kinds(),
            calls=account.call_totals(),
            damaged=self.captures.damage,
            warnings=warnings,
        )

    def _exit_code(self) -> int:
        calls = self.engine.account.calls
        if calls["failed"]:
            return ExitCode.CANNOT_WRITE
        if self.captures.damage:
            return ExitCode.DAMAGED_CAPTURE
        return ExitCode.OK if calls["seen"] else ExitCode.NO_CALL


def call_line(recording: Recording, zone: Zone) -> CallLine:
    """Return a call as the terminal and JSON show it."""
    call = recording.call
    return CallLine(
        id=recording.id,
        start=zone.local(call.started),
        caller=call.caller.number,
        callee=call.callee.number,
        direction=recording.direction,
        duration_s=recording.duration_s,
        codec=recording.codec,
        outcome=recording.outcome,
        reason=call.end_reason,
        call_id=call.call_id,
        caller_name=call.caller.name,
        callee_name=call.callee.name,
        files=tuple(str(path) for path in recording.files),
        notes=recording.notes,
    )
