"""A kill before any change of a file in the folder of the key, in whatever is done to it: it goes on from there, no key
and no certificate is lost, and the key never gets another certificate.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tapdeck.storage import key_backup
from tapdeck.storage.keys import KeyLocked, KeyRefused, KeyStore
from tapdeck.storage.signature import SigningKey
from tests.support.killed import killed_before

NOW = datetime(2026, 11, 24, tzinfo=UTC)
WORDS = b"correct horse battery staple"
Harm = Callable[[Path], object]


def _store(folder: Path) -> KeyStore:
    return KeyStore(folder / "keys", bits=1024, name="recorder 1")  # small: it is made again and again


def _every_kill(do: Callable[[KeyStore], object], begin: Path, work: Path) -> Iterator[KeyStore]:
    """Yield the folder as each kill leaves it."""
    for number in range(200):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(begin, work)
        store = _store(work)
        killed = killed_before(number, lambda store=store: do(store), work)  # type: ignore[misc]
        yield store
        if not killed:
            assert number > 5, "nothing was watched"
            return
    raise AssertionError("it never ended")


def _opened(store: KeyStore) -> str:
    """Return the fingerprint of the key, empty if it is locked."""
    try:
        return store.open().fingerprint
    except KeyLocked:
        return ""


def test_the_first_start(tmp_path: Path) -> None:
    (tmp_path / "begin").mkdir()
    for store in _every_kill(KeyStore.open, tmp_path / "begin", tmp_path / "work"):
        first = store.open()
        assert store.open().fingerprint == first.fingerprint
        assert first.bundle.count(b"BEGIN CERTIFICATE") == 1


def test_rotation(tmp_path: Path) -> None:
    first = _store(tmp_path / "begin").open()
    outcomes = set()
    for store in _every_kill(lambda store: store.rotate(NOW), tmp_path / "begin", tmp_path / "work"):
        key = store.open()
        new = key.fingerprint != first.fingerprint
        outcomes.add(new)
        assert key.bundle.count(b"BEGIN CERTIFICATE") == (3 if new else 1)
        assert key.signed(first.sign(b"text"), b"text")
        assert store.rotate(NOW).bundle.count(b"BEGIN CERTIFICATE") == (5 if new else 3)
    assert outcomes == {True, False}


def _remove_both(keys: Path) -> None:
    (keys / "key.pem").unlink()
    (keys / "certificate.pem").unlink()


HARMS: dict[str, Harm] = {
    "key missing": lambda keys: (keys / "key.pem").unlink(),
    "key damaged": lambda keys: (keys / "key.pem").write_bytes(b"rubbish"),
    "passphrase forgotten": lambda keys: (keys / "passphrase").write_text("another\n"),
    "certificate missing": lambda keys: (keys / "certificate.pem").unlink(),
    "all missing": _remove_both,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_replacement(harm: str, tmp_path: Path) -> None:
    begin = _store(tmp_path / "begin")
    begin.open()
    before = begin.rotate(NOW)
    HARMS[harm](begin.folder)
    kept = 2 if "certificate" in harm or harm == "all missing" else 3
    for store in _every_kill(lambda store: store.replace_lost(NOW), tmp_path / "begin", tmp_path / "work"):
        fingerprint = _opened(store)
        assert fingerprint != before.fingerprint
        key = store.open() if fingerprint else store.replace_lost(NOW)
        assert key.bundle.count(b"BEGIN CERTIFICATE") >= kept + 1
        assert store.open().fingerprint == key.fingerprint
        if (begin.folder / "key.pem").exists():
            old = (begin.folder / "key.pem").read_bytes()
            assert any(path.read_bytes() == old for path in store.folder.glob("old/*-key.pem"))


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("harm", [*HARMS, "another box"])
def test_a_restore(harm: str, rotated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backup, "_ROUNDS", 1000)  # what a thief has to go through is not in question here
    begin, file = _store(tmp_path / "begin"), tmp_path / "key.p12"
    before = begin.open()
    if rotated:
        before = begin.rotate(NOW)
    key_backup.backup(begin, file, WORDS)
    if harm == "another box":
        shutil.rmtree(begin.folder)
    else:
        HARMS[harm](begin.folder)

    def restore(store: KeyStore) -> str:
        return key_backup.restore(store, file, WORDS).fingerprint

    for again in (True, False):
        for store in _every_kill(restore, tmp_path / "begin", tmp_path / "work"):
            if again:
                _restored(store, restore, before)
            else:
                fingerprint = _opened(store)
                assert fingerprint in ("", before.fingerprint) or not store.open().signed(before.sign(b"text"), b"text")


def _restored(store: KeyStore, restore: Callable[[KeyStore], str], before: SigningKey) -> None:
    """A second restore brings it to its end, or finds that there is nothing left to do."""
    with suppress(KeyRefused):
        restore(store)
    assert store.open().fingerprint == before.fingerprint
    assert store.open().bundle == before.bundle
