"""The end of a day in a real seal stage: checkpoint, time stamp, delivery, verification where it arrives."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from tapdeck.cli.main import cli
from tapdeck.cli.seal_stage import SealStage
from tapdeck.storage import handover, state
from tapdeck.storage.delivery import deliver as delivered
from tapdeck.storage.folder_target import FolderTarget
from tapdeck.storage.keys import KeyStore
from tapdeck.storage.timestamp import fetch
from tests.support import spooled
from tests.support.authority import Authority, serving

DAY_NS = 86_400 * 10**9
TODAY = datetime.now(ZoneInfo("Europe/Amsterdam")).date()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "keys"
    KeyStore(folder, name="mains street").open()
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with serving(tmp_path_factory.mktemp("authority"), chain=True) as authority:
        yield authority


@pytest.fixture
def authority(served: Authority) -> Authority:
    served.answer = "stamp"
    served.requests.clear()
    return served


class Night:
    """A seal stage for which time can be put on: its wall clock and its patience."""

    def __init__(
        self, folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, calls: int = 1, **signing: Any
    ) -> None:
        self.folder, self.ahead, self.patience = folder, 0, 0.0
        clock = SimpleNamespace(
            time_ns=lambda: time.time_ns() + self.ahead, monotonic=lambda: time.monotonic() + self.patience
        )
        monkeypatch.setattr("tapdeck.cli.days.time", clock)
        noon = datetime.combine(TODAY, datetime.min.time(), ZoneInfo("Europe/Amsterdam")).replace(hour=12)
        monkeypatch.setattr(spooled, "START_NS", int(noon.timestamp()) * 10**9)
        self.settings = spooled.settings(folder, keys=str(keys), **signing)
        spooled.hand_over(folder, calls)
        self.stage = self.start()

    def start(self) -> SealStage:
        stage = spooled.stage(self.settings)
        stage.begin()
        while stage.tick():
            pass
        return stage

    def until(self, done: Callable[[], object], seconds: float = 10) -> None:
        """Let the stage visit its spool, as it does, until something has come about."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "it did not come"
            self.stage._reported = 0.0  # a second has gone by
            self.stage.tick()
            time.sleep(0.01)

    def visits(self) -> None:
        """Two more visits."""
        count = iter((False, False, True))
        self.until(lambda: next(count))

    def day(self, ahead: int = 0, ending: str = ".txt") -> Path:
        day = TODAY + timedelta(ahead)
        return self.folder / "recordings" / f"{day:%Y/%m/%d}" / f"tapdeck-day-{day}{ending}"

    def alarms(self) -> dict[str, str]:
        report = state.read(self.folder / "state", "seal")
        assert report is not None
        return {alarm["code"]: alarm["text"] for alarm in report["alarms"]}


def closed(folder: Path) -> list[str]:
    return [event["day"] for event in state.events(folder / "state") if event["event"] == "day closed"]


def test_the_checkpoint_comes_after_midnight_once(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(tmp_path, keys, monkeypatch, calls=2)
    night.visits()
    assert not night.day().exists()
    night.ahead = DAY_NS
    night.until(night.day().exists)
    assert len(re.findall("^Recording: ", night.day().read_text(), re.MULTILINE)) == 2
    before = night.day().read_bytes()
    night.visits()
    night.stage.end()
    night.stage = night.start()
    night.patience = 60
    night.visits()
    night.stage.end()
    assert night.day().read_bytes() == before
    assert closed(tmp_path) == [TODAY.isoformat()]


def test_a_day_that_was_missed_is_closed_when_capture_has_had_time_to_speak(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path, keys, monkeypatch)
    night.stage.end()
    night.ahead = 2 * DAY_NS
    night.stage = night.start()
    night.visits()
    assert closed(tmp_path) == []
    down, up = (f"{TODAY + timedelta(days)}T18:00:00.000+01:00" for days in (0, 2))
    state.append(tmp_path / "state", "downtime", **{"from": down, "to": up, "clean": False})
    night.patience = 31
    night.visits()
    assert closed(tmp_path) == [str(TODAY), str(TODAY + timedelta(1))]
    for path in (night.day(), night.day(1)):
        assert f"Downtime: from {down} to {up}\n" in path.read_text()
    night.stage.end()


def test_a_single_run_closes_what_is_over(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(tmp_path, keys, monkeypatch)
    night.ahead = DAY_NS
    assert night.stage.conclude() == 0
    night.stage.end()
    assert closed(tmp_path) == [str(TODAY)]


def test_with_a_key_that_is_locked_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(tmp_path, tmp_path / "keys", monkeypatch)
    passphrase = tmp_path / "keys" / "passphrase"
    words = passphrase.read_text()
    passphrase.write_text("another\n")
    night.ahead = DAY_NS
    night.visits()
    assert "KEY_LOCKED" in night.alarms()
    assert not night.day().exists()
    passphrase.write_text(words)
    night.until(night.day().exists)
    night.stage.end()


def test_what_keeps_it_from_being_made_is_an_alarm(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(tmp_path, keys, monkeypatch)
    for ending in (".txt", ".SHA256withRSA.sig"):
        night.day(ending=ending).parent.mkdir(parents=True, exist_ok=True)
        night.day(ending=ending).write_text("not ours")
    night.ahead = DAY_NS
    night.until(lambda: "CHECKPOINT_FAILED" in night.alarms())
    assert "not by this recorder" in night.alarms()["CHECKPOINT_FAILED"]
    night.day().unlink()
    night.day(ending=".SHA256withRSA.sig").unlink()
    night.visits()
    assert not night.day().exists()  # not again at once
    night.patience = 61
    night.until(lambda: "CHECKPOINT_FAILED" not in night.alarms())
    assert night.day().exists()
    night.stage.end()


def test_the_time_stamp(tmp_path: Path, keys: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night(tmp_path, keys, monkeypatch, timestamp_url=authority.url)
    night.ahead = DAY_NS
    night.until(night.day(ending=".tsr").exists)
    assert authority.verifies(night.day(ending=".tsr"), night.day())
    night.patience = 3600
    night.visits()
    assert len(authority.requests) == 1  # one a day
    handed = {parcel.id: parcel for parcel in handover.waiting(tmp_path / "state")[0]}[f"tapdeck-day-{TODAY}"]
    assert handed.files[-1].endswith(".tsr")
    night.stage.end()
    result = CliRunner().invoke(cli, ["verify", "--json", str(tmp_path / "recordings")])
    lines = [json.loads(line) for line in result.output.splitlines()]
    said = next(line["reason"] for line in lines if line.get("kind") == "checkpoint")
    text = subprocess.run(
        ["openssl", "ts", "-reply", "-in", night.day(ending=".tsr"), "-text"], capture_output=True, text=True
    ).stdout
    shown = datetime.strptime(text.split("Time stamp: ")[1].splitlines()[0], "%b %d %H:%M:%S %Y GMT")
    assert said == f"time-stamped {shown:%Y-%m-%d %H:%M:%S} UTC"
    assert result.exit_code == 0
    words = CliRunner().invoke(cli, ["verify", str(tmp_path / "recordings")]).output
    assert f"that of {TODAY} at {shown:%Y-%m-%d %H:%M:%S} UTC" in words
    night.day(ending=".tsr").write_bytes(b"nothing")
    result = CliRunner().invoke(cli, ["verify", str(tmp_path / "recordings")])
    assert result.exit_code == 1
    assert f"tapdeck-day-{TODAY}.tsr proves no time" in result.output


def test_sealing_does_not_wait_for_an_authority_that_hangs_and_it_is_asked_again_hourly(
    tmp_path: Path, keys: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.answer = "hang"
    monkeypatch.setattr("tapdeck.cli.days.fetch", _patient(1.0))
    night = Night(tmp_path, keys, monkeypatch, timestamp_url=authority.url)
    night.ahead = DAY_NS
    night.until(lambda: authority.requests)
    spooled.hand_over(tmp_path, 2, first=1)
    night.until(lambda: len(list((tmp_path / "recordings").rglob("*_hash.txt"))) == 3, seconds=0.9)
    night.until(lambda: "TIMESTAMP_FAILED" in night.alarms())
    assert "cannot be reached" in night.alarms()["TIMESTAMP_FAILED"]
    authority.answer = "stamp"
    night.patience = 3500
    night.visits()
    assert len(authority.requests) == 1
    night.patience = 3601
    night.until(night.day(ending=".tsr").exists)
    night.until(lambda: "TIMESTAMP_FAILED" not in night.alarms())
    night.stage.end()


def test_where_no_authority_is_configured_nobody_is_asked(
    tmp_path: Path, keys: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(tmp_path, keys, monkeypatch)
    night.ahead = DAY_NS
    night.until(night.day().exists)
    night.visits()
    night.stage.end()
    assert authority.requests == []
    assert not night.day(ending=".tsr").exists()


def test_what_arrives_at_a_target_can_be_verified_there(
    tmp_path: Path, keys: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the script that came along, in an environment that has none of ours; a recording cut off the end shows."""
    night = Night(tmp_path, keys, monkeypatch, calls=3, timestamp_url=authority.url)
    night.ahead = DAY_NS
    night.until(night.day(ending=".tsr").exists)
    night.stage.end()
    target = tmp_path / "target"
    target.mkdir()
    deliver(tmp_path, target)
    (folder,) = {path.parent for path in target.rglob("tapdeck-day-*.txt")}
    script = ["/bin/sh", str(folder / "verify.sh")]
    assert subprocess.run(script, env={"PATH": "/usr/bin:/bin"}, capture_output=True).returncode == 0
    last = sorted(folder.glob("*_hash.txt"))[-1].name.removesuffix("_hash.txt")
    for file in folder.glob(f"{last}*"):
        file.unlink()
    done = subprocess.run(script, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"tapdeck-day-{TODAY}.txt names it" in done.stdout
    result = CliRunner().invoke(cli, ["verify", str(target)])
    assert result.exit_code == 1
    assert f"MISSING: {last[-10:]}: tapdeck-day-{TODAY}.txt names it" in result.output


def deliver(folder: Path, target: Path) -> None:
    for parcel in handover.waiting(folder / "state")[0]:
        place = FolderTarget(target, folder / "recordings")
        place.check(known=False)
        delivered(parcel, folder / "recordings", place, lambda _: None)


def _patient(seconds: float) -> Callable[[str, bytes], Any]:
    return lambda url, content: fetch(url, content, timeout=seconds)
