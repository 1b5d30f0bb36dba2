"""Payloads fetched back from files, in any order and number."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapdeck.sniffer.sources import payloads as module
from tapdeck.sniffer.sources.payloads import Payloads

CONTENT = bytes(number * 7 % 251 for number in range(20_000))


def columns(entries: list[tuple[int, int]], bases: list[int]) -> tuple[np.ndarray, np.ndarray]:
    position = [bases[which % len(bases)] + offset for which, (offset, _) in enumerate(entries)]
    return np.array(position, dtype=np.int64), np.array([size for _, size in entries], dtype=np.int64)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.lists(st.tuples(st.integers(0, 19_000), st.integers(0, 1000)), max_size=40),
    window=st.sampled_from([512, 1 << 25]),
)
def test_any_places_of_several_files(entries: list[tuple[int, int]], window: int, tmp_path: Path) -> None:
    """Two files and the scratch file; small windows, so that copies go from one to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", window)
        store = Payloads(tmp_path)
        path = tmp_path / "content"
        path.write_bytes(CONTENT)
        spool, spooled = store.spool()
        spool.write(CONTENT)
        bases = [store.add(path.open("rb")), spooled, store.stash(CONTENT)]
        assert store.fetch(*columns(entries, bases)) == [CONTENT[offset : offset + size] for offset, size in entries]
    assert [entry.name for entry in tmp_path.iterdir()] == ["content"], "spools have no names"


def test_what_is_stashed_later_is_found_too(tmp_path: Path) -> None:
    """The scratch file grows after it was read from."""
    store = Payloads(tmp_path)
    first = store.stash(b"first")
    assert store.fetch(*columns([(0, 5)], [first])) == [b"first"]
    second = store.stash(b"second" * 10_000)
    assert store.fetch(*columns([(0, 60_000)], [second])) == [b"second" * 10_000]


def test_nothing_to_fetch(tmp_path: Path) -> None:
    assert Payloads(tmp_path).fetch(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)) == []
    assert isinstance(Payloads(tmp_path).spool()[0], io.IOBase)
