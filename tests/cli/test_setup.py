"""`tapdeck setup`: from questions, or a file of answers, to a configuration that is good."""

from __future__ import annotations

import re
import stat
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli import setup as command
from tapdeck.cli.candidates import Candidate
from tapdeck.cli.config import load
from tapdeck.cli.config_file import as_file
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.cli.main import cli
from tapdeck.cli.settings import OwnSettings, RecordingSettings, Settings
from tapdeck.sniffer.sources.interfaces import Counters, Interface
from tapdeck.sniffer.traffic import Traffic

MIRROR = Traffic(frames=100, foreign=90, methods={"INVITE": 1})


def interface(name: str, **changes: Any) -> Interface:
    plain = Interface(
        name, 1, "ethernet", 1, "igb", "0000:01:00.0", True, True, "02:00:00:00:00:09", 1500, (), False, _COUNTERS, {}
    )
    return replace(plain, **changes)


_COUNTERS = Counters(0, 0, 0, 0, 0, 0)
FOUND = [
    Candidate(interface("eth1"), 90.0, MIRROR),
    Candidate(interface("eth2"), 1.0, Traffic(frames=10, group=10)),
    Candidate(interface("eth0", default_route=True, addresses=("192.0.2.1",)), 5.0, Traffic(frames=10, own=10)),
]


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Candidate]:
    """What the machine's interfaces are; a test may change it."""
    found = list(FOUND)
    monkeypatch.setattr(command, "candidates", lambda seconds: found)
    return found


def setup(output: Path, *args: str | Path, answers: list[str] | None = None) -> Result:
    text = "".join(f"{line}\n" for line in answers or ())
    return CliRunner().invoke(cli, ["setup", "--output", str(output), *map(str, args)], input=text)


# -- questions ---------------------------------------------------------------------------------------------------------


def test_enter_all_the_way(tmp_path: Path) -> None:
    output = tmp_path / "new" / "tapdeck.toml"
    done = setup(output, answers=[""] * 6)
    assert done.exit_code == 0, done.output
    assert load(output, environ={}).capture.interfaces == ("eth1",)
    assert replace(load(output, environ={}), source="", capture=Settings().capture) == Settings()
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert f"tapdeck doctor --config {output}" in done.output


def test_answers_are_taken(tmp_path: Path) -> None:
    output = tmp_path / "tapdeck.toml"
    answers = ["eth1, eth2", "+3120123*, 2???", "31", "192.168.0.0/16, 10.0.0.0/8", "/srv/calls", "/mnt/archive"]
    assert setup(output, answers=answers).exit_code == 0
    settings = load(output, environ={})
    assert settings.capture.interfaces == ("eth1", "eth2")
    assert settings.own == OwnSettings(("+3120123*", "2???"), ("192.168.0.0/16", "10.0.0.0/8"), "31")
    assert (settings.storage.recordings, settings.deliver.folder) == ("/srv/calls", "/mnt/archive")


def test_a_bad_answer_is_asked_again_and_a_good_one_never(tmp_path: Path) -> None:
    output = tmp_path / "tapdeck.toml"
    answers = ["eth9", "eth1", "2???", "+31", "31", "300.0.0.0/8", "", "calls", "/srv/calls", "none"]
    done = setup(output, answers=answers)
    assert done.exit_code == 0, done.output
    settings = load(output, environ={})
    assert (settings.own.country_code, settings.storage.recordings) == ("31", "/srv/calls")
    asked = re.findall(r"(Interface|Own numbers|Own country|Own networks|Folder for|Folder that)", done.output)
    assert asked == [
        *["Interface"] * 2,
        "Own numbers",
        *["Own country"] * 2,
        *["Own networks"] * 2,
        *["Folder for"] * 2,
        "Folder that",
    ]


def test_the_likeliest_interface_is_the_default_and_the_management_card_never(
    tmp_path: Path, heard: list[Candidate]
) -> None:
    heard[:] = FOUND[2:]
    done = setup(tmp_path / "a.toml", answers=["", "eth0", *[""] * 5])
    assert done.exit_code == 0, done.output
    assert done.output.count("Interface of the mirror port") == 2


def test_an_end_of_the_answers_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "tapdeck.toml"
    assert setup(output, answers=["eth1"]).exit_code == ExitCode.INTERRUPTED
    assert list(tmp_path.iterdir()) == []


# -- unattended --------------------------------------------------------------------------------------------------------


def answered(tmp_path: Path, text: str, *args: str) -> Result:
    (tmp_path / "answers.toml").write_text(text)
    return setup(tmp_path / "tapdeck.toml", "--answers", tmp_path / "answers.toml", *args)


def test_a_file_of_answers(tmp_path: Path) -> None:
    done = answered(tmp_path, '[capture]\ninterfaces = ["eth7"]\nring_mb = 64\n[own]\nnumbers = ["2???"]\n')
    assert done.exit_code == 0, done.output
    settings = load(tmp_path / "tapdeck.toml", environ={})
    assert (settings.capture.interfaces, settings.capture.ring_mb) == (("eth7",), 64)
    assert settings.own.numbers == ("2???",)
    again = answered(tmp_path, (tmp_path / "tapdeck.toml").read_text())
    assert (again.exit_code, "is so already" in again.output) == (0, True)
    assert not (tmp_path / "tapdeck.toml.bak").exists()


def test_without_an_interface_the_mirror_is_found(tmp_path: Path, heard: list[Candidate]) -> None:
    assert answered(tmp_path, "").exit_code == 0
    assert load(tmp_path / "tapdeck.toml", environ={}).capture.interfaces == ("eth1",)
    (tmp_path / "tapdeck.toml").unlink()
    for found, words in (
        ([*FOUND, replace(FOUND[0], interface=interface("eth5"))], "several"),
        (FOUND[1:], "none shows"),
    ):
        heard[:] = found
        done = answered(tmp_path, "")
        assert (done.exit_code, words in done.output) == (ExitCode.CONFIG, True)
    assert not (tmp_path / "tapdeck.toml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[own]\nnumbrs = ["1"]', "did you mean numbers?"),
        ("[onw]", "did you mean own?"),
        ('[own]\nnetworks = ["x"]', "own.networks"),
        ('[capture]\nring_mb = "much"', "ring_mb"),
        ("nonsense", "not TOML"),
    ],
)
def test_wrong_answers_are_refused(tmp_path: Path, text: str, words: str) -> None:
    done = answered(tmp_path, text)
    assert (done.exit_code, words in done.output) == (ExitCode.CONFIG, True)
    assert not (tmp_path / "tapdeck.toml").exists()


def test_no_file_of_answers(tmp_path: Path) -> None:
    assert setup(tmp_path / "a", "--answers", tmp_path / "none").exit_code == ExitCode.CONFIG


# -- what is there already ---------------------------------------------------------------------------------------------


def test_an_existing_file_is_refused_or_kept(tmp_path: Path) -> None:
    output = tmp_path / "tapdeck.toml"
    output.write_text("# mine\n")
    for done in (setup(output, answers=[""] * 6), answered(tmp_path, '[capture]\ninterfaces = ["eth1"]')):
        assert (done.exit_code, "--force" in done.output) == (ExitCode.CANNOT_WRITE, True)
    assert output.read_text() == "# mine\n"
    assert answered(tmp_path, '[capture]\ninterfaces = ["eth1"]', "--force").exit_code == 0
    assert (tmp_path / "tapdeck.toml.bak").read_text() == "# mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.toml", "tapdeck.toml", "tapdeck.toml.bak"]


def test_texts_of_any_kind_survive_the_file() -> None:
    odd = 'quote " back \\ tab \t bell \x07 del \x7f ü ☎'
    settings = replace(Settings(), recording=RecordingSettings(instance=odd))
    assert tomllib.loads(as_file(settings, set()))["recording"]["instance"] == odd
