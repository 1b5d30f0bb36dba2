"""Verification of what the recorder's own keys sealed and its own log names: openssl and the scripts agree."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tapdeck.cli.main import cli
from tapdeck.storage.keys import KeyStore
from tapdeck.storage.ledger import Ledger, New, Pending
from tapdeck.storage.signature import SigningKey
from tapdeck.storage.trust import certified, read_certificates
from tapdeck.storage.verify import Report, verify
from tests.support.sealed import SIG, Box, Key, by_hand, flip, part, remove

NOW = datetime.fromisoformat("2026-11-24T12:00:00+01:00")


@dataclass
class Real:
    """A box that seals with the key of a KeyStore."""

    folder: Path
    store: KeyStore
    box: Box

    @property
    def day(self) -> Path:
        return self.box.root / "2026/11/24"

    def use(self, key: SigningKey) -> Key:
        """Seal with this key from now on; the certificates beside the recordings are the store's."""
        files = Key(self.folder / f"{key.fingerprint}.key", self.folder / f"{key.fingerprint}.pem")
        files.private.write_bytes(key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        files.certificate.write_bytes(key.bundle)
        self.box.key, self.box.certificates = files, [files]
        for pem in self.box.root.rglob("tapdeck-certificate.pem"):
            pem.write_bytes(key.bundle)
        return files

    def log(self) -> Path:
        path = self.folder / "ledger.sqlite"
        ledger = Ledger(path)
        ledger.append(New("configuration", facts={"what": "settings of the seal stage"}))
        previous = ("", b"")
        for identity, (stem, digest) in self.box.sealed.items():
            sealed = dict(
                line.split(": ", 1) for line in part(stem, "_info.txt").read_text().splitlines() if ": " in line
            )
            pending = Pending(identity, sealed["SealedAt"], *previous)
            ledger.begin(pending)
            ledger.finish(pending, digest, part(stem, SIG).read_bytes(), "2026-11-24")
            previous = ledger.previous()
        ledger.close()
        return path


@pytest.fixture
def real(tmp_path: Path) -> Real:
    store = KeyStore(tmp_path / "keys", name="recorder 1")
    made = Real(tmp_path, store, Box(tmp_path / "archive", Key(tmp_path, tmp_path)))
    made.use(store.open())
    return made


@pytest.fixture
def judged() -> Iterator[list[Report]]:
    reports: list[Report] = []
    yield reports
    for report in reports:
        report.findings.close()


def script(real: Real, *args: str | Path) -> int:
    shutil.copy(str(files("tapdeck.storage") / "scripts" / "verify.sh"), real.day)
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(["sh", "./verify.sh", *args], cwd=real.day, env=environment, capture_output=True).returncode


def test_made_rotated_and_logged(real: Real, judged: list[Report]) -> None:
    old = real.box.key
    stems = [real.box.seal("aaaaaaaa00"), real.box.seal("aaaaaaaa01")]
    new = real.use(real.store.rotate(NOW))
    stems += [real.box.seal("aaaaaaaa02"), real.box.seal("aaaaaaaa03")]
    assert by_hand(stems[0], old.certificate)
    assert by_hand(stems[3], new.certificate)
    judged.append(verify([real.box.root], ledger=real.log()))
    judged.append(verify([real.box.root], [old.certificate]))
    judged.append(verify([real.box.root], [new.certificate]))
    assert [(one.worst, list(one.each())) for one in judged] == [("intact", [])] * 3
    assert [script(real), script(real, "-c", old.certificate), script(real, "-c", new.certificate)] == [0, 0, 0]
    told = [
        line for line in CliRunner().invoke(cli, ["verify", str(real.box.root)]).stdout.splitlines() if "CN=" in line
    ]
    counts = [line.partition(": ")[2].partition(";")[0] for line in told]
    assert sorted(counts) == ["2 signed", "2 signed", "the same key"], "the new key has two certificates"
    flip(part(stems[1], ".wav"), 1000)
    assert script(real) == 1


def test_a_key_that_was_lost_and_replaced(real: Real, judged: list[Report]) -> None:
    real.box.seal("aaaaaaaa00")
    (real.store.folder / "key.pem").unlink()
    new = real.use(real.store.replace_lost(NOW))
    real.box.seal("aaaaaaaa01")
    judged.append(verify([real.box.root]))
    judged.append(verify([real.box.root], [new.certificate]))
    assert [one.worst for one in judged] == ["intact", "intact"]
    assert script(real) == 0
    found = list(judged[0].certificates.values())
    assert certified(found) == {one.key for one in found} - {one.key for one in read_certificates(new.certificate)[:1]}


def test_its_log_is_read_while_it_is_written_and_edits_show(real: Real, judged: list[Report]) -> None:
    stems = [real.box.seal(f"aaaaaaaa{number:02d}") for number in range(3)]
    path = real.log()
    ledger = Ledger(path)
    remove(stems[2])
    ledger.tombstone("aaaaaaaa02", real.box.sealed["aaaaaaaa02"][1], "order", "admin", real.store.open().sign)
    judged.append(verify([real.box.root], ledger=path))
    ledger.close()
    assert (judged[0].worst, list(judged[0].each())) == ("intact", [])
    with sqlite3.connect(path) as base:
        base.execute("DROP TRIGGER no_update")
        base.execute("UPDATE entries SET hash = ? WHERE seq = 3", (hashlib.sha256(b"").hexdigest(),))
    base.close()
    judged.append(verify([real.box.root], ledger=path))
    said = {one.kind: one.reason for one in judged[1].each()}
    assert judged[1].worst == "altered"
    assert said["log"].startswith("entry 3 (recording")
