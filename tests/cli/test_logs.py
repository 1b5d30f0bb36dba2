"""The lines of the log: for people, for programs, for the journal; never for a terminal to obey."""

import io
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import structlog

from tapdeck.cli.logs import log, set_up
from tapdeck.cli.settings import ConfigError, MonitoringSettings, Settings, check

HOSTILE = "Eve\x1b[2J\u2028x"


@pytest.fixture(autouse=True)
def unset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_line_for_people() -> None:
    out = io.StringIO()
    set_up(stream=out)
    log().warning("stage died", stage="capture", exit=-9, why='said "no"', path=Path("/x"))
    time, _, rest = out.getvalue().partition(" ")
    assert datetime.fromisoformat(time).tzinfo is not None
    assert rest == 'warning stage died stage=capture exit=-9 why="said \\"no\\"" path="/x"\n'


def test_a_line_for_programs() -> None:
    out = io.StringIO()
    set_up(as_json=True, stream=out)
    log().error("stage died", stage="capture", exit=-9)
    line = json.loads(out.getvalue())
    assert list(line) == ["time", "level", "event", "stage", "exit"]
    assert (line["level"], line["event"], line["exit"]) == ("error", "stage died", -9)


def test_the_level_is_a_setting() -> None:
    out = io.StringIO()
    set_up("warning", stream=out)
    log().info("quiet")
    log().critical("loud")
    assert "quiet" not in out.getvalue()
    assert "loud" in out.getvalue()
    with pytest.raises(ConfigError, match=r"monitoring\.log_level"):
        check(Settings(monitoring=MonitoringSettings(log_level="chatty")))


def test_the_journal_adds_time_and_level_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as out:
        about = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{about.st_dev}:{about.st_ino}")
        set_up(stream=out)
        log().warning("stage died", stage="seal")
        log().info("stage started")
    assert (tmp_path / "journal").read_text() == "<4>stage died stage=seal\n<6>stage started\n"
    with (tmp_path / "other").open("w") as out:
        set_up(stream=out)
        log().info("stage started")
    assert (tmp_path / "other").read_text().endswith(" info stage started\n")


@pytest.mark.parametrize("as_json", [True, False])
def test_hostile_values_only_print(as_json: bool) -> None:
    out = io.StringIO()
    set_up(as_json=as_json, stream=out)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log().exception(HOSTILE, caller=HOSTILE, all={HOSTILE: [HOSTILE]}, path=Path(HOSTILE))
    (line,) = out.getvalue().splitlines()
    assert line.isprintable()
    assert "ValueError" in line
    assert "Eve" in line


def test_a_log_that_nobody_takes_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True) as out:
        set_up(stream=out)
        log().info("into the void")
    closed = io.StringIO()
    closed.close()
    set_up(stream=closed)
    log().info("into the void")
