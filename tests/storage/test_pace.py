"""Hours over midnight and over the nights when the clock is set; bandwidth by a clock of ours; growing pauses."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.localtime import Zone
from tapdeck.storage.pace import Bandwidth, Hours, PaceError, Pauses, bandwidth, hours

AMSTERDAM = "Europe/Amsterdam"


def window(text: str, zone: str = AMSTERDAM) -> Hours:
    made = hours(text, Zone(zone))
    assert made is not None
    return made


def at(text: str, fold: int = 0, zone: str = AMSTERDAM) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-06:00", ["22:00", "23:59:59", "00:00", "05:59:59"], ["06:00", "12:00", "21:59:59"]),
        ("08:00-18:00", ["08:00", "17:59:59"], ["07:59:59", "18:00", "00:00"]),
        ("22:00-24:00", ["22:00", "23:59:59"], ["00:00", "21:59"]),
        ("00:00-06:00", ["00:00", "05:59"], ["06:00", "23:59"]),
    ],
)
def test_hours_are_those_of_the_wall(text: str, inside: list[str], outside: list[str]) -> None:
    for day in ("2026-01-15", "2026-07-15"):
        assert all(window(text).open(at(f"{day}T{clock}")) for clock in inside)
        assert not any(window(text).open(at(f"{day}T{clock}")) for clock in outside)


def test_when_they_begin_next() -> None:
    night = window("22:00-06:00")
    assert night.opens(at("2026-11-24T12:00:30")) == at("2026-11-24T22:00")
    assert night.opens(at("2026-11-24T23:00:30")) == at("2026-11-24T23:00:30")
    assert night.opens(at("2026-11-24T06:00")) == at("2026-11-24T22:00")


def test_the_night_with_an_hour_twice() -> None:
    """At 03:00 summer time it is 02:00 again."""
    short = window("02:00-03:00")
    assert short.open(at("2026-10-25T02:30", fold=0))
    assert short.open(at("2026-10-25T02:30", fold=1))
    assert not short.open(at("2026-10-25T03:00"))
    assert window("22:00-06:00").opens(at("2026-10-24T21:00")) == at("2026-10-24T22:00")
    assert at("2026-10-25T06:00") - at("2026-10-24T22:00") == 9 * 3600


def test_the_night_without_an_hour() -> None:
    """At 02:00 it is 03:00: hours that lie in the missing one come the next day."""
    assert window("02:15-02:45").opens(at("2026-03-28T12:00")) == at("2026-03-30T02:15")
    assert window("02:30-03:30").opens(at("2026-03-28T12:00")) == at("2026-03-29T03:00")


@given(
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda found: found.replace(tzinfo=UTC)),
    start=st.integers(0, 1439),
    length=st.integers(1, 1439),
    zone=st.sampled_from([AMSTERDAM, "UTC", "Australia/Lord_Howe", "America/New_York"]),
)
def test_they_are_open_when_they_say_so(moment: datetime, start: int, length: int, zone: str) -> None:
    clock = [f"{minute % 1440 // 60:02}:{minute % 60:02}" for minute in (start, start + length)]
    made, now = window("-".join(clock), zone), moment.timestamp()
    local = moment.astimezone(ZoneInfo(zone))
    since = (timedelta(hours=local.hour, minutes=local.minute) - timedelta(minutes=start)) % timedelta(days=1)
    assert made.open(now) == (since < timedelta(minutes=length))
    opens = made.opens(now)
    assert made.open(opens) or length < 60  # the whole of it may fall into a missing hour
    assert opens == now or not made.open((now + opens) / 2) or opens - now > 86_400


@pytest.mark.parametrize("text", ["22:00", "22-06", "22:00-25:00", "x", "22:00-22:00", "00:00-24:00", "22:00 - 06:00"])
def test_what_is_no_part_of_a_day(text: str) -> None:
    with pytest.raises(PaceError):
        hours(text)


def test_always() -> None:
    assert hours("") is None
    assert bandwidth(0) is None


class Senders:
    """Couriers on a clock of ours, which each need `own` seconds for a block themselves."""

    def __init__(self, rate: float) -> None:
        self.now = 1000.0
        self.limit = Bandwidth(rate, lambda: self.now)

    def send(self, count: int, size: int, blocks: int, own: float) -> float:
        """Have `count` of them send blocks of one size; return how long it takes."""
        start, ready = self.now, [self.now] * count
        for _ in range(blocks):
            who = min(range(count), key=ready.__getitem__)
            self.now = max(self.now, ready[who]) + own / count
            ready[who] = self.now + self.limit.spend(size)
        return max(ready) - start


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("own", [0.0, 0.05])
def test_bandwidth_is_shared_and_kept(count: int, own: float) -> None:
    senders = Senders(125_000.0)  # 1 Mbit/s
    took = senders.send(count, senders.limit.block, 400, own)
    moved = 400 * senders.limit.block
    assert moved / took == pytest.approx(125_000, rel=0.03)


def test_what_was_not_used_is_lost_but_for_a_moment() -> None:
    senders = Senders(100_000.0)
    senders.now += 3600
    assert senders.limit.spend(100_000) == 0.0
    assert senders.limit.spend(100_000) == pytest.approx(1.0)


@pytest.mark.parametrize(("kbit", "block"), [(64, 16 << 10), (8_000, 250_000), (1_000_000, 1 << 20)])
def test_what_is_sent_at_a_time_fits_the_limit(kbit: int, block: int) -> None:
    limit = bandwidth(kbit)
    assert limit is not None
    assert limit.block == block


def test_pauses_grow_and_stay() -> None:
    pauses = Pauses(2.0, 3600.0)
    assert [pauses.after(failures) for failures in (1, 2, 3, 4, 11, 12, 13, 10_000)] == [
        2,
        4,
        8,
        16,
        2048,
        3600,
        3600,
        3600,
    ]
    assert Pauses(10, 60).after(4) == 60
