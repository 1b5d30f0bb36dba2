"""Folder, file name and id of a recording."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.localtime import Zone
from tapdeck.storage.names import (
    MAX_FOLDER,
    MAX_NAME,
    VARIABLES,
    NameFields,
    TemplateError,
    call_seed,
    naming,
    recording_id,
)

START = 1_795_313_403_449_003_500  # 2026-11-22 02:10:03.449 UTC
CALL = NameFields(START, "abcdefghij", "+31201234567", "*21*0612")
TEXTS = st.text(st.one_of(st.sampled_from("/\\.%{}~ _\n\0*"), st.characters(exclude_categories=())), max_size=300)


def test_the_default_layout() -> None:
    path = naming(zone=Zone("Europe/Amsterdam")).path(CALL)
    assert str(path) == "2026/11/22/20261122-031003.449_+31201234567_star-21-star-0612_abcdefghij"


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("%Y-%m", "{id}", "2026-11/abcdefghij"),
        ("calls/{direction}/%Y", "{id}_{time}", "calls/unknown/2026/abcdefghij_20261122-021003.449"),
        ("{callee}", "%H%M%S {caller} {id}", "star-21-star-0612/021003 +31201234567 abcdefghij"),
        ("%GW%V", "{call_id}-{id}", "2026W47/unknown-abcdefghij"),
        ("{instance}", "{caller_name}.{callee_name}.{id}", "unknown/unknown.unknown.abcdefghij"),
    ],
)
def test_templates(folder: str, name: str, expected: str) -> None:
    assert str(naming(folder, name, Zone("UTC")).path(CALL)) == expected


def test_the_folder_follows_local_time() -> None:
    midnight = NameFields(1_795_313_403_449_003_500 + 21 * 3600 * 10**9, "abcdefghij")
    assert naming(zone=Zone("UTC")).path(midnight).parent == PurePosixPath("2026/11/22")
    assert naming(zone=Zone("Europe/Amsterdam")).path(midnight).parent == PurePosixPath("2026/11/23")


@pytest.mark.parametrize(
    ("folder", "name", "message"),
    [
        ("%Y", "{time}", "lacks {id}"),
        ("%Y", "{tim}_{id}", r"unknown variable \{tim\}; known are \{time\}"),
        ("%Y", "{id.__class__}{id}", "unknown variable"),
        ("%Y", "{{id}}", "lacks {id}"),
        ("%Y", "{id!r}{id}", "unknown variable"),
        ("%Y", "{id:>300}{id}", "unknown variable"),
        ("%Y", "{}{id}", "unknown variable"),
        ("%Y", "{id", "cannot be read"),
        ("%Y/%Q", "{id}", "unknown date field %Q"),
        ("%Y/%", "{id}", "unknown date field %"),
        ("", "{id}", "empty part"),
        ("/srv/calls", "{id}", "empty part"),
        ("%Y//%m", "{id}", "empty part"),
        ("../%Y", "{id}", "Windows or OneDrive"),
        ("%Y/.", "{id}", "Windows or OneDrive"),
        ("%Y", "../{id}", "Windows or OneDrive"),
        ("%Y", "a/{id}", "Windows or OneDrive"),
        ("%Y", "{time}:{id}", "Windows or OneDrive"),
        ("%Y", "{id}.", "Windows or OneDrive"),
        ("CON", "{id}", "Windows or OneDrive"),
        ("%Y\n", "{id}", "Windows or OneDrive"),
        ("%Y", "x" * 200 + "{id}", "too long"),
        ("x" * 100 + "/{caller}{callee}", "{id}", "too long"),
    ],
)
def test_templates_that_are_refused(folder: str, name: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        naming(folder, name)


@given(st.lists(TEXTS, min_size=7, max_size=7))
def test_no_call_leaves_the_root_or_gets_too_long_a_name(texts: list[str]) -> None:
    everything = naming("%Y/{caller_name}/{direction}", "_".join(f"{{{name}}}" for name in VARIABLES), Zone("UTC"))
    fields = NameFields(START, "abcdefghij", *texts)
    for templates in (everything, naming(zone=Zone("UTC"))):
        path = templates.path(fields)
        root = Path("/srv/recordings")
        assert len((root / path).resolve().relative_to(root).parts) == len(path.parts)
        assert len(path.name.encode()) <= MAX_NAME
        assert len(str(path.parent).encode()) <= MAX_FOLDER
        assert path.name.count("_") == (8 if templates is everything else 3)


@given(st.text(max_size=60), st.text(max_size=60), st.integers(-(2**62), 2**62))
def test_an_id_from_a_seed_is_letters_and_stays(call_id: str, tag: str, start: int) -> None:
    seed = call_seed(call_id, tag, start) if (call_id + tag).isprintable() else b"x"
    first = recording_id(seed)
    assert first == recording_id(seed)
    assert len(first) == 10
    assert set(first) <= set("abcdefghijklmnopqrstuvwxyz")


def test_seeds_do_not_run_together() -> None:
    seeds = [call_seed("ab", "c", 1), call_seed("a", "bc", 1), call_seed("ab", "c", 2), call_seed("abc", "", 1)]
    assert len({recording_id(seed) for seed in seeds}) == 4
    assert call_seed("caf\udce9", "", 1) != call_seed("cafe", "", 1)


def test_random_ids_differ() -> None:
    assert len({recording_id() for _ in range(1000)}) == 1000
