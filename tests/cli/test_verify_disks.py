"""Verification, by `tapdeck verify` and by verify.sh, where a disk is odd: links, names, what may not be read, a
certificate or a checkpoint that was tampered with. Both have to say the same.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from tapdeck.storage.trust import BadCertificate, read_certificates
from tests.support import sealed
from tests.support.damage import IDS, Scene, copy_under_another_name, scene
from tests.support.sealed import SIG, flip, part
from tests.support.users import environment, needs_root, python_for_all

NOBODY = 65534
CERTIFICATE = "tapdeck-certificate.pem"
Said = list[tuple[str, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    made = scene(tmp_path_factory.mktemp("sealed"))
    shutil.copy(str(files("tapdeck.storage") / "scripts" / "verify.sh"), made.folder)
    return made


@pytest.fixture
def copied(whole: Scene) -> Iterator[Scene]:
    """A copy that every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield whole.copy(Path(folder) / "copy")


def by_program(root: Path, user: int | None = None) -> tuple[Said, int]:
    """Return verdict and words of all that is not intact, and the exit code."""
    python = python_for_all() if user else sys.executable
    command = [python, "-m", "tapdeck.cli", "verify", "--json", str(root)]
    done = subprocess.run(
        command, env=environment(), user=user, group=user, extra_groups=[] if user else None, capture_output=True
    )
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert "summary" in lines[-1], done.stderr.decode()
    found = [(one["verdict"], f"{one['path']}: {one['reason']}") for one in lines[:-1] if one["verdict"] != "intact"]
    return found, done.returncode


def by_script(folder: Path, user: int | None = None) -> tuple[Said, int]:
    """The same of verify.sh."""
    done = subprocess.run(
        ["sh", str(folder / "verify.sh")],
        env={"PATH": os.environ["PATH"]},
        cwd="/",
        user=user,
        group=user,
        extra_groups=[] if user else None,
        capture_output=True,
    )
    assert done.stderr == b""
    lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line[:18].strip().isupper()]
    return [(line[:18].strip().lower(), line[19:]) for line in lines], done.returncode


def both(copied: Scene, user: int | None = None) -> tuple[Said, Said, int]:
    """Return what both say; they agree in exit code and verdicts."""
    (program, code), (script, also) = by_program(copied.root, user), by_script(copied.folder, user)
    assert code == also, (program, script)
    assert sorted(verdict for verdict, _ in program) == sorted(verdict for verdict, _ in script)
    return program, script, code


@needs_root
@pytest.mark.parametrize("ending", [".wav", "_info.txt", "_hash.txt", SIG])
def test_what_may_not_be_read_is_not_called_altered_or_removed(ending: str, copied: Scene) -> None:
    part(copied.stems[2], ending).chmod(0)
    program, script, code = both(copied, NOBODY)
    assert code == 2
    assert [verdict for verdict, _ in program] == ["cannot be checked"]
    assert IDS[2] in program[0][1]
    assert IDS[2] in script[0][1]


@needs_root
def test_what_lies_in_a_folder_that_may_not_be_read_is_not_called_missing(copied: Scene) -> None:
    other = copied.folder.with_name("25")
    other.mkdir()
    for ending in sealed.ENDINGS:
        os.rename(part(copied.stems[2], ending), other / part(copied.stems[2], ending).name)
    other.chmod(0)
    found, code = by_program(copied.root, NOBODY)
    assert code == 2
    assert {verdict for verdict, _ in found} == {"cannot be checked"}
    assert any("it may lie where nothing could be read" in words for _, words in found)


def test_names_that_are_no_text(copied: Scene) -> None:
    folder = os.fsencode(copied.folder)
    for name in (b"\xff\xfe_info.txt", b"a\nb.wav", b"$(touch x).wav", b"*.wav", b"-rf.wav"):
        with open(folder + b"/" + name, "wb"):
            pass
    program, _, code = both(copied)
    assert code == 2
    assert len(program) == 5
    os.rename(copied.folder, copied.folder.parent / os.fsdecode(b"\xff"))
    assert by_program(copied.root)[1] == 2


def test_a_folder_behind_a_link_is_looked_at_and_a_circle_of_links_ends(copied: Scene) -> None:
    elsewhere = copied.root.parent / "elsewhere"
    os.rename(copied.folder, elsewhere)
    copied.folder.symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(copied.root)
    assert by_program(copied.root) == ([], 0)
    part(copied.stems[2], ".wav").write_bytes(b"")
    assert by_program(copied.root)[1] == 1


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_changed_certificate_is_named_and_the_recordings_are_not_blamed(at: float, copied: Scene) -> None:
    path = copied.folder / CERTIFICATE
    body = path.read_bytes()
    lines = body.splitlines(keepends=True)
    place = sum(map(len, lines[: int(len(lines) * at)])) + 5
    letter = b"A" if body[place : place + 1] != b"A" else b"B"
    path.write_bytes(body[:place] + letter + body[place + 1 :])
    program, script = by_program(copied.root), by_script(copied.folder)
    for found, code in (program, script):
        assert code in (1, 2)
        altered = [words for verdict, words in found if verdict == "altered"]
        assert all(CERTIFICATE in words for words in altered)
        assert sum(verdict == "cannot be checked" for verdict, _ in found) >= len(IDS)
        assert any(
            "ertificate" in words and ("was changed" in words or "no certificate" in words) for _, words in found
        )


def test_a_changed_certificate_shows_where_there_are_good_copies_of_it(copied: Scene) -> None:
    shutil.copytree(copied.folder, copied.folder.with_name("25"))
    path = copied.folder / CERTIFICATE
    flip(path, 8 * (path.stat().st_size // 2) + 1)
    found, code = by_program(copied.root)
    assert code in (1, 2)
    assert [CERTIFICATE in words for _, words in found] == [True]


@pytest.mark.parametrize("folder", [False, True])
def test_a_checkpoint_of_which_the_signature_is_left(folder: bool, copied: Scene) -> None:
    path = copied.folder / "tapdeck-day-2026-11-24.txt"
    path.unlink()
    if folder:
        path.mkdir()
    program, script, code = both(copied)
    assert (code, len(program)) == (1, 1)
    assert f"{path.name} is not there, but its signature is" in program[0][1]
    assert f"{path.name} is not there, but its signature is" in script[0][1]


def test_a_renamed_checkpoint(copied: Scene) -> None:
    for ending in (".txt", ".SHA256withRSA.sig"):
        os.rename(copied.folder / f"tapdeck-day-2026-11-24{ending}", copied.folder / f"tapdeck-day-2026-11-25{ending}")
    program, script, code = both(copied)
    assert code == 1
    assert "it is the checkpoint of 2026-11-24" in program[0][1]
    assert "it is the checkpoint of 2026-11-24" in script[0][1]


def test_a_copy_does_not_put_the_genuine_one_in_doubt(copied: Scene) -> None:
    copy = copy_under_another_name(copied)
    program, script, code = both(copied)
    assert (code, len(program), len(script)) == (1, 1, 1)
    assert copy.name in program[0][1]
    assert copy.name in script[0][1]


def test_no_bit_of_a_certificate_ends_verification(whole: Scene, tmp_path: Path) -> None:
    """Each bit of the parts that say what kind of certificate and key it is, and some of the rest."""
    der = bytearray(sealed.openssl("x509", "-in", whole.key.certificate, "-outform", "DER"))
    good = read_certificates(whole.key.certificate)[0]
    path = tmp_path / CERTIFICATE
    for bit in range(0, 8 * len(der), 5):
        der[bit // 8] ^= 1 << bit % 8
        body = base64.encodebytes(bytes(der))
        der[bit // 8] ^= 1 << bit % 8
        path.write_bytes(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")
        try:
            (changed,) = read_certificates(path)
        except BadCertificate:
            continue
        assert not changed.vouched_by(changed.public) or (changed.body, changed.key) == (good.body, good.key)
        assert changed.fingerprint != good.fingerprint
