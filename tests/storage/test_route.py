"""Which recordings a target gets, and under which names: whatever the wire has put into names and numbers."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.direction import Own
from tapdeck.storage.about import About
from tapdeck.storage.localtime import Zone
from tapdeck.storage.names import MAX_FOLDER, MAX_NAME, TemplateError
from tapdeck.storage.parcel import Parcel, parcel
from tapdeck.storage.route import Route, Selection, route

START = 1_795_510_800_123_000_000  # 2026-11-24 09:00:00.123 UTC
STEM = "2026/11/24/20261124-090000.123_2001_2002_abcdefghij"
ABOUT = About("abcdefghij", START, "+31201234567", "2002", direction="in", kind="business")
SEAL = ("_hash.txt", "_hash.SHA256withRSA.sig")
DAY = "tapdeck-day-2026-11-24"
UTC = Zone("UTC")

RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}

TEXTS = st.sampled_from(["..", ".", "CON", "lpt1.x", "~$x", "/etc/passwd", "C:\\x", " ", "a."]) | st.text(
    st.one_of(st.sampled_from("/\\.%{}~ _\n\0*:"), st.characters(exclude_categories=())), max_size=300
)
FOLDERS = st.sampled_from(["", "%Y/%m", "{caller}/{callee}", "calls of {caller_name}", "{instance}/{call_id}/%d"])
FILES = st.sampled_from(["", "{id}", "{caller}_{callee}_{id}", "{id} {caller_name} {callee_name} {call_id}"])
ABOUTS = st.builds(
    About,
    id=st.just("abcdefghij"),
    started=st.integers(0, 4_000_000_000 * 10**9),
    caller=TEXTS,
    callee=TEXTS,
    caller_name=TEXTS,
    callee_name=TEXTS,
    direction=TEXTS,
    call_id=TEXTS,
    instance=TEXTS,
)


def recording(*endings: str, stem: str = STEM) -> Parcel:
    return parcel("abcdefghij", [stem + ending for ending in (".wav", "_info.txt", *endings)], 100, START / 1e9)


def day() -> Parcel:
    endings = (".txt", ".SHA256withRSA.sig")
    files = [*(DAY + ending for ending in endings), "tapdeck-certificate.pem", "verify.sh", "verify.ps1"]
    return parcel(DAY, [f"2026/11/24/{name}" for name in files], 100, START / 1e9)


def placed(parcel: Parcel, about: About = ABOUT, folder: str = "", file: str = "") -> dict[str, str]:
    """Where each file goes, by its name here."""
    found = route("nas", folder=folder, file=file, zone=UTC).places(parcel, about)
    assert list(found) == list(parcel.files)
    return {PurePosixPath(here).name: str(there) for here, there in found.items()}


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parcel", [recording(), recording(*SEAL), day()], ids=["unsealed", "sealed", "day"])
def test_without_templates_everything_lies_as_here(parcel: Parcel) -> None:
    assert route("nas").places(parcel, ABOUT) == {file: PurePosixPath(file) for file in parcel.files}


@pytest.mark.parametrize("endings", [(), SEAL], ids=["unsealed", "sealed"])
def test_a_folder_of_its_own_leaves_the_names(endings: tuple[str, ...]) -> None:
    found = placed(recording(*endings), folder="%Y/{direction}")
    assert found == {name: f"2026/in/{name}" for name in found}


def test_unsealed_files_are_renamed() -> None:
    found = placed(recording("_packets.pcapng"), file="{callee} {id}")
    assert sorted(found.values()) == [
        "2026/11/24/2002 abcdefghij.wav",
        "2026/11/24/2002 abcdefghij_info.txt",
        "2026/11/24/2002 abcdefghij_packets.pcapng",
    ]


@pytest.mark.parametrize(("folder", "above"), [("", "2026/11/24"), ("%Y", "2026")])
def test_sealed_files_keep_their_names_in_a_folder_of_their_own(folder: str, above: str) -> None:
    """The signed hash file names them."""
    found = placed(recording(*SEAL), folder=folder, file="{callee} {id}")
    assert found == {name: f"{above}/2002 abcdefghij/{name}" for name in found}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("%Y/%m/%d", "2026/11/24"),
        ("%G week %V", "2026 week 48"),  # date -d 2026-11-24 '+%G week %V'
        ("calls/%Y/{caller}", "calls/2026"),
        ("%Y/{caller}/%d", "2026"),
        ("%Y/%H", "2026"),
        ("{caller}", "."),
        ("", "2026/11/24"),
    ],
)
def test_the_checkpoint_of_a_day_goes_to_the_folder_of_the_day(folder: str, expected: str) -> None:
    found = placed(day(), About(DAY, START, of_a_day=True), folder=folder, file="{callee} {id}")
    assert found == {name: str(PurePosixPath(expected, name)) for name in found}
    assert "verify.sh" in found


def test_times_are_those_of_the_zone() -> None:
    late = About("abcdefghij", START + 14 * 3600 * 10**9 + 59 * 60 * 10**9)  # 23:59 in UTC
    there = route("nas", folder="%Y-%m-%d", file="%H%M {id}", zone=Zone("Europe/Amsterdam"))
    assert str(there.places(recording(), late)[STEM + ".wav"]) == "2026-11-25/0059 abcdefghij.wav"


@given(ABOUTS, FOLDERS, FILES, st.booleans())
def test_nothing_from_the_wire_leaves_the_folder_or_makes_an_illegal_name(
    about: About, folder: str, file: str, sealed: bool
) -> None:
    """Legal on Linux, SMB, OneDrive: no such character, no blank or dot at an end, no name too long, none twice."""
    parcel = recording(*(SEAL if sealed else ()))
    places = route("nas", folder=folder, file=file, zone=UTC).places(parcel, about)
    assert len({str(place).lower() for place in places.values()}) == len(parcel.files)
    for here, place in places.items():
        assert not place.is_absolute()
        for part in place.parts:
            assert part not in (".", "..")
            assert not set('<>:"|?*/\\') & set(part)
            assert part.partition(".")[0].strip().upper() not in RESERVED
            assert not part.startswith("~$")
            assert part.isprintable()
            assert part == part.strip(" ")
            assert not part.endswith(".")
            assert 0 < len(part.encode()) <= 255
        assert len(str(place).encode()) <= MAX_FOLDER + 1 + 2 * MAX_NAME
        if sealed:
            assert place.name == PurePosixPath(here).name
        elif file:
            assert "abcdefghij" in place.name


@pytest.mark.parametrize(
    ("folder", "file"), [("/abs", ""), ("../%Y", ""), ("%Y/..", ""), ("", "{caller}"), ("", "{id}/x"), ("{nope}", "")]
)
def test_templates_that_are_refused(folder: str, file: str) -> None:
    with pytest.raises(TemplateError):
        route("nas", folder=folder, file=file)


# -- selection ---------------------------------------------------------------------------------------------------------


def choosing(classes: str = "", directions: str = "", numbers: str = "") -> Route:
    own = Own(tuple(numbers.split()), country_code="31")
    return route("nas", Selection(frozenset(classes.split()), frozenset(directions.split()), own))


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (choosing(), True),
        (choosing(classes="business private"), True),
        (choosing(classes="private"), False),
        (choosing(directions="in"), True),
        (choosing(directions="out internal"), False),
        (choosing(numbers="+3120*"), True),
        (choosing(numbers="020123????"), True),  # the same, as it is dialled in the country
        (choosing(numbers="2???"), True),  # the callee
        (choosing(numbers="3??? 2???"), True),
        (choosing(numbers="3???"), False),
        (choosing(numbers="2"), False),
        (choosing(classes="business", directions="in", numbers="2002"), True),
        (choosing(classes="business", directions="out", numbers="2002"), False),
    ],
)
def test_a_recording_goes_where_everything_fits(chosen: Route, wanted: bool) -> None:
    assert chosen.wants(ABOUT) is wanted


def test_a_recording_without_a_class_fits_no_class() -> None:
    assert not choosing(classes="business").wants(About("abcdefghij", START))
    assert choosing(directions="unknown").wants(About("abcdefghij", START))


def test_the_checkpoints_of_days_go_to_every_target() -> None:
    nothing = choosing(classes="none", directions="out", numbers="1")
    assert nothing.wants(About(DAY, START, of_a_day=True))


@given(TEXTS.filter(lambda text: not any(char.isdigit() for char in text)))
def test_a_pattern_of_digits_fits_no_text_without_any(text: str) -> None:
    assert not choosing(numbers="+31* 2???").wants(About("abcdefghij", START, caller=text, callee=text))
