"""The package as others get it: a wheel with all five rooms and nothing else, and an editable install."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("sniffer", "rtp", "sip", "storage", "cli")


def run(*command: str | Path, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it from a copy of the working tree: setuptools writes into the tree it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "tree"
    copy.mkdir()
    parts = [*ROOMS, "src", "tests", "fixtures", "pyproject.toml", "README.md", "LICENSE"]
    # Links stay links: that they survive a copy is what the layout rests on.
    run("cp", "-R", "-P", *(ROOT / part for part in parts), copy, cwd=folder)
    run("find", copy, "-name", "*.egg-info", "-prune", "-exec", "rm", "-r", "{}", "+", cwd=folder)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, copy, cwd=folder)
    return next(folder.glob("tapdeck-*.whl"))


def test_the_wheel_holds_the_five_rooms_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tapdeck"}
    assert {name.split("/")[1] for name in names if name.startswith("tapdeck/")} == {"__init__.py", "py.typed", *ROOMS}
    for room in ROOMS:
        inside = {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py")}
        assert {name.removeprefix("tapdeck/") for name in names if name.startswith(f"tapdeck/{room}/")} >= inside
    assert {"tapdeck/storage/scripts/verify.sh", "tapdeck/storage/scripts/verify.ps1"} <= set(names)


def test_the_wheel_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=tmp_path)
    imports = "; ".join(f"import tapdeck.{room}" for room in ROOMS)
    where = run(python, "-c", f"{imports}; print(tapdeck.cli.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path / "venv")
    every = (
        "import importlib, pkgutil, tapdeck\n"
        "for module in pkgutil.walk_packages(tapdeck.__path__, 'tapdeck.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)"
    )
    run(python, "-c", every, cwd=tmp_path)
    assert run(tmp_path / "venv" / "bin" / "tapdeck", "--version", cwd=tmp_path).startswith("tapdeck, version ")


def test_the_rooms_are_linked_into_one_import_package() -> None:
    for room in ROOMS:
        assert os.readlink(ROOT / "src" / "tapdeck" / room) == f"../../{room}"
