"""How much disk calls take: sums, and how long what is free will last. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Codec:
    """How a call is kept: bytes a second for both parties, and whether that is exact or an estimate."""

    name: str
    bytes_per_second: int
    exact: bool
    how: str


G711 = Codec("g711", 16_000, True, "A-law or u-law as on the wire, 8 kHz, stereo")
CODECS = {
    codec.name: codec
    for codec in (
        G711,
        Codec("g722", 64_000 + 16_000, False, "decoded to 16-bit PCM at 16 kHz, stereo, with what was on the wire"),
        Codec("g729", 32_000 + 2_000, False, "decoded to 16-bit PCM at 8 kHz, stereo, with what was on the wire"),
        Codec("opus", 64_000 + 8_000, False, "decoded to 16-bit PCM at 16 kHz, stereo, with what was on the wire"),
    )
}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What `minutes` a day of calls take, in bytes: a day, a working year, and `years` of them."""

    day: float
    year: float
    total: float
    years: float


def bytes_per_day(minutes: float, codec: Codec) -> float:
    """Return the bytes that so many minutes of calls a day take."""
    return minutes * 60 * codec.bytes_per_second


def forecast(daily: float, days_per_year: float, years: float) -> Forecast:
    """Return what `daily` bytes come to."""
    return Forecast(daily, daily * days_per_year, daily * days_per_year * years, years)


def days_until_full(free: float, daily: float) -> float:
    """Return for how many days `free` bytes last; infinite where nothing is written."""
    return max(free, 0.0) / daily if daily > 0 else float("inf")


def size_text(size: float) -> str:
    """Return a size as people write it: `288 MB`, `360 GB`, `1.8 TB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            value = size / factor
            return f"{value:,.0f} {unit}" if value >= 10 or value == int(value) else f"{value:,.1f} {unit}"
    return f"{size / 1000:,.0f} kB"
