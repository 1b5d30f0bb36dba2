"""Folders of a box: their owners and modes, what an earlier run left, and traps that a stage may have laid for root."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from tapdeck.cli import layout
from tapdeck.cli.settings import ConfigError, Settings, StorageSettings, UserSettings
from tapdeck.storage import state
from tests.support.users import needs_root

USERS = UserSettings(group="games", capture="daemon", seal="bin", deliver="sys", metrics="nobody")
"""Users and a group that every Debian has; the own group of each has its name."""


def settings(folder: Path, users: UserSettings = USERS) -> Settings:
    recordings, spool, state_folder = (str(folder / "box" / name) for name in ("recordings", "spool", "state"))
    return Settings(storage=StorageSettings(recordings, spool, state_folder), users=users)


def about(path: Path) -> tuple[str, str, str]:
    return path.owner(), path.group(), f"{stat.S_IMODE(path.stat().st_mode):o}"


@needs_root
def test_folders_are_made_once(tmp_path: Path) -> None:
    wanted, box = settings(tmp_path), tmp_path / "box"
    assert not layout.is_prepared(wanted)
    assert len(layout.prepare(wanted)) == 8
    assert about(box / "recordings") == ("bin", "sys", "2770")
    for name in ("spool", "spool/live", "spool/done", "spool/resume"):
        assert about(box / name) == ("daemon", "bin", "2770")
    for name in ("state", "state/log"):
        assert about(box / name) == ("root", "games", "3770")
    assert about(box / "state/handover") == ("bin", "sys", "2770")
    assert about(box) == ("root", "root", "711")
    assert layout.is_prepared(wanted)
    assert layout.prepare(wanted) == []


@needs_root
def test_a_mode_that_somebody_changed_is_put_right_and_what_is_inside_stays(tmp_path: Path) -> None:
    layout.prepare(settings(tmp_path))
    recordings = tmp_path / "box/recordings"
    (recordings / "call.wav").write_text("sound")
    recordings.chmod(0o777)
    assert layout.prepare(settings(tmp_path)) == [f"folder {recordings}: bin:sys 2770"]
    assert (recordings / "call.wav").read_text() == "sound"


@needs_root
def test_files_of_an_earlier_run_as_root_go_to_who_writes_them_now(tmp_path: Path) -> None:
    layout.prepare(settings(tmp_path, UserSettings("", "", "", "", "")))
    folder = tmp_path / "box/state"
    for stage in ("capture", "seal", "deliver"):
        for _ in range(2):
            state.write(folder, stage, {})
    state.append(folder, "started")
    (folder / "queue.sqlite").write_text("")
    (folder / "selftest.json").write_text("{}")
    box = tmp_path / "box"
    for name in ("spool", "spool/live", "spool/done", "spool/resume"):
        os.chown(box / name, pwd.getpwnam("daemon").pw_uid, -1)
    os.chown(folder / "handover", pwd.getpwnam("bin").pw_uid, -1)
    done = layout.prepare(settings(tmp_path))
    assert f"file {folder / 'capture.json'}: daemon" in done
    owners = {path.name: path.owner() for path in folder.iterdir() if path.is_file()}
    assert owners == {
        **{f"{stage}.json": user for stage, user in (("capture", "daemon"), ("seal", "bin"), ("deliver", "sys"))},
        **{
            f".{stage}.json.spare": user for stage, user in (("capture", "daemon"), ("seal", "bin"), ("deliver", "sys"))
        },
        "queue.sqlite": "sys",
        "selftest.json": "root",
    }
    [log] = (folder / "log").iterdir()
    assert about(log) == ("root", "games", "660")
    assert layout.prepare(settings(tmp_path)) == []


@needs_root
def test_links_that_a_stage_planted_lead_root_nowhere(tmp_path: Path) -> None:
    """A stage that was taken over may put what it likes into folders where it writes."""
    layout.prepare(settings(tmp_path))
    victim, other, folder = tmp_path / "shadow", tmp_path / "other", tmp_path / "box/state"
    for path in (victim, other):
        path.write_text("secret")
        path.chmod(0o600)
    (folder / "log/2026-01-01.jsonl").symlink_to(victim)
    (folder / "log/2026-01-02.jsonl").hardlink_to(other)
    (folder / "capture.json").symlink_to(victim)
    (folder / "queue.sqlite").hardlink_to(other)
    os.mkfifo(folder / "seal.json")
    layout.prepare(settings(tmp_path))
    assert about(victim) == about(other) == ("root", "root", "600")


@needs_root
@pytest.mark.parametrize("what", ["link", "file"])
def test_a_folder_that_is_none(tmp_path: Path, what: str) -> None:
    layout.prepare(settings(tmp_path))
    live, elsewhere = tmp_path / "box/spool/live", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    live.rmdir()
    if what == "link":
        live.symlink_to(elsewhere)
    else:
        live.write_text("")
    assert not layout.is_prepared(settings(tmp_path))
    with pytest.raises(ConfigError, match=r"storage\.spool: \S+ is no folder"):
        layout.prepare(settings(tmp_path))
    assert about(elsewhere) == ("root", "root", "700")


@needs_root
def test_what_is_another_s_and_not_empty_is_not_taken(tmp_path: Path) -> None:
    recordings = tmp_path / "box/recordings"
    recordings.mkdir(parents=True)
    layout.prepare(settings(tmp_path))  # empty: taken
    os.chown(recordings, 0, 0)
    (recordings / "letter").write_text("dear")
    with pytest.raises(ConfigError, match=r"belongs to root, not to bin.*`chown -R bin:sys \S+`"):
        layout.prepare(settings(tmp_path))
    assert about(recordings)[:2] == ("root", "root")


@needs_root
def test_users_that_do_not_exist(tmp_path: Path) -> None:
    for users in (UserSettings("games", "nobody-such", "bin", "sys"), UserSettings("no-group", "daemon", "bin", "sys")):
        with pytest.raises(ConfigError, match="`tapdeck install` makes it"):
            layout.prepare(settings(tmp_path, users))


def test_without_root_the_folders_are_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert layout.prepare(settings(tmp_path)) == []
    for name in ("recordings", "spool", "state"):
        assert stat.S_IMODE((tmp_path / "box" / name).stat().st_mode) == 0o700
