"""What is missing and what merely lies elsewhere: folders of days on their own, calls over midnight, a chain that
begins in the midst or anew. `tapdeck verify` and verify.sh say the same.
"""

import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tapdeck.cli.main import cli
from tests.support import sealed
from tests.support.sealed import Box, remove


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> sealed.Key:
    return sealed.key(tmp_path_factory.mktemp("keys"), "days")


@pytest.fixture
def box(key: sealed.Key, tmp_path: Path) -> Box:
    """Three days. The call `long` began on the first and was sealed among those of the second."""
    made = Box(tmp_path / "archive", key)
    for day in range(3):
        for number in range(3):
            made.seal(f"day{day}call{number}", day=day)
            if (day, number) == (1, 0):
                made.seal("long", day=1, folder_day=0)
        made.checkpoint(day)
    for folder in (made.root / "2026/11").iterdir():
        shutil.copy(str(files("tapdeck.storage") / "scripts" / "verify.sh"), folder)
    return made


def day_of(box: Box, day: int) -> Path:
    return box.root / f"2026/11/{24 + day}"


def judged(*paths: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return what is not intact by id or name, and the summary."""
    result = CliRunner().invoke(cli, ["verify", "--json", *map(str, paths)])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found = {one["id"] or Path(one["path"]).name: one["verdict"] for one in lines[:-1] if one["verdict"] != "intact"}
    assert result.exit_code == lines[-1]["summary"]["exit_code"], result.stderr
    return found, lines[-1]["summary"]


def script(folder: Path) -> tuple[list[str], int]:
    """Return what verify.sh says that is not intact, and its exit code."""
    command, environment = ["sh", str(folder / "verify.sh")], {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    assert done.stderr == ""
    words = ("ALTERED", "MISSING", "CANNOT", "elsewhere")
    return [line for line in done.stdout.splitlines() if line.startswith(words)], done.returncode


def alone(folder: Path, to: Path) -> Path:
    """Copy a day's folder to where there is nothing else."""
    return Path(shutil.copytree(folder, to / folder.name))


def test_whole_and_each_day_in_its_place(box: Box) -> None:
    assert judged(box.root)[0] == {}
    for day in range(3):
        assert judged(day_of(box, day))[0] == {}
        assert script(day_of(box, day)) == ([], 0)


def test_a_day_alone_misses_nothing_that_lies_in_another_day_s_folder(box: Box, tmp_path: Path) -> None:
    first, second = (alone(day_of(box, day), tmp_path / "disc") for day in (0, 1))
    second = second.rename(tmp_path / "second")
    found, summary = judged(first)
    assert (found, summary["elsewhere"]) == ({}, {"2026-11-25": 1})
    found, summary = judged(second)
    assert (found, summary["elsewhere"]) == ({}, {"2026-11-24": 1})
    for folder, other in ((first, "2026-11-25"), (second, "2026-11-24")):
        lines, code = script(folder)
        assert (code, len(lines)) == (0, 1)
        assert f"it lies in the folder of {other}" in lines[0]


def test_some_days_of_an_archive(box: Box) -> None:
    assert judged(day_of(box, 0), day_of(box, 2))[0] == {}
    assert judged(day_of(box, 1), day_of(box, 2))[0] == {}


def test_a_call_over_midnight_that_was_removed_is_missing_where_its_day_is_there(box: Box, tmp_path: Path) -> None:
    remove(box.sealed["long"][0])
    second = alone(day_of(box, 1), tmp_path / "disc")
    assert judged(box.root)[0] == {"long": "missing"}
    assert judged(day_of(box, 1))[0] == {"long": "missing"}
    lines, code = script(day_of(box, 1))
    assert (code, [line.split()[:2] for line in lines]) == (1, [["MISSING", "long:"]])
    assert judged(second)[0] == {}, "it may lie on another disc, with its day"


@pytest.mark.parametrize("checkpoints", [True, False])
def test_what_was_removed_from_a_day_alone_is_missing(checkpoints: bool, box: Box, tmp_path: Path) -> None:
    folder = alone(day_of(box, 1), tmp_path / "disc")
    if not checkpoints:
        for path in folder.glob("tapdeck-day-*"):
            path.unlink()
    remove(folder / box.sealed["day1call1"][0].name)
    assert judged(folder)[0] == {"day1call1": "missing"}
    lines, code = script(folder)
    assert code == 1
    assert [line.split()[1] for line in lines if line.startswith("MISSING")] == ["day1call1:"]


def test_a_day_that_was_taken_out_is_missing(box: Box) -> None:
    shutil.rmtree(day_of(box, 1))
    assert set(judged(box.root)[0].values()) == {"missing"}


def test_where_the_chain_begins_is_said(box: Box) -> None:
    for path in box.root.rglob("tapdeck-day-*"):
        path.unlink()
    assert judged(box.root)[1]["begins"] == ""
    remove(box.sealed["day0call0"][0])
    found, summary = judged(box.root)
    assert found == {}
    assert "day0call1; nothing is said of day0call0 of 2026-11-24" in summary["begins"]


def test_a_chain_that_begins_anew_proves_nothing_of_what_was_between(box: Box) -> None:
    before = box.seal("before", day=3)
    box.last = ("", b"")
    anew = box.seal("anew", day=3)
    shutil.copy(day_of(box, 2) / "verify.sh", day_of(box, 3))
    result = CliRunner().invoke(cli, ["verify", str(box.root)])
    lines, code = script(day_of(box, 3))
    assert (result.exit_code, code) == (2, 2)
    words = f"a new chain begins here: whether any were removed between {before.name} and {anew.name} cannot be told"
    assert words in result.stdout
    assert [words in line for line in lines] == [True]


def test_a_clock_that_was_set_back_begins_no_chain(key: sealed.Key, tmp_path: Path) -> None:
    box = Box(tmp_path / "archive", key)
    box.seal("first", day=1)
    for number in range(2):
        box.seal(f"later{number}", folder_day=1)
    shutil.copy(str(files("tapdeck.storage") / "scripts" / "verify.sh"), day_of(box, 1))
    assert judged(box.root)[0] == {}
    assert script(day_of(box, 1)) == ([], 0)
