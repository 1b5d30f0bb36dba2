"""The parts of which the stages are made, from the settings: the self-test tests the very same ones."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..sniffer.blocks import RAW_IP
from ..sniffer.engine import Limits, Listener
from ..sniffer.live import LiveEngine
from ..sniffer.sources.payloads import RowParking
from ..sniffer.tls.secrets import Secrets
from ..storage.sealing import Sealer
from ..storage.spool import Origin
from .record import build_engine, call_settings, hearing_of, link_headers, own_of
from .settings import Settings
from .tls_keys import TAIL, TlsKeys

if TYPE_CHECKING:
    from ..storage.signing import Signing


def live_engine(
    settings: Settings, links: tuple[int, ...], listener: Listener | None = None, secrets: Secrets | None = None
) -> LiveEngine:
    """Return the engine of the capture stage for interfaces of these link types (LINKTYPE_*). `secrets` are those of
    TLS sessions.
    """
    limits = settings.limits
    return LiveEngine(
        settings=call_settings(settings),
        limits=Limits(limits.max_calls, limits.max_streams, limits.unclaimed_memory_mb << 20),
        sip_ports=frozenset(settings.sip.ports),
        link_headers=link_headers(settings),
        secrets=secrets if secrets is not None else Secrets(),
        tls_ports=frozenset(settings.tls.ports),
        listener=listener,
        links=tuple(dict.fromkeys((RAW_IP, *links))),
        new_calls_per_s=settings.capture.new_calls_per_s,
        mask_digits=settings.recording.mask_digits,
    )


def origin(settings: Settings, interfaces: str, links: tuple[int, ...]) -> Origin:
    """Return what all spool files of a run have in common. `interfaces` are named for people."""
    host = os.uname().nodename
    return Origin(settings.recording.instance or host, host, __version__, interfaces, links)


def sealer(
    settings: Settings, root: Path, scratch: Path, signing: "Signing | None" = None, keys: TlsKeys | None = None
) -> Sealer:
    """Return what makes recordings below `root`; `scratch` takes what does not fit into memory. With `signing` they are
    sealed; `keys` are those of DTLS sessions. Raises ConfigError.
    """
    keys = keys if keys is not None else TlsKeys(settings, TAIL)
    return Sealer(
        root=root,
        scratch=scratch,
        naming=settings.naming(),
        version=__version__,
        own=own_of(settings),
        engine=lambda payloads: build_engine(settings, payloads, RowParking(scratch), keys.fresh()),
        keep_packets=settings.storage.keep_packets,
        legs=settings.recording.legs,
        signing=signing,
        hearing=hearing_of(settings),
    )
