"""Time stamps sort as the instants do, in every zone and in the night when an hour comes twice."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage import localtime
from tapdeck.storage.localtime import NS, Zone, ZoneError

ZONES = [
    "UTC",
    "Europe/Amsterdam",
    "Europe/Berlin",
    "Europe/Dublin",  # its winter time is the "daylight" one, of minus one hour
    "America/New_York",
    "America/St_Johns",  # until 2011 it changed at one minute past midnight
    "America/Sao_Paulo",
    "America/Havana",
    "America/Nuuk",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Australia/Lord_Howe",  # by half an hour
    "Antarctica/Troll",  # by two hours
    "Pacific/Apia",
    "Pacific/Chatham",
]


def ns(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)) * 1_000_000


@pytest.mark.parametrize(
    ("zone", "instant", "expected"),
    [
        ("Europe/Amsterdam", "2026-11-22T14:03:05.123+01:00", "20261122-140305.123"),
        ("UTC", "2026-11-22T14:03:05.123+01:00", "20261122-130305.123"),
        # Autumn 2026 in Europe: at 03:00 summer time the clock goes back to 02:00.
        ("Europe/Amsterdam", "2026-10-25T01:59:59.999+02:00", "20261025-015959.999"),
        ("Europe/Amsterdam", "2026-10-25T02:00:00+02:00", "20261025-02A0000.000"),
        ("Europe/Amsterdam", "2026-10-25T02:59:59.999+02:00", "20261025-02A5959.999"),
        ("Europe/Amsterdam", "2026-10-25T02:00:00+01:00", "20261025-02B0000.000"),
        ("Europe/Amsterdam", "2026-10-25T02:59:59+01:00", "20261025-02B5959.000"),
        ("Europe/Amsterdam", "2026-10-25T03:00:00+01:00", "20261025-030000.000"),
        ("Europe/Amsterdam", "2026-03-29T03:00:00+02:00", "20260329-030000.000"),
        ("Australia/Lord_Howe", "2026-04-05T01:29:59+11:00", "20260405-012959.000"),
        ("Australia/Lord_Howe", "2026-04-05T01:30:00+11:00", "20260405-01A3000.000"),
        ("Australia/Lord_Howe", "2026-04-05T01:30:00+10:30", "20260405-01B3000.000"),
        ("Antarctica/Troll", "2026-10-25T02:10:00+02:00", "20261025-01B1000.000"),
        ("Antarctica/Troll", "2026-10-25T01:10:00+00:00", "20261025-01C1000.000"),
    ],
)
def test_stamps(zone: str, instant: str, expected: str) -> None:
    assert Zone(zone).stamp(ns(instant)) == expected


@pytest.mark.parametrize("zone", ZONES)
def test_stamps_sort_as_time_does_around_every_change(zone: str) -> None:
    """Every 97 s for hours around each change of the clock from 2009 to 2030, found by stepping."""
    there, zone_info = Zone(zone), ZoneInfo(zone)
    day, offset = datetime(2009, 1, 1, tzinfo=UTC), None
    while day.year < 2030:
        day += timedelta(hours=6)
        now = day.astimezone(zone_info).utcoffset()
        if now == offset:
            continue
        offset = now
        start = int(day.timestamp()) - 10 * 3600
        stamps = [there.stamp(second * NS) for second in range(start, start + 14 * 3600, 97)]
        assert stamps == sorted(stamps)
        assert len(set(stamps)) == len(stamps)


@given(st.lists(st.integers(0, 4_000_000_000 * NS), min_size=2, max_size=20), st.sampled_from(ZONES))
def test_any_instants_sort(instants: list[int], zone: str) -> None:
    there = Zone(zone)
    stamps = [there.stamp(instant) for instant in sorted(instants)]
    assert stamps == sorted(stamps)


def test_iso_has_offset_and_milliseconds() -> None:
    assert Zone("Europe/Amsterdam").iso(1_795_313_403_449_003_500) == "2026-11-22T03:10:03.449+01:00"
    assert Zone("UTC").iso(-1) == "1969-12-31T23:59:59.999+00:00"


@given(st.integers(0, 4_000_000_000 * NS), st.sampled_from(ZONES))
def test_local_agrees_with_the_standard_library(instant: int, zone: str) -> None:
    ours = Zone(zone).local(instant)
    theirs = datetime.fromtimestamp(instant // NS, ZoneInfo(zone))
    assert ours.replace(microsecond=0).isoformat() == theirs.isoformat()


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe/", "a\0b", "Ünknown"])
def test_no_such_zone(name: str) -> None:
    with pytest.raises(ZoneError, match="no time zone"):
        Zone(name)


@pytest.mark.parametrize("zone", ["Europe/Amsterdam", "Australia/Lord_Howe", "EST5EDT,M3.2.0,M11.1.0"])
def test_the_machines_own_zone(zone: str) -> None:
    """In a process with TZ set, "" gives what the C library's date(1) gives."""
    code = "from tapdeck.storage.localtime import Zone; print(Zone('').iso(1781000000 * 10**9))"
    source = str(Path(localtime.__file__).parents[2])
    environment = {**os.environ, "TZ": zone, "PYTHONPATH": source}
    ours = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    date = ["date", "-d", "@1781000000", "+%Y-%m-%dT%H:%M:%S.000%:z"]
    theirs = subprocess.run(date, env=environment, capture_output=True, text=True, check=True)
    assert ours.stdout == theirs.stdout


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Amsterdam", "2026-11-24", 24),
        ("Europe/Amsterdam", "2026-03-29", 23),
        ("Europe/Amsterdam", "2026-10-25", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("America/Asuncion", "2023-10-01", 23),  # there was no midnight: 00:00 became 01:00
        ("America/Asuncion", "2024-03-23", 25),  # the clock was set back at midnight, to 23:00
        ("Pacific/Apia", "2011-12-30", 0),  # a day that there was not
        ("UTC", "2024-02-29", 24),
    ],
)
def test_a_day_has_as_many_hours_as_it_has(zone: str, day: str, hours: float) -> None:
    """Its end and the end of the day before lie so far apart, and the zone database agrees where they are."""
    which = date.fromisoformat(day)
    since, until = (Zone(zone).end_of(one) for one in (which - timedelta(1), which))
    assert (until - since) / NS == hours * 3600
    theirs = ZoneInfo(zone)
    assert datetime.fromtimestamp(until // NS, theirs).date() > which
    assert datetime.fromtimestamp(until // NS - 1, theirs).date() <= which
