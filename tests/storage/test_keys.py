"""The key that seals: made once, never lost by us, and checked with the real OpenSSL."""

import os
import stat
import subprocess
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from tapdeck.storage import key_backup
from tapdeck.storage.keys import KeyLocked, KeyRefused, KeyStore
from tapdeck.storage.signature import SigningKey
from tests.support.sealed import openssl

NOW = datetime(2026, 11, 24, 12, 0).astimezone()
WORDS = b"correct horse battery"


def _store(folder: Path) -> KeyStore:
    return KeyStore(folder / "keys", name="mains street")


def _fingerprint(certificate: Path) -> str:
    shown = openssl("x509", "-in", certificate, "-noout", "-fingerprint", "-sha256").decode()
    return shown.strip().partition("=")[2].replace(":", "").lower()


def _openssl_verifies(key: SigningKey, folder: Path, certificate: Path) -> bool:
    text, signature, public = folder / "text", folder / "text.sig", folder / "public.pem"
    text.write_bytes(b"some text")
    signature.write_bytes(key.sign(b"some text"))
    public.write_bytes(openssl("x509", "-in", certificate, "-pubkey", "-noout"))
    done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", public, "-signature", signature, text])
    return done.returncode == 0


def _certified(folder: Path, certificate: Path, by: Path) -> bool:
    done = subprocess.run(["openssl", "verify", "-CAfile", by, certificate], capture_output=True, cwd=folder)
    return done.returncode == 0


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_first_use_makes_a_key_that_openssl_knows(tmp_path: Path) -> None:
    key = _store(tmp_path).open()
    folder = tmp_path / "keys"
    assert _fingerprint(folder / "certificate.pem") == key.fingerprint
    assert _openssl_verifies(key, tmp_path, folder / "certificate.pem")
    assert _certified(tmp_path, folder / "certificate.pem", folder / "certificate.pem")
    subject = openssl("x509", "-in", folder / "certificate.pem", "-noout", "-subject").decode()
    assert "mains street" in subject
    text = openssl("x509", "-in", folder / "certificate.pem", "-noout", "-text").decode()
    assert "Public-Key: (3072 bit)" in text


def test_nobody_else_may_read_the_key_and_it_is_encrypted(tmp_path: Path) -> None:
    _store(tmp_path).open()
    folder = tmp_path / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert _modes(folder) == {"key.pem": 0o600, "passphrase": 0o600, "certificate.pem": 0o644}
    assert (folder / "key.pem").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    structure = openssl("asn1parse", "-in", folder / "key.pem").decode()
    assert "aes-256-cbc" in structure
    opened = openssl("pkey", "-in", folder / "key.pem", "-passin", f"file:{folder / 'passphrase'}", "-noout", "-text")
    assert b"Private-Key: (3072 bit" in opened


def test_a_second_use_opens_the_same_key(tmp_path: Path) -> None:
    store = _store(tmp_path)
    first, stamp = store.open(), store.stamp()
    assert store.open().fingerprint == first.fingerprint
    assert store.stamp() == stamp


def test_a_named_passphrase_file_and_a_credential_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tmp_path / "words"
    words.write_text("from a file\n")
    store = KeyStore(tmp_path / "keys", words)
    store.open()
    assert not (tmp_path / "keys/passphrase").exists()
    openssl("pkey", "-in", tmp_path / "keys/key.pem", "-passin", "pass:from a file", "-noout")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "tapdeck-passphrase").write_text("from systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    with pytest.raises(KeyLocked, match=r"passphrase is wrong.*credentials/tapdeck-passphrase"):
        store.open()
    KeyStore(tmp_path / "others").open()
    openssl("pkey", "-in", tmp_path / "others/key.pem", "-passin", "pass:from systemd", "-noout")


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (lambda keys: (keys / "passphrase").write_text("no\n"), "the passphrase is wrong"),
        (lambda keys: (keys / "passphrase").unlink(), "the passphrase is missing"),
        (lambda keys: (keys / "key.pem").unlink(), "the key is missing"),
        (lambda keys: (keys / "key.pem").write_bytes(b"rubbish"), "the key cannot be read"),
        (lambda keys: (keys / "certificate.pem").write_bytes(b"rubbish"), "the certificate cannot be read"),
    ],
)
def test_a_key_that_cannot_be_opened_says_why_and_is_not_made_anew(tmp_path: Path, harm: object, cause: str) -> None:
    store = _store(tmp_path)
    store.open()
    assert callable(harm)
    harm(tmp_path / "keys")
    before = {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    with pytest.raises(KeyLocked) as caught:
        store.open()
    assert caught.value.cause == cause
    assert str(tmp_path / "keys") in caught.value.cure
    assert {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == before


def test_a_first_start_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.open()
    (tmp_path / "keys/certificate.pem").unlink()
    (tmp_path / "keys/key.pem").unlink()
    words = (tmp_path / "keys/passphrase").read_bytes()
    store.open()
    assert (tmp_path / "keys/passphrase").read_bytes() == words


def test_a_certificate_that_is_missing_is_not_made_anew_but_can_be_put_back(tmp_path: Path) -> None:
    """Another one over the same key would have another fingerprint than the one that was noted."""
    store = _store(tmp_path)
    key = store.open()
    (tmp_path / "keys/certificate.pem").unlink()
    with pytest.raises(KeyLocked, match=r"tapdeck-certificate\.pem of the last day folder"):
        store.open()
    first = key.bundle.partition(b"-----END CERTIFICATE-----\n")
    (tmp_path / "keys/certificate.pem").write_bytes(first[0] + first[1])
    assert store.open().fingerprint == key.fingerprint


def test_rotation_has_the_old_key_certify_the_new_one(tmp_path: Path) -> None:
    store, folder = _store(tmp_path), tmp_path / "keys"
    first = store.open()
    second = store.rotate(NOW)
    third = store.rotate(NOW)
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3
    assert _fingerprint(folder / "old/001-certificate.pem") == first.fingerprint
    assert _fingerprint(folder / "old/002-certificate.pem") == second.fingerprint
    assert _certified(tmp_path, folder / "old/001-cross.pem", folder / "old/001-certificate.pem")
    assert _certified(tmp_path, folder / "old/002-cross.pem", folder / "old/002-certificate.pem")
    for name, certificate in (("001", folder / "old/002-certificate.pem"), ("002", folder / "certificate.pem")):
        cross = openssl("x509", "-in", folder / f"old/{name}-cross.pem", "-pubkey", "-noout")
        assert cross == openssl("x509", "-in", certificate, "-pubkey", "-noout")
    order = third.bundle.split(b"-----END CERTIFICATE-----\n")[:-1]
    assert len(order) == 5
    assert third.bundle.startswith((folder / "certificate.pem").read_bytes())
    assert third.bundle.endswith((folder / "old/001-certificate.pem").read_bytes())
    assert store.history() == "rotated"
    assert third.signed(first.sign(b"text"), b"text")
    assert not third.signed(first.sign(b"text"), b"another")


@pytest.mark.parametrize("moment", range(12))
def test_a_rotation_that_is_killed_leaves_the_old_key_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    store, folder = _store(tmp_path), tmp_path / "keys"
    first = store.open()

    class Killed(BaseException):
        pass

    left = [2 * moment]

    def counted(real: object) -> object:
        def step(*args: object, **how: object) -> object:
            if not left[0]:
                raise Killed
            left[0] -= 1
            assert callable(real)
            return real(*args, **how)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        patch.setattr(os, "fsync", counted(os.fsync))
        with suppress(Killed):
            store.rotate(NOW)
    after = store.open()
    certificates = after.bundle.count(b"BEGIN CERTIFICATE")
    assert certificates == (1 if after.fingerprint == first.fingerprint else 3)
    assert not list(folder.glob(".next*"))
    assert store.rotate(NOW).bundle.count(b"BEGIN CERTIFICATE") == certificates + 2


def test_a_lost_key_is_replaced_and_the_new_one_certifies_the_old(tmp_path: Path) -> None:
    store, folder = _store(tmp_path), tmp_path / "keys"
    first = store.open()
    with pytest.raises(KeyRefused, match="rotate"):
        store.replace_lost(NOW)
    (folder / "passphrase").write_text("forgotten\n")
    lost = (folder / "key.pem").read_bytes()
    second = store.replace_lost(NOW)
    assert second.fingerprint != first.fingerprint
    assert (folder / "old/001-key.pem").read_bytes() == lost
    assert _fingerprint(folder / "old/001-certificate.pem") == first.fingerprint
    assert _certified(tmp_path, folder / "old/001-lost.pem", folder / "certificate.pem")
    assert store.history() == "replaced"
    assert store.rotate(NOW).bundle.count(b"BEGIN CERTIFICATE") == 5
    assert store.history() == "rotated"


def test_without_any_key_there_is_nothing_to_replace(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="no key"):
        _store(tmp_path).replace_lost(NOW)


def test_a_backup_brings_key_and_certificates_back(tmp_path: Path) -> None:
    store, file = _store(tmp_path), tmp_path / "key.p12"
    store.open()
    key = store.rotate(NOW)
    key_backup.backup(store, file, WORDS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = openssl("pkcs12", "-in", file, "-passin", f"pass:{WORDS.decode()}", "-nodes")
    assert shown.count(b"BEGIN CERTIFICATE") == 3
    assert shown.count(b"PRIVATE KEY-----") == 2
    other = KeyStore(tmp_path / "elsewhere")
    restored = key_backup.restore(other, file, WORDS)
    assert restored.sign(b"text") == key.sign(b"text")
    assert restored.bundle == key.bundle


def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    store, file = _store(tmp_path), tmp_path / "key.p12"
    store.open()
    with pytest.raises(KeyRefused, match="12 characters"):
        key_backup.backup(store, file, b"short")
    assert not file.exists()
    key_backup.backup(store, file, WORDS)
    content = file.read_bytes()
    with pytest.raises(KeyRefused, match="exists"):
        key_backup.backup(store, file, WORDS)
    assert file.read_bytes() == content
    with pytest.raises(KeyRefused, match="nothing to restore"):
        key_backup.restore(store, file, WORDS)


def test_a_restore_needs_the_passphrase_and_the_right_backup(tmp_path: Path) -> None:
    store, file = _store(tmp_path), tmp_path / "key.p12"
    key = store.open()
    key_backup.backup(store, file, WORDS)
    (tmp_path / "keys/key.pem").unlink()
    with pytest.raises(KeyRefused, match="passphrase is wrong"):
        key_backup.restore(store, file, b"something else")
    assert key_backup.restore(store, file, WORDS).fingerprint == key.fingerprint
    store.rotate(NOW)
    (tmp_path / "keys/key.pem").unlink()
    with pytest.raises(KeyRefused, match="before a rotation"):
        key_backup.restore(store, file, WORDS)
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"rubbish")
    with pytest.raises(KeyRefused, match="no backup"):
        key_backup.restore(store, rubbish, WORDS)


def test_a_forgotten_passphrase_is_no_loss_where_there_is_a_backup(tmp_path: Path) -> None:
    store, file = _store(tmp_path), tmp_path / "key.p12"
    key = store.open()
    key_backup.backup(store, file, WORDS)
    (tmp_path / "keys/passphrase").write_text("another\n")
    assert key_backup.restore(store, file, WORDS).fingerprint == key.fingerprint
    assert store.open().fingerprint == key.fingerprint
    assert (tmp_path / "keys/old/001-key.pem").exists()
