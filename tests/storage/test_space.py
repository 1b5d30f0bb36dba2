"""What may go from the disk and what is said of it: never one that is not safe elsewhere, whatever the figures."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.parcel import Parcel
from tapdeck.storage.space import (
    DAY_S,
    Disk,
    Limits,
    Local,
    Outlook,
    Receivers,
    days_until_full,
    decide,
    may_go,
    per_day,
    size_text,
)

GB = 10**9
TARGETS = ("disk", "nas", "cloud")


def local(number: int, size: int, *confirmed: str) -> Local:
    stem = f"2026/11/24/r{number}"
    return Local(number, Parcel(f"id{number}", stem, (f"{stem}_info.txt",), size, float(number)), frozenset(confirmed))


def to(*names: str, optional: tuple[str, ...] = ()) -> Receivers:
    return Receivers(frozenset((*names, *optional)), frozenset(names))


def codes(disk: Disk, daily: float, limits: Limits, *recordings: Local, targets: tuple[str, ...] = ()) -> list[str]:
    return [alarm.code for alarm in decide(disk, daily, limits, recordings, to(*targets)).alarms]


recordings = st.lists(
    st.builds(
        lambda size, confirmed: (size, confirmed),
        st.integers(1, 50),
        st.sets(st.sampled_from([*TARGETS, "old target"])),
    ),
    max_size=30,
).map(lambda found: [local(n, size, *confirmed) for n, (size, confirmed) in enumerate(found)])


@given(
    free=st.integers(0, 500),
    reserve=st.integers(1, 500),
    copies=st.integers(0, 4),
    found=recordings,
    targets=st.frozensets(st.sampled_from(TARGETS)),
    held=st.frozensets(st.integers(0, 29).map(lambda n: f"id{n}")),
    daily=st.floats(0, 1e6),
    warn=st.floats(0, 100),
)
def test_nothing_goes_that_is_not_safe_elsewhere(
    free: int,
    reserve: int,
    copies: int,
    found: list[Local],
    targets: frozenset[str],
    held: frozenset[str],
    daily: float,
    warn: float,
) -> None:
    made = decide(Disk(free, 1000), daily, Limits(reserve, warn, copies), iter(found), to(*targets), None, held)
    for one in made.go:
        assert targets
        assert targets <= one.confirmed
        assert len(one.confirmed & targets) >= max(copies, 1)
        assert one.parcel.id not in held
    assert free < reserve or not made.go
    numbers = [one.number for one in made.go]
    assert numbers == sorted(set(numbers))  # oldest first, each once
    gained = sum(one.parcel.bytes for one in made.go)
    if made.go:  # not one more than needed
        assert free + gained - made.go[-1].parcel.bytes < reserve
    may_go = [
        one
        for one in found
        if targets and targets <= one.confirmed and len(targets) >= max(copies, 1) and one.parcel.id not in held
    ]
    assert list(made.go) == may_go[: len(made.go)]  # none that is older was passed over
    enough = free + gained >= reserve
    assert enough or list(made.go) == may_go
    assert ("DISK_FULL" in [alarm.code for alarm in made.alarms]) == (not enough)
    low = daily > 0 and free / daily <= warn
    assert ("DISK_LOW" in [alarm.code for alarm in made.alarms]) == low


def test_with_room_nobody_is_even_asked() -> None:
    def explode() -> Local:
        raise AssertionError("asked")

    made = decide(Disk(10, 20), 0, Limits(10, 14), (explode() for _ in range(1)), to("disk"))
    assert made.go == ()
    assert made.alarms == ()


def test_one_more_target_keeps_what_it_has_not_got() -> None:
    one = local(1, 5, "disk")
    assert decide(Disk(0, 10), 0, Limits(3, 14), [one], to("disk")).go == (one,)
    assert decide(Disk(0, 10), 0, Limits(3, 14), [one], to("disk", "nas")).go == ()
    assert decide(Disk(0, 10), 0, Limits(3, 14), [replace(one, confirmed=frozenset({"disk", "nas"}))], to("disk")).go


def test_the_last_required_copy_stays() -> None:
    one = local(1, 5, "disk")
    assert decide(Disk(0, 10), 0, Limits(3, 14, copies=2), [one], to("disk")).go == ()


@pytest.mark.parametrize(("free", "low"), [(15, False), (14.1, False), (14, True), (1, True), (0, True)])
def test_the_warning_comes_in_good_time(free: float, low: bool) -> None:
    made = decide(Disk(int(free * GB), 100 * GB), GB, Limits(0, 14), [], to("disk"))
    assert made.days == pytest.approx(free)
    assert [alarm.code for alarm in made.alarms] == (["DISK_LOW"] if low else [])


def test_nothing_comes_in_nothing_fills_up() -> None:
    assert decide(Disk(5, 100), 0, Limits(1, 14), [], to()).days is None
    assert codes(Disk(5, 100), 0, Limits(1, 14)) == []


def test_the_words_say_what_will_happen_and_what_to_do() -> None:
    alone = decide(Disk(3 * GB, 100 * GB), GB, Limits(4 * GB, 14), [], to()).alarms
    assert [(alarm.code, alarm.severity) for alarm in alone] == [("DISK_FULL", "critical"), ("DISK_LOW", "warning")]
    assert "3.0 GB of 100 GB are free" in alone[0].text
    assert "without a target nothing may go" in alone[0].text
    assert "enough for 3 days; then recording stops" in alone[1].text
    served = decide(Disk(3 * GB, 100 * GB), GB, Limits(GB, 14), [], to("disk")).alarms
    assert "then the oldest delivered recordings make room" in served[0].text


def test_bytes_a_day_are_those_of_a_week_or_of_a_young_recorder_s_life() -> None:
    now = 100 * DAY_S
    assert per_day(0, None, now) == 0
    assert per_day(700, now - 50 * DAY_S, now) == 100
    assert per_day(700, now - 2 * DAY_S, now) == 350
    assert per_day(700, now - 60, now) == 700
    assert per_day(700, now + 60, now) == 700


def test_sizes_as_people_read_them() -> None:
    sizes = (0, 999, 1000, 99_400, 99_600, 999_499, 1_000_000, 288_000_000, 4 * 10**12, 4 * 10**15)
    assert [size_text(size) for size in sizes] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "99.4 kB",
        "100 kB",
        "999 kB",
        "1.0 MB",
        "288 MB",
        "4.0 TB",
        "4,000.0 TB",
    ]


def test_the_checkpoint_of_a_day_does_not_go() -> None:
    """It is small, and proves that the recordings that went were there."""
    day = replace(local(0, 50, "nas"), parcel=Parcel("tapdeck-day-2026-11-24", "x", ("x.txt",), 50, 0.0))
    gone = decide(Disk(0, 100), 0, Limits(reserve=80, warn_days=1), [day, local(1, 50, "nas")], to("nas")).go
    assert [one.parcel.id for one in gone] == ["id1"]


NEVER = None


@pytest.mark.parametrize(
    ("keep_days", "leaving", "backlog", "days"),
    [
        (None, (), 0, 10.0),
        (30, (), 0, 10.0),  # nothing is old enough to go before the disk is full
        (5, (), 0, NEVER),  # what comes today goes before
        (5, (), 1, 10.0),  # but not while a target does not take it
        (30, ((2.0, 50), (9.0, 100)), 0, 25.0),
        (20, ((2.0, 50), (9.0, 100)), 0, NEVER),
        (30, ((0.0, 50), (20.0, 1000)), 0, 15.0),
        (0, (), 0, NEVER),
    ],
)
def test_when_the_disk_is_full_where_recordings_go_by_their_age(
    keep_days: float | None, leaving: tuple[tuple[float, int], ...], backlog: int, days: float | None
) -> None:
    """100 bytes are free, and a day brings 10."""
    keep = None if keep_days is None else keep_days * DAY_S
    found = days_until_full(100, 10.0, keep, Outlook(leaving, backlog))
    assert found == (days if days is NEVER else pytest.approx(days))


@given(
    keep=st.floats(0, 50),
    leaving=st.lists(st.tuples(st.floats(0, 50), st.integers(1, 100)), max_size=10).map(sorted),
    backlog=st.booleans(),
)
def test_the_day_is_the_same_when_each_hour_is_counted(
    keep: float, leaving: list[tuple[float, int]], backlog: bool
) -> None:
    found = days_until_full(100, 24.0, keep * DAY_S, Outlook(tuple(leaving), int(backlog)))
    room, hour = 100.0, 0
    while room > 0 and hour < 24 * 120:
        hour += 1
        room += sum(size for day, size in leaving if hour - 1 <= day * 24 < hour) - 1.0
        room += 1.0 if not backlog and hour / 24 > keep else 0.0  # what came that long ago
    if found is None:
        assert hour == 24 * 120 or room <= 2  # full at the very moment when the first go
    else:
        assert hour / 24 == pytest.approx(found, abs=0.2)


def test_a_target_that_does_not_want_a_recording_does_not_keep_it() -> None:
    one = replace(local(1, 5, "disk"), unwanted=frozenset({"nas"}))
    assert may_go(one, to("disk", "nas"))
    assert not may_go(replace(one, unwanted=frozenset()), to("disk", "nas"))
    assert may_go(replace(one, unwanted=frozenset()), to("disk", optional=("nas",)))
    assert not may_go(local(1, 5), to(optional=("nas",)))
    assert may_go(local(1, 5, "nas"), to(optional=("nas",)))
    assert not may_go(local(1, 5, "a target of old"), to())
    assert not may_go(replace(local(1, 5), unwanted=frozenset({"nas"})), to("nas"))  # somebody has to have it


def test_the_words_name_what_waits() -> None:
    limits = Limits(GB, 14, keep=30 * DAY_S)
    (low,) = decide(Disk(3 * GB, 100 * GB), GB, limits, [], to("disk"), Outlook(backlog=2 * GB)).alarms
    assert "2.0 GB of what lies here must not go, for a target has not got it" in low.text
    assert "earlier than storage.keep_local says" in low.text
