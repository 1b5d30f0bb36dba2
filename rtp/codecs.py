"""From what SDP calls a payload type to how its payload is taken apart and decoded. Pure.

RFC 3551 (the profile and most codecs), 3952 (iLBC), 5574 (Speex), 4867 (AMR), 7587 (Opus).
"""

from dataclasses import dataclass, replace
from enum import Enum

from .g711 import Law

MAX_RATE = 48_000
"""The highest rate of sound that is written, in Hz."""


class Framing(Enum):
    """How a payload holds its sound."""

    STREAM = "samples of so many bits, one behind the other"
    GSM = "frames of 33 bytes"
    G729 = "frames of 10 bytes, a silence description of 2 at the end"
    G723 = "frames whose first two bits tell their size"
    ILBC = "frames of 38 or 50 bytes"
    SPEEX = "frames of bits, one behind the other"
    AMR_OCTETS = "a table of contents, then frames of whole bytes"
    AMR_BITS = "a table of contents, then frames of bits"
    OPUS = "one Opus packet"


@dataclass(frozen=True, slots=True)
class Codec:
    """How a payload type is decoded.

    `clock` is that of its time stamps, `rate` that of its sound (Hz); `channels` are in the payload, and become one.
    `decoders` are FFmpeg's, the best first; a codec without any is decoded by tables of ours. STREAM: `bits` of a
    sample, in `unit` whole bytes. Else: `frame` samples of a frame; `mode` of iLBC in ms.
    """

    name: str
    clock: int
    rate: int
    framing: Framing
    decoders: tuple[str, ...] = ()
    channels: int = 1
    bits: int = 0
    unit: int = 1
    frame: int = 0
    mode: int = 0
    law: Law = Law.NONE

    @property
    def sized(self) -> bool:
        """Whether the size of a payload alone tells how long its sound is."""
        return self.framing in (Framing.STREAM, Framing.GSM, Framing.G729, Framing.ILBC)


PCM_LAWS = {
    Law.A: Codec("PCMA", 8000, 8000, Framing.STREAM, bits=8, law=Law.A),
    Law.MU: Codec("PCMU", 8000, 8000, Framing.STREAM, bits=8, law=Law.MU),
}
"""G.711 as one codec among others, where a call holds more than that."""

_G726 = {16: (2, 1), 24: (3, 3), 32: (4, 1), 40: (5, 5)}  # kbit/s: bits of a sample, bytes of a whole number of them
_PLAIN = {
    "GSM": Codec("GSM", 8000, 8000, Framing.GSM, ("gsm",), frame=160),
    "G729": Codec("G729", 8000, 8000, Framing.G729, ("g729",), frame=80),
    "G723": Codec("G723", 8000, 8000, Framing.G723, ("g723_1",), frame=240),
    "OPUS": Codec("OPUS", 48000, 48000, Framing.OPUS, ("libopus", "opus")),
}
for _rate, (_bits, _unit) in _G726.items():
    for _name, _decoder in (("G726", "g726le"), ("AAL2-G726", "g726")):
        _PLAIN[f"{_name}-{_rate}"] = Codec(
            f"{_name}-{_rate}", 8000, 8000, Framing.STREAM, (_decoder,), bits=_bits, unit=_unit
        )
_TURNED = {f"G726-{rate}": f"AAL2-G726-{rate}" for rate in _G726}
_TURNED |= {other: one for one, other in _TURNED.items()}
_OPTIONS = ("crc", "interleaving", "robust-sorting")  # of AMR: frames come in another order, or with sums


def codec(name: str, rate: int, channels: int, fmtp: str) -> Codec | None:
    """Return how a format of SDP is decoded, by its encoding name in upper case, clock rate, channels and parameters;
    None if it is not.
    """
    if name in ("L16", "PCMA", "PCMU"):
        return _samples(name, rate, channels)
    if name == "G722" and channels == 1:  # its clock is 8000 by an old mistake (RFC 3551 section 4.5.2)
        clock = 16000 if rate == 16000 else 8000
        return Codec("G722", clock, 16000, Framing.STREAM, ("g722",), bits=4)
    if name in _PLAIN and (channels == 1 or name == "OPUS"):
        return _PLAIN[name]
    if name == "ILBC" and channels == 1:
        mode = 20 if parameters(fmtp).get("mode") == "20" else 30
        return Codec("ILBC", 8000, 8000, Framing.ILBC, ("ilbc",), mode=mode)
    if name == "SPEEX" and channels == 1 and rate in (8000, 16000, 32000):
        return Codec("SPEEX", rate, rate, Framing.SPEEX, ("speex",), frame=rate // 50)
    if name in ("AMR", "AMR-WB") and channels == 1:
        return _amr(name, parameters(fmtp))
    return None


def packed_otherwise(codec: Codec) -> Codec | None:
    """Return the codec whose samples lie the other way round in their bytes, None if there is none."""
    return replace(_PLAIN[_TURNED[codec.name]], clock=codec.clock) if codec.name in _TURNED else None


def other_mode(codec: Codec) -> Codec | None:
    """Return AMR in its other payload mode, None for other codecs."""
    modes = {Framing.AMR_BITS: Framing.AMR_OCTETS, Framing.AMR_OCTETS: Framing.AMR_BITS}
    return replace(codec, framing=modes[codec.framing]) if codec.framing in modes else None


def by_the_book(codec: Codec) -> Codec | None:
    """Return the codec as its Recommendation has it, where FFmpeg's differs from that (`g726.py`), else None."""
    return replace(codec, decoders=()) if codec.name in ("G726-40", "AAL2-G726-40") else None


def _samples(name: str, rate: int, channels: int) -> Codec | None:
    """Samples as they are: L16 (RFC 3551 section 4.5.11) and G.711 at other rates than its own."""
    if not 4000 <= rate <= MAX_RATE or channels not in (1, 2) or (channels > 1 and name != "L16"):
        return None
    if name == "L16":
        return Codec(name, rate, rate, Framing.STREAM, channels=channels, bits=16 * channels, unit=2 * channels)
    return Codec(name, rate, rate, Framing.STREAM, bits=8, law=Law.A if name == "PCMA" else Law.MU)


def _amr(name: str, options: dict[str, str]) -> Codec | None:
    if any(options.get(option, "0") != "0" for option in _OPTIONS):
        return None
    framing = Framing.AMR_OCTETS if options.get("octet-align") == "1" else Framing.AMR_BITS
    if name == "AMR":
        return Codec(name, 8000, 8000, framing, ("libopencore_amrnb", "amrnb"), frame=160)
    return Codec(name, 16000, 16000, framing, ("libopencore_amrwb", "amrwb"), frame=320)


def parameters(fmtp: str) -> dict[str, str]:
    """Return the parameters of an fmtp attribute, names in lower case; the first of a name counts."""
    found: dict[str, str] = {}
    for part in fmtp.split(";")[:64]:
        name, _, value = part.partition("=")
        found.setdefault(name.strip().lower(), value.strip())
    return found
