"""What each packet of a stream is, by its payload type and what that meant at its time. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..rtp.codecs import PCM_LAWS, Codec, codec
from ..rtp.g711 import Law
from ..sip.sdp import STATIC_FORMATS, Format
from ..sniffer.rows import Rows
from ..sniffer.selection import Track
from .side import RATE, Side

FEW = 4
"""So few packets of an unknown payload type are keep-alives, not a codec."""
MAX_CODECS = 200
"""Different codecs of one call that are decoded; a hostile sender's others are only kept."""


class Kind:
    """What a payload type's packets are; the values up to 2 are those of `Law`, those from `CODEC` on number the
    codecs of the call that have to be decoded.
    """

    A, MU = int(Law.A), int(Law.MU)
    COMFORT, EVENT, FOREIGN, UNKNOWN, SEALED, RED, FEC = 3, 4, 5, 6, 7, 8, 9
    CODEC = 16


FATES = {
    int(Law.NONE): ("kept", "no sound"),
    Kind.A: ("kept", "sound"),
    Kind.MU: ("kept", "sound"),
    Kind.COMFORT: ("kept", "comfort noise"),
    Kind.EVENT: ("kept", "telephone-event"),
    Kind.FOREIGN: ("kept", "codec not decoded yet"),
    Kind.UNKNOWN: ("kept", "unknown payload type"),
    Kind.SEALED: ("refused", "encrypted, no key"),
    Kind.RED: ("kept", "sound"),
    Kind.FEC: ("kept", "forward error correction"),
    Kind.CODEC: ("kept", "sound"),
}
STEADY = np.isin(np.arange(256), (Kind.A, Kind.MU, Kind.FOREIGN, Kind.RED))
"""Kinds that are sent at a steady pace."""
STEADY[Kind.CODEC :] = True
_FEC = ("ULPFEC", "PARITYFEC", "FLEXFEC", "FLEXFEC-03", "1D-INTERLEAVED-PARITYFEC")


@dataclass(slots=True)
class Codecs:
    """The codecs of a call that have to be decoded, numbered as `Kind.CODEC` and on."""

    known: list[Codec] = field(default_factory=list)

    def kind(self, found: Codec) -> int:
        """Return the kind of a codec's packets."""
        if found not in self.known:
            if len(self.known) == MAX_CODECS:
                return Kind.FOREIGN
            self.known.append(found)
        return Kind.CODEC + self.known.index(found)

    def of(self, kind: int) -> Codec:
        """Return the codec of a kind, G.711 included."""
        return self.known[kind - Kind.CODEC] if kind >= Kind.CODEC else PCM_LAWS[Law(kind)]

    def tables(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the clock and the rate of each kind in Hz, that of G.711 for those that are no sound."""
        clocks, rates = (np.full(256, RATE, dtype=np.int64) for _ in range(2))
        for number, one in enumerate(self.known, Kind.CODEC):
            clocks[number], rates[number] = one.clock, one.rate
        return clocks, rates


def kinds_of(rows: Rows, track: Track, side: Side, codecs: Codecs) -> npt.NDArray[np.uint8]:
    """Return what each of a track's packets is (`Kind`), and tell its side of them."""
    types = rows["kind"] & 0x7F
    kinds = np.empty(len(types), dtype=np.uint8)
    changes = [time for time, _ in track.formats]
    maps: list[Mapping[int, Format]] = [formats for _, formats in track.formats] or [{}]
    epochs = [slice(None)] if len(maps) == 1 else []
    if not epochs:
        edges = np.searchsorted(rows["time"], changes[1:]).tolist()
        epochs = [slice(a, b) for a, b in zip([0, *edges], [*edges, len(types)], strict=True)]
    for part, formats in zip(epochs, maps, strict=True):
        here = types[part]
        table = np.zeros(128, dtype=np.uint8)
        counts = np.bincount(here, minlength=128)
        for number in np.nonzero(counts)[0].tolist():
            table[number] = _kind(number, formats, side, int(counts[number]), codecs)
        kinds[part] = table[here]
    if track.clear_until is not None:
        kinds[rows["time"] > track.clear_until] = Kind.SEALED
    return kinds


def _kind(number: int, formats: Mapping[int, Format], side: Side, count: int, codecs: Codecs) -> int:
    named = _plain(formats.get(number) or STATIC_FORMATS.get(number))
    name = named.name if named is not None else ""
    if named is None or not name:
        return _unnamed(number, side, count)
    if name == "CN":
        return Kind.COMFORT
    if name == "TELEPHONE-EVENT":
        return Kind.EVENT
    if name == "RED":
        return Kind.RED
    if name in _FEC:
        side.fec[name] += count
        return Kind.FEC
    shown = codec_name(named)
    add(side.codecs, shown)
    if named.rate == RATE and named.channels == 1 and name in ("PCMA", "PCMU"):
        return Kind.A if name == "PCMA" else Kind.MU
    found = codec(name, named.rate, named.channels, named.fmtp)
    kind = codecs.kind(found) if found is not None else Kind.FOREIGN
    if kind == Kind.FOREIGN:
        add(side.foreign, shown)
    return kind


def _plain(named: Format | None) -> Format | None:
    """Return a format by its registered name, with the rate that its rtpmap left out."""
    if named is None:
        return None
    name = ALIASES.get(named.name, named.name)
    return replace(named, name=name, rate=named.rate or STATIC_RATES.get(name, 0))


def _unnamed(number: int, side: Side, count: int) -> int:
    if number == 19:  # reserved by RFC 3551 because drafts used it for comfort noise
        return Kind.COMFORT
    side.unknown[number] += count
    if count > FEW:
        add(side.foreign, f"payload type {number}")
        add(side.codecs, f"payload type {number}")
    return Kind.UNKNOWN


def codec_name(named: Format) -> str:
    """Return a codec's RTP name, with its clock rate where that is not the usual one."""
    usual = STATIC_RATES.get(named.name)
    return named.name if usual == named.rate else f"{named.name}/{named.rate}"


ALIASES = {
    **dict.fromkeys(("G729A", "G729B", "G729AB", "G.729", "G.729A", "G.729B", "G.729AB"), "G729"),
    **dict.fromkeys(("G723.1", "G.723.1", "G723-1", "G7231", "G723-53", "G723-63", "G.723"), "G723"),
    **dict.fromkeys(("G721", "G.721"), "G726-32"),
    **{f"G.726-{rate}": f"G726-{rate}" for rate in (16, 24, 32, 40)},
    **{f"X-G726-{rate}": f"G726-{rate}" for rate in (16, 24, 32, 40)},
    "G.722": "G722",
    "G.711A": "PCMA",
    "G.711U": "PCMU",
}
"""Names that phones give to codecs, and those that are registered. The letters of G.729 mean the same payload."""

STATIC_RATES = (
    {named.name: named.rate for named in STATIC_FORMATS.values()}
    | {
        "OPUS": 48000,
        "SPEEX": 8000,
        "ILBC": 8000,
        "AMR": 8000,
        "AMR-WB": 16000,
        "CLEARMODE": 8000,
        "BV32": 16000,
        "G722": 8000,
        "DVI4": 8000,
    }
    | {f"{name}-{rate}": 8000 for name in ("G726", "AAL2-G726") for rate in (16, 24, 32, 40)}
)


def add(names: list[str], name: str) -> None:
    """Add a name that is not there yet."""
    if name not in names:
        names.append(name)


def clock_of(track: Track, kind: int | None = None) -> int:
    """Return the RTP clock of a payload type, of the track's first packet if none is given, in Hz."""
    kind = (int(track.rows["kind"][0]) if kind is None else kind) & 0x7F
    for _, formats in reversed(track.formats):
        if kind in formats and formats[kind].rate:
            return formats[kind].rate
    return STATIC_FORMATS[kind].rate if kind in STATIC_FORMATS else RATE
