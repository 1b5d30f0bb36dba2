"""The self-test finds what it is there for: each part of the box, spoilt in turn, turns its own step red."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tapdeck.cli.parts import live_engine, origin, sealer
from tapdeck.cli.settings import RecordingSettings, Settings, SipSettings, StorageSettings
from tapdeck.sniffer.engine import Limits
from tapdeck.sniffer.live import LiveEngine
from tapdeck.sniffer.synthetic import synthetic_call
from tapdeck.storage import handover, selftest
from tapdeck.storage.folder_target import FolderTarget
from tapdeck.storage.selftest import Failed, SelfTest
from tapdeck.storage.spool_file import SpoolFile, read_spool
from tapdeck.storage.targets import Target
from tests.support.faulty import FailsNow, FaultyTarget, Lies, MemoryTarget
from tests.support.parcels import everything

NAME = ".tapdeck-selftest-x"
FOLDERS = ("spool", "recordings", "state")


def self_test(folder: Path, settings: Settings | None = None, **other: Any) -> SelfTest:
    settings = settings or Settings()
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    made = SelfTest(
        call=synthetic_call("abc", 1_772_445_600_000_000_000, settings.sip.ports[0]),
        name=NAME,
        spool=folder / "spool",
        recordings=folder / "recordings",
        state=folder / "state",
        engine=lambda: live_engine(settings, (1,)),
        origin=origin(settings, "selftest", (101, 1)),
        sealer=partial(sealer, settings),
    )
    return replace(made, **other)


@pytest.fixture
def test(tmp_path: Path) -> Iterator[SelfTest]:
    yield self_test(tmp_path)
    for name in FOLDERS:
        selftest.clear(tmp_path / name / NAME)
    assert everything(tmp_path) == {}
    assert [path.name for path in tmp_path.rglob("*") if path.name not in FOLDERS] == []


@pytest.fixture
def sealed(test: SelfTest) -> SelfTest:
    for step in (test.hear, test.keep, test.seal):
        step()
    return test


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before


def the_file(test: SelfTest, pattern: str) -> Path:
    [path] = (test.recordings / NAME).rglob(pattern)
    return path


def test_a_box_that_is_well(sealed: SelfTest) -> None:
    assert "one call in 207 frames" in sealed.hear()
    assert "32,640 bytes" in sealed.compare_sound()
    sealed.read_info()
    memory = MemoryTarget()
    assert "2 files" in sealed.deliver(memory, known=True)
    assert memory.files() == {}
    files = [path.name for path in (sealed.recordings / NAME).rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all("_tapdeck-selftest_tapdeck-selftest_" in name for name in files)
    assert not list((sealed.spool / NAME / "done").iterdir())  # what is sealed goes, as in the seal stage


@pytest.mark.parametrize(
    "settings",
    [
        Settings(sip=SipSettings(ports=(5070, 5060))),
        Settings(recording=RecordingSettings(name_template="{id}", folder_template="{instance}", utc=True)),
        Settings(recording=RecordingSettings(timezone="Asia/Kathmandu", instance="box 7")),
        Settings(storage=StorageSettings(keep_packets=True)),
    ],
)
def test_the_settings_of_the_box_are_those_of_the_test(tmp_path: Path, settings: Settings) -> None:
    test = self_test(tmp_path, settings)
    for step in (test.hear, test.keep, test.seal, test.compare_sound, test.read_info):
        step()
    count = 3 if settings.storage.keep_packets else 2
    assert f"{count} files" in test.deliver(MemoryTarget(), known=False)


def test_an_engine_that_does_not_take_the_call(tmp_path: Path) -> None:
    test = self_test(tmp_path, engine=lambda: LiveEngine(limits=Limits(max_calls=0)))
    for step in (test.hear, test.keep):
        with pytest.raises(Failed):
            step()


def test_frames_that_are_lost_are_missed(tmp_path: Path) -> None:
    call = synthetic_call("abc", 1_772_445_600_000_000_000)
    test = self_test(tmp_path, call=replace(call, frames=call.frames[:50] + call.frames[51:]))
    with pytest.raises(Failed, match=r"not accounted for: 206 seen, 199 kept, 7 signalling, not 206 seen, 200 kept"):
        test.hear()
    with pytest.raises(Failed, match="does not hold what was written"):
        test.keep()


def test_a_spool_file_that_comes_back_otherwise(test: SelfTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> SpoolFile:
        spoil(path, lambda content: content[:-40])
        return read_spool(path)

    monkeypatch.setattr("tapdeck.storage.selftest.read_spool", read)
    with pytest.raises(Failed, match="does not hold what was written"):
        test.keep()


@pytest.mark.parametrize("channel", [0, 1])
def test_a_sample_that_is_wrong(sealed: SelfTest, channel: int) -> None:
    place = the_file(sealed, "*.wav").read_bytes().index(b"data") + 8 + 2 * 5000 + channel
    spoil(the_file(sealed, "*.wav"), lambda wav: wav[:place] + bytes([wav[place] ^ 1]) + wav[place + 1 :])
    with pytest.raises(Failed, match=f"the {('caller', 'callee')[channel]}'s sound .*from sample 5000 on"):
        sealed.compare_sound()


@pytest.mark.parametrize(
    "change",
    [
        lambda wav: wav[:-2],
        lambda wav: wav[:20] + b"\x07" + wav[21:],
        lambda wav: b"",
        lambda wav: wav[:40],
        lambda wav: wav[:12] + b"junk\x03\0\0\0abc\0" + wav[12:],  # a chunk that is not known is passed over
    ],
)
def test_a_wav_of_another_form(sealed: SelfTest, change: Callable[[bytes], bytes]) -> None:
    path = the_file(sealed, "*.wav")
    spoil(path, change)
    if b"junk" in path.read_bytes():
        sealed.compare_sound()
        return
    with pytest.raises(Failed):
        sealed.compare_sound()


@pytest.mark.parametrize(
    ("before", "after", "about"),
    [
        (b"EndReason: BYE by caller", b"EndReason: media silence", "EndReason"),
        (b"Codec: PCMA", b"Codec: PCMU", "Codec"),
        (b"lost=0", b"lost=1", "Caller-Packets"),
        (b"DatetimeUtc: 2026", b"DatetimeUtc: 2025", "began at 2025"),
        (b"Duration: 2.040\n", b"", "Duration"),
        (b"Callee: tapdeck-selftest\n", b"Callee\n", "line"),
    ],
)
def test_an_info_file_that_says_something_else(sealed: SelfTest, before: bytes, after: bytes, about: str) -> None:
    spoil(the_file(sealed, "*_info.txt"), lambda text: text.replace(before, after))
    with pytest.raises(Failed, match=about):
        sealed.read_info()


def test_a_recording_that_cannot_be_written_is_an_error_of_the_system(test: SelfTest) -> None:
    test.keep()
    shutil.rmtree(test.recordings)
    test.recordings.write_bytes(b"")
    with pytest.raises((Failed, OSError)):
        test.seal()
    test.recordings.unlink()
    test.recordings.mkdir()


def test_a_step_without_what_it_needs(test: SelfTest) -> None:
    for step in (test.seal, test.compare_sound, test.read_info, partial(test.deliver, MemoryTarget(), False)):
        with pytest.raises((Failed, OSError)):
            step()


def test_a_lost_hand_over(sealed: SelfTest) -> None:
    [parcel], _ = handover.waiting(sealed.state / NAME)
    handover.taken(sealed.state / NAME, parcel)
    with pytest.raises(Failed, match="0 recordings were handed over"):
        sealed.deliver(MemoryTarget(), known=False)


@pytest.mark.parametrize(
    "target",
    [
        FaultyTarget(FailsNow()),
        FaultyTarget(Lies("write", how=lambda content: content[:-1] + b"x")),
        FaultyTarget(Lies("read", how=lambda content: content[:-1])),
        FaultyTarget(Lies("publish")),
    ],
)
def test_a_target_that_fails_or_lies(sealed: SelfTest, target: Target) -> None:
    with pytest.raises(Failed) as caught:
        sealed.deliver(target, known=False)
    assert caught.value.todo


def test_a_folder_gets_a_copy_and_loses_it_again(sealed: SelfTest, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    sealed.deliver(FolderTarget(disk, sealed.recordings), known=False)
    assert list(disk.iterdir()) == []
    with pytest.raises(Failed, match="is not what it was"):
        sealed.deliver(FolderTarget(disk, sealed.recordings), known=True)
    disk.rmdir()


def test_the_recording_is_found_by_the_path_that_was_handed_over(sealed: SelfTest) -> None:
    """Nothing else in the folder is looked at."""
    [parcel], _ = handover.waiting(sealed.state / NAME)
    other = sealed.recordings / NAME / PurePosixPath(parcel.stem).parent / "other.wav"
    other.write_bytes(b"RIFF")
    sealed.compare_sound()
