"""What a recording's info file says of it to targets: whole, damaged, or that of a day."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage import info
from tapdeck.storage.about import About, about_of, read_about
from tapdeck.storage.parcel import Parcel
from tests.support import parcels

ENDED = 1_795_000_000.0
INFO = """Datetime: 2026-11-24T10:00:00.123+01:00
DatetimeUtc: 2026-11-24T09:00:00.123Z
RecordingId: abcdefghij
Direction: in
Class: business
Caller: +31612345678
CallerName: Zoë: the 1st
Callee: 2002
CalleeName:
CallId: a84b4c76e66710@pc33
Recorder: instance=tap 1, front desk version=0.1.0 host=tap interfaces=eth1
"""
PARCEL = Parcel("abcdefghij", "2026/11/24/x_abcdefghij", ("2026/11/24/x_abcdefghij_info.txt",), 100, ENDED)


def test_an_info_file_says_what_a_target_may_choose_by() -> None:
    assert about_of(PARCEL, INFO.encode()) == About(
        id="abcdefghij",
        started=1_795_510_800_123_000_000,  # date -u -d 2026-11-24T09:00:00.123Z +%s%N
        caller="+31612345678",
        callee="2002",
        caller_name="Zoë: the 1st",
        direction="in",
        kind="business",
        call_id="a84b4c76e66710@pc33",
        instance="tap 1, front desk",
    )


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2026-11-24T09:00:00", "9999-99-99T00:00:00Z", "٢٠٢٦-11-24T09:00:00Z"]
)
def test_a_time_that_is_none_is_that_of_the_recordings_end(time: str) -> None:
    assert about_of(PARCEL, f"DatetimeUtc: {time}\n".encode()).started == ENDED * 1e9


def test_of_a_key_that_comes_twice_the_first_counts() -> None:
    assert about_of(PARCEL, b"Caller: 2001\nCaller: 666\n").caller == "2001"


@given(st.binary(max_size=200))
def test_no_content_does_harm(content: bytes) -> None:
    about = about_of(PARCEL, content)
    assert about.id
    assert about.direction
    assert not about.of_a_day


def test_what_is_damaged_has_only_the_facts_of_the_parcel() -> None:
    cut = INFO.encode()[:-1]
    assert about_of(PARCEL, cut) == About("abcdefghij", round(ENDED) * 10**9)
    assert about_of(PARCEL, b"A: x\n" * (info.MAX_SIZE // 5 + 1)) == About("abcdefghij", round(ENDED) * 10**9)


def test_it_is_read_from_beside_the_recording(tmp_path: Path) -> None:
    parcel = parcels.record(tmp_path, "abcdefghij", ended=ENDED)
    assert read_about(tmp_path, parcel) == About("abcdefghij", round(ENDED) * 10**9, caller="2001")
    (tmp_path / (parcel.stem + "_info.txt")).unlink()
    with pytest.raises(FileNotFoundError):
        read_about(tmp_path, parcel)


def test_the_checkpoint_of_a_day_has_no_info_file(tmp_path: Path) -> None:
    identity = "tapdeck-day-2026-11-24"
    files = (f"2026/11/24/{identity}.txt", f"2026/11/24/{identity}.SHA256withRSA.sig")
    about = read_about(tmp_path, Parcel(identity, f"2026/11/24/{identity}", files, 100, ENDED))
    assert about == About(identity, round(ENDED) * 10**9, of_a_day=True)
