"""The rings of a capture, as the settings want them."""

import click

from ..sniffer.sources import bpf
from ..sniffer.sources.capture_file import CaptureError
from ..sniffer.sources.ring import Ring, link_type
from .exit_codes import ExitCode
from .settings import Settings


class CannotListen(click.ClickException):
    """The interface cannot be listened on."""

    exit_code = ExitCode.UNREADABLE_INPUT


def open_rings(settings: Settings) -> list[Ring]:
    """Open a ring on each interface, its filter set. Raises CannotListen."""
    capture = settings.capture
    try:
        rings = []
        for name in capture.interfaces:
            program = bpf.compile(capture.filter, link_type(name)) if capture.filter else None
            ring = Ring(
                name,
                size=capture.ring_mb << 20,
                block=capture.block_kb << 10,
                timeout_ms=capture.block_timeout_ms,
                promiscuous=capture.promiscuous,
                hardware_stamps=capture.hardware_stamps,
                instructions=program,
            )
            rings.append(ring)
    except CaptureError as error:
        raise CannotListen(str(error)) from None
    return rings


def set_filters(rings: list[Ring], expression: str) -> None:
    """Set the capture filter, or none if it is empty. Raises CaptureError, and then nothing has changed."""
    programs = [bpf.compile(expression, ring.link) if expression else None for ring in rings]
    for ring, program in zip(rings, programs, strict=True):
        ring.set_filter(program)
