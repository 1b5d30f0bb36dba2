"""`tapdeck forecast`: the figures that customers are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tapdeck.storage import state


def forecast(*args: str, folder: Path | None = None) -> Result:
    env = {} if folder is None else {f"TAPDECK_STORAGE_{name}": str(folder) for name in ("STATE", "RECORDINGS")}
    return CliRunner(env=env).invoke(cli, ["forecast", *args])


def test_an_estate_agents_day() -> None:
    done = forecast("--minutes-per-day", "300", "--codec", "g711")
    assert done.exit_code == 0
    found = dict(line.strip().rsplit("  ", 1) for line in done.stdout.splitlines() if line.startswith("  "))
    figures = {name.strip(): size.strip() for name, size in found.items()}
    assert figures == {"a day": "288 MB", "a year of 250 days": "72 GB", "5 years": "360 GB", "7 years": "504 GB"}


def test_json_and_other_years() -> None:
    done = forecast("--minutes-per-day", "300", "--days-per-year", "200", "--years", "10", "--json")
    found = json.loads(done.stdout)
    assert found["bytes_per_day"] == 288_000_000
    assert found["years"] == {"10": 576_000_000_000}
    assert (found["codec"], found["bytes_per_second"], found["estimate"]) == ("g711", 16_000, False)


def test_decoded_codecs_are_estimates() -> None:
    found = json.loads(forecast("--minutes-per-day", "1", "--codec", "g722", "--json").stdout)
    assert found["estimate"]
    assert found["bytes_per_second"] > 64_000
    assert "(an estimate)" in forecast("--minutes-per-day", "1", "--codec", "g722").stdout


def test_the_disk_that_is_there(tmp_path: Path) -> None:
    found = json.loads(forecast("--minutes-per-day", "300", "--json", folder=tmp_path).stdout)["disk"]
    assert found["folder"] == str(tmp_path)
    assert found["days_until_full"] == pytest.approx(found["free"] / 288e6, abs=0.1)
    assert f"{tmp_path}: " in forecast("--minutes-per-day", "300", folder=tmp_path).stdout


def test_real_use(tmp_path: Path) -> None:
    assert forecast("--from-status", folder=tmp_path).exit_code == ExitCode.UNREADABLE_INPUT
    state.write(tmp_path, "deliver", {"disk": {"bytes_per_day": 1_000_000_000, "free": 1, "total": 2}})
    found = json.loads(forecast("--from-status", "--json", folder=tmp_path).stdout)
    assert (found["bytes_per_day"], found["days_per_year"]) == (1_000_000_000, 365)
    assert found["years"]["5"] == 5 * 365 * 1_000_000_000
    assert "as this box has recorded lately" in forecast("--from-status", folder=tmp_path).stdout


@pytest.mark.parametrize("damage", ["[]", "{", '{"disk": 3}', '{"disk": {"bytes_per_day": "x"}}'])
def test_a_report_that_makes_no_sense(tmp_path: Path, damage: str) -> None:
    (tmp_path / "deliver.json").write_text(damage)
    assert forecast("--from-status", folder=tmp_path).exit_code == ExitCode.UNREADABLE_INPUT


@pytest.mark.parametrize("args", [(), ("--minutes-per-day", "3", "--from-status"), ("--minutes-per-day", "-1")])
def test_wrong_use(args: tuple[str, ...]) -> None:
    assert forecast(*args).exit_code == ExitCode.USAGE
