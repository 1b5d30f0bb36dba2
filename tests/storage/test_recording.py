"""Ended calls become files: what is written, what is not, and what a full or broken disk does to the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tapdeck.sip.dialog import Party
from tapdeck.sniffer.account import Account
from tapdeck.storage import recording as module
from tapdeck.storage.facts import Recorder
from tapdeck.storage.localtime import Zone
from tapdeck.storage.names import naming
from tapdeck.storage.recording import Archive, Recording, identity
from tests.storage.calls import Heard, heard
from tests.support import recipes
from tests.support import record as reader
from tests.support.media import MS, PCMA, PCMU, Rtp, with_digit
from tests.support.scene import START_NS, Scene, in_order, plain_call, set_up
from tests.support.signalling import sdp


def archive(found: Heard, root: Path, account: Account | None = None) -> Archive:
    root.mkdir(exist_ok=True)
    return Archive(
        root=root,
        naming=naming(zone=Zone("UTC")),
        recorder=Recorder("here", "1.0", "box", "test"),
        payloads=found.payloads,
        book=found.engine.book,
        account=account or found.engine.account,
    )


def recorded(folder: Path, *scenes: Scene, account: Account | None = None) -> list[Recording]:
    found = heard(folder, in_order(*(scene.packets() for scene in scenes)))
    keeper = archive(found, folder / "out", account)
    out = [one for ended in found.ended for one in keeper.add(ended)]
    return [*out, *keeper.flush()]


def wav(folder: Path, one: Recording) -> reader.Wav:
    (name,) = (name for name in one.files if name.suffix == ".wav")
    return reader.read_wav(folder / "out" / name)


def assert_sound(folder: Path, one: Recording, scene: Scene) -> None:
    assert wav(folder, one).channels() == scene.channels()


def test_a_call_is_two_files_of_one_name(tmp_path: Path) -> None:
    scene = plain_call(1)
    (one,) = recorded(tmp_path, scene)
    assert (one.outcome, one.error, one.notes) == ("recorded", "", ())
    names = [name.as_posix() for name in one.files]
    assert names == [f"2026/03/02/20260302-100000.000_101_2001_{one.id}{end}" for end in (".wav", "_info.txt")]
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")) == sorted(
        names
    )
    assert one.duration_s == pytest.approx(len(scene.channels()[0]) / 8000)
    assert_sound(tmp_path, one, scene)


def test_the_same_capture_gives_the_same_ids_and_bytes_again(tmp_path: Path) -> None:
    contents = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        recorded(folder, plain_call(1), plain_call(2))
        out = folder / "out"
        contents.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 4


def test_calls_too_long_for_a_batch_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long ones between short ones: nobody's sound goes into another's file."""
    monkeypatch.setattr(module, "BATCH", 20_000)
    monkeypatch.setattr("tapdeck.storage.render.PIECE", 3000)
    scenes = [
        plain_call(number, start_ns=START_NS + number * 50 * MS, duration_ms=duration)
        for number, duration in enumerate((400, 3000, 500, 2400, 300), 1)
    ]
    account = Account()
    for one in recorded(tmp_path, *scenes, account=account):
        assert_sound(tmp_path, one, next(scene for scene in scenes if scene.call_id == one.call.call_id))
    assert account.calls == {"seen": 5, "recorded": 5}


@pytest.mark.parametrize("batch", [1 << 20, 20_000])
def test_a_folder_that_cannot_be_made_fails_its_call_alone(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the second day's folder should be; the calls around it are recorded right."""
    monkeypatch.setattr(module, "BATCH", batch)
    scenes = [plain_call(number, start_ns=START_NS + number * 86_400_000 * MS, duration_ms=1800) for number in range(3)]
    (tmp_path / "out" / "2026" / "03").mkdir(parents=True)
    (tmp_path / "out" / "2026" / "03" / "03").write_text("in the way")
    account = Account()
    found = recorded(tmp_path, *scenes, account=account)
    assert [one.outcome for one in found] == ["recorded", "failed", "recorded"]
    assert found[1].error
    assert found[1].files == ()
    assert account.calls == {"seen": 3, "recorded": 2, "failed": 1}
    for one, scene in zip(found[::2], scenes[::2], strict=True):
        assert_sound(tmp_path, one, scene)


def test_what_is_not_recorded_is_reported_all_the_same(tmp_path: Path) -> None:
    account = Account()
    found = recorded(tmp_path, recipes.failed(1, "486 Busy Here"), plain_call(2), account=account)
    assert sorted((one.outcome, len(one.files)) for one in found) == [("recorded", 2), ("without_media", 0)]
    assert account.calls == {"seen": 2, "recorded": 1, "without_media": 1}


def test_an_encrypted_call_leaves_no_file(tmp_path: Path) -> None:
    scene = plain_call(1)
    shape = scene.dialog
    secure = [
        sdp(party.media).replace("RTP/AVP", "RTP/SAVP") + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xyz\r\n"
        for party in (shape.caller, shape.callee)
    ]
    (one,) = recorded(tmp_path, replace(scene, signals=set_up(shape, START_NS, *secure) + scene.signals[-2:]))
    assert (one.outcome, one.files) == ("encrypted", ())
    assert one.notes == ("Encrypted: yes, not recordable",)
    assert list((tmp_path / "out").rglob("*.*")) == []


def test_two_laws_are_pcm_with_the_packets_beside(tmp_path: Path) -> None:
    (one,) = recorded(tmp_path, plain_call(1, pts=(PCMA, PCMU)))
    assert [name.name.removeprefix(name.name[: -len(name.name.split(one.id)[1])]) for name in one.files] == [
        ".wav",
        ".pcapng",
        "_info.txt",
    ]
    assert wav(tmp_path, one).tag == reader.PCM
    assert one.codec == "caller PCMA; callee PCMU"


def keyed(stream: tuple[Rtp, ...], keys: str) -> tuple[Rtp, ...]:
    for number, key in enumerate(keys):
        stream = with_digit(stream, 5 + 8 * number, key)
    return stream


def test_the_keys_that_were_pressed_are_listed_in_order_of_time(tmp_path: Path) -> None:
    scene = plain_call(1)
    scene = replace(scene, left=keyed(scene.left, "12#"), right=keyed(scene.right, "9"))
    (one,) = recorded(tmp_path, scene)
    text = (tmp_path / "out" / one.files[-1]).read_text()
    assert "Digits: 192#\n" in text
    lines = [line for line in text.splitlines() if line.startswith("Digit: ")]
    assert [line.split()[1:4] for line in lines] == [
        ["1", "by", Party.CALLER.value],
        ["9", "by", Party.CALLEE.value],
        ["2", "by", Party.CALLER.value],
        ["#", "by", Party.CALLER.value],
    ]
    assert all("RFC 4733" in line for line in lines)


def test_an_id_depends_on_the_call_alone(tmp_path: Path) -> None:
    found = heard(tmp_path, in_order(plain_call(1).packets(), plain_call(2).packets()))
    one, two = (identity(ended.tracked.leg) for ended in found.ended)
    assert one != two
    assert "101" not in one
    assert "2001" not in one
