"""The scripts that lie beside the recordings: verify.sh in the shells that there are, with nothing but OpenSSL; and
verify.ps1, which cannot be run here, as a text.
"""

import os
import random
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support import sealed
from tests.support.damage import DAMAGES, IDS, Damage, Scene, scene
from tests.support.sealed import ENDINGS, SIG, Box, flip, part, remove

SCRIPTS = Path(str(files("tapdeck.storage") / "scripts"))
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "ash": ["busybox", "ash"]}
TOOLS = ("sh", "openssl", "sha256sum", "awk", "sed", "tr", "wc", "cut", "grep", "sort", "head", "tail", "cmp", "cat")
MORE = ("mkdir", "rm", "dirname")


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    if shutil.which(SHELLS[request.param][0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def copied(whole: Scene, tmp_path: Path) -> Scene:
    return whole.copy(tmp_path / "copy")


def tools(folder: Path, names: tuple[str, ...] = (*TOOLS, *MORE)) -> Path:
    """Make a folder with these programs and no others."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name) or "/nonexistent")
    return folder


def run(
    folder: Path, *args: object, shell: list[str] | None = None, path: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run verify.sh as it lies in the folder, in an empty environment."""
    shutil.copy(SCRIPTS / "verify.sh", folder)
    program, *options = shell or ["dash"]
    command = [shutil.which(program) or program, *options, "./verify.sh", *map(str, args)]
    environment = {"PATH": str(path) if path else os.environ["PATH"]}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def said(done: "subprocess.CompletedProcess[str]") -> dict[str, tuple[str, str]]:
    """Return verdict and reason by id, of all that is not intact."""
    words = {"ALTERED": "altered", "MISSING": "missing", "CANNOT BE CHECKED": "cannot be checked"}
    found = {}
    for line in done.stdout.splitlines():
        verdict = words.get(line[:18].strip())
        if verdict:
            name, _, reason = line[19:].partition(": ")
            found[name.rpartition("_")[2]] = (verdict, reason)
    return found


def test_what_was_not_touched_is_intact(whole: Scene, shell: list[str], tmp_path: Path) -> None:
    done = run(whole.folder, shell=shell, path=tools(tmp_path / "bin"))
    assert (done.returncode, said(done), done.stderr) == (0, {}, "")
    assert "6 intact, 0 altered, 0 missing, 0 cannot be checked" in done.stdout
    assert whole.key.fingerprint in done.stdout


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_found_and_rightly_named(damage: Damage, copied: Scene, shell: list[str]) -> None:
    damage.do(copied)
    done = run(copied.folder, shell=shell)
    found = said(done)
    if "renamed" in found:  # all of the recording, or a file that is nobody's now
        found.setdefault(IDS[2], found.pop("renamed"))
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        name: verdict for name, (verdict, _) in damage.expected.items()
    }
    for name, (_, words) in damage.expected.items():
        assert words in found[name][1]
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_single_bit_anywhere_is_found(ending: str, copied: Scene) -> None:
    path = part(copied.stems[2], ending)
    size = 8 * path.stat().st_size
    for bit in {0, size - 1, *random.Random(ending).sample(range(size), 10)}:
        flip(path, bit)
        done = run(copied.folder, path.name)
        assert (done.returncode, list(said(done))) == (1, [IDS[2]]), (bit, done.stdout)
        assert path.name in said(done)[IDS[2]][1]
        flip(path, bit)
    assert run(copied.folder, path.name).returncode == 0


@pytest.mark.parametrize("name", ["tapdeck-day-2026-11-24.txt", "tapdeck-day-2026-11-24.SHA256withRSA.sig"])
def test_a_changed_checkpoint_is_named(name: str, copied: Scene) -> None:
    flip(copied.folder / name, 99)
    done = run(copied.folder)
    assert done.returncode == 1
    assert "ALTERED            tapdeck-day-2026-11-24.txt: " in done.stdout


def test_one_recording_by_any_of_its_files(whole: Scene, shell: list[str]) -> None:
    for path in (*(part(whole.stems[3], ending) for ending in ENDINGS), whole.stems[3]):
        for name in (path.name, path):
            done = run(whole.folder, name, shell=shell)
            assert (done.returncode, said(done)) == (0, {})
            assert "1 intact" in done.stdout


def test_odd_names(whole: Scene, shell: list[str], tmp_path: Path) -> None:
    names = ["-rf a b", "a'b\"c", "$(touch x)`y`", "ü\\n*?[x]", "--", "a&b;c|d", " leading"]
    for number, name in enumerate(names):
        info = f"RecordingId: aaaaaaaa{number:02d}\n".encode()
        sealed.write(tmp_path, name, {".wav": b"RIFF", "_caller.wav": b"x", "_info.txt": info}, whole.key)
    shutil.copy(whole.key.certificate, tmp_path / "tapdeck-certificate.pem")
    before = sorted(os.listdir(tmp_path))
    done = run(tmp_path, shell=shell)
    assert (done.returncode, said(done), done.stderr) == (0, {}, "")
    assert f"{len(names)} intact" in done.stdout
    for name in names:
        assert run(tmp_path, f"./{name}.wav", shell=shell).returncode == 0
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "verify.sh"])
    (tmp_path / f"{names[2]}.wav").write_bytes(b"RIFX")
    assert run(tmp_path, shell=shell).returncode == 1


def test_escape_sequences_do_not_reach_the_terminal(whole: Scene, copied: Scene) -> None:
    sealed.write(
        copied.folder, "a\x1b[2Jb", {"_info.txt": b"RecordingId: \x1b[2J\nPreviousRecording: \x1b]0;x\n"}, whole.key
    )
    assert "\x1b" not in run(copied.folder).stdout


def test_without_a_certificate_nothing_is_proved(copied: Scene) -> None:
    (copied.folder / "tapdeck-certificate.pem").unlink()
    assert run(copied.folder).returncode == 2
    assert run(copied.folder, "-c", copied.key.certificate).returncode == 0
    assert run(copied.folder, "-c", copied.stranger.certificate).returncode == 1


def test_shasum_will_do(whole: Scene, tmp_path: Path) -> None:
    if shutil.which("shasum") is None:
        pytest.skip("shasum is not installed")
    names = tuple(name for name in (*TOOLS, *MORE, "shasum") if name != "sha256sum")
    assert run(whole.folder, path=tools(tmp_path / "bin", names)).returncode == 0


@pytest.mark.parametrize("lacking", [("openssl",), ("sha256sum",)])
def test_what_is_not_installed_is_named(lacking: tuple[str, ...], whole: Scene, tmp_path: Path) -> None:
    names = tuple(name for name in (*TOOLS, *MORE) if name not in lacking)
    done = run(whole.folder, path=tools(tmp_path / "bin", names))
    assert done.returncode == 2
    assert lacking[0] in done.stderr


@pytest.mark.parametrize("args", [["--bogus"], ["nothing"], ["-c"], ["-c", "/nonexistent"], ["verify.sh"]], ids=str)
def test_wrong_use(args: list[str], whole: Scene) -> None:
    done = run(whole.folder, *args)
    assert done.returncode == 64
    assert "Usage: " in done.stderr


@pytest.fixture
def rotated(tmp_path: Path) -> Box:
    old = sealed.key(tmp_path, "old")
    box = Box(tmp_path / "archive", old)
    box.seal("aaaaaaaa00")
    box.rotate(sealed.key(tmp_path, "new", old))
    box.seal("aaaaaaaa01")
    box.seal("aaaaaaaa02", day=1)
    box.seal("aaaaaaaa03", day=1, folder_day=0)
    return box


def test_a_new_key_that_the_old_one_certifies(rotated: Box, shell: list[str]) -> None:
    folder = rotated.root / "2026/11/24"
    done = run(folder, shell=shell)
    assert (done.returncode, said(done)) == (0, {}), "the one that is not here lies in the folder of the next day"
    assert run(folder, "-c", rotated.certificates[1].certificate).returncode == 0
    assert list(said(run(folder, "-c", rotated.certificates[0].certificate))) == ["aaaaaaaa00"]
    remove(rotated.sealed["aaaaaaaa02"][0])
    assert list(said(run(folder, shell=shell))) == ["aaaaaaaa02"]


def test_of_each_key_it_is_said_whether_another_certifies_it(rotated: Box, shell: list[str]) -> None:
    folder = next(path.parent for path in rotated.root.rglob("tapdeck-certificate.pem"))
    lines = [line for line in run(folder, shell=shell).stdout.splitlines() if line.startswith("certificate ")]
    alone = [line.split()[3] for line in lines if line.endswith("no other key here certifies it")]
    assert alone == [rotated.certificates[-1].fingerprint]
    assert len(lines) > len(alone)


def test_a_tombstone_explains_a_gap(tmp_path: Path) -> None:
    box = Box(tmp_path / "archive", sealed.key(tmp_path, "box"))
    for number in range(4):
        box.seal(f"aaaaaaaa{number:02d}")
    box.tombstone("aaaaaaaa01")
    assert list(said(run(box.root / "2026/11/24"))) == ["aaaaaaaa01"]
    box.entries[-1] = (*box.entries[-1][:1], "2026-11-24T20:00:00.000+01:00", *box.entries[-1][2:])
    box.checkpoint(0)
    assert said(run(box.root / "2026/11/24")) == {}


def test_from_a_disc_that_cannot_be_written(whole: Scene, tmp_path: Path) -> None:
    """Only the temporary folder is written to, and it is empty afterwards."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    shutil.copy(SCRIPTS / "verify.sh", whole.folder)
    before = {path.name: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary)}
    command = ["sh", str(whole.folder / "verify.sh")]
    assert subprocess.run(command, cwd="/", env=environment, capture_output=True).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == before
    assert list(temporary.iterdir()) == []


def test_the_scripts_say_what_they_need_and_how_it_is_done_by_hand() -> None:
    for name in ("verify.sh", "verify.ps1"):
        text = (SCRIPTS / name).read_bytes().decode("ascii")
        assert "openssl dgst -sha256 -verify" in text
        assert SIG in text


def test_the_script_for_windows_says_that_it_was_never_run() -> None:
    text = (SCRIPTS / "verify.ps1").read_text("ascii")
    assert "has not been run" in text
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")
