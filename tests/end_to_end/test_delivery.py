"""`tapdeck deliver --config FILE` to a folder, a real Samba and a real OpenSSH server at once."""

from __future__ import annotations

import filecmp
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.delivery_faults import identity
from tapdeck.cli.exit_codes import ExitCode
from tapdeck.storage.parcel import Parcel, parcel
from tests.support import sealed
from tests.support.delivering import Servers, Stage, held, servers
from tests.support.parcels import fill, noise, record, small_disk
from tests.support.samba import PASSWORD, needs_samba

pytestmark = needs_samba

MB = 1_000_000
FORBIDDEN = '<>:"/\\|?*'
"""What Windows allows in no file name."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Servers]:
    with servers(tmp_path / "servers") as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path, site: Servers) -> Iterator[Stage]:
    made = Stage(tmp_path, site.targets)
    yield made
    made.kill()


def several(stage: Stage, count: int, first: int = 0, size: int = 30_000) -> list[Parcel]:
    """Write recordings, the oldest first, and hand the youngest over first."""
    made = [
        record(stage.root, identity(number), noise(size), ended=at)
        for number, at in ((number, 1_795_000_000.0 + number) for number in range(first, first + count))
    ]
    for one in reversed(made):
        stage.hand_over(one)
    return made


def told(stage: Stage, info: str, identity: str) -> Parcel:
    """Write a recording whose info file says more, and hand it over."""
    made = record(stage.root, identity)
    path = stage.root / f"{made.stem}_info.txt"
    path.write_text(f"RecordingId: {identity}\nDatetimeUtc: 2026-11-24T09:00:00.000Z\n{info}")
    whole = parcel(identity, made.files, sum((stage.root / file).stat().st_size for file in made.files), made.ended)
    stage.hand_over(whole)
    return whole


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    left, right = held(one), held(other)
    return left.keys() == right.keys() and all(filecmp.cmp(left[path], right[path], shallow=False) for path in left)


def fails(stage: Stage, name: str) -> Callable[[], bool]:
    return lambda: ("DELIVER_FAILED", name) in stage.alarms()


def works_again(stage: Stage, site: Servers, name: str, count: int) -> None:
    """Wait until all is delivered; the alarm was one, about this target alone, and is over."""
    stage.until_confirmed(disk=count, nas=count, ssh=count)
    stage.until(lambda: not stage.alarms())
    for kind in ("alarm", "alarm over"):
        assert [(event["code"], event["about"]) for event in stage.events(kind)] == [("DELIVER_FAILED", name)]
    assert all(same(stage.root, folder) for folder in site.folders.values())


def test_one_of_three_is_down_and_comes_back(stage: Stage, site: Servers) -> None:
    site.ssh.kill()
    stage.targets["ssh"]["connections"] = 1
    stage.configure()
    made = several(stage, 20)
    stage.start()
    stage.until_confirmed(disk=20, nas=20)
    stage.until(fails(stage, "ssh"))
    assert same(stage.root, site.disk)
    assert same(stage.root, site.samba.folder)
    assert held(site.ssh.files) == {}
    queue = stage.queue()
    assert [(row["waiting"], row["confirmed"]) for row in queue.values()] == [(0, 20), (0, 20), (20, 0)]
    assert queue["ssh"]["failing_since"]
    shown = stage.run("queue").stdout
    assert "ssh: 20 waiting" in shown
    assert queue["ssh"]["error"] in shown
    assert re.search(r"\b20 recordings\b.* wait", stage.alarms()["DELIVER_FAILED", "ssh"]["text"])
    site.ssh.start()
    works_again(stage, site, "ssh", 20)
    order = [event["id"] for event in stage.events("delivered") if event["target"] == "ssh"]
    assert order == [one.id for one in made]


def test_a_wrong_password_is_told_and_never_shown(stage: Stage, site: Servers, tmp_path: Path) -> None:
    password = Path(stage.targets["nas"]["password_file"])
    password.write_text("swordfish-91")
    several(stage, 3)
    stage.start()
    stage.until_confirmed(disk=3, ssh=3)
    stage.until(fails(stage, "nas"))
    assert "password" in stage.alarms()["DELIVER_FAILED", "nas"]["text"]
    password.write_text(PASSWORD)
    stage.reload()
    works_again(stage, site, "nas", 3)
    written = [path for path in [stage.log, *stage.state.rglob("*")] if path.is_file()]
    assert written
    for path in written:
        content = path.read_bytes()
        assert b"swordfish" not in content
        assert PASSWORD.encode() not in content


def test_a_changed_host_key_gets_nothing(stage: Stage, site: Servers) -> None:
    site.ssh.kill()
    site.ssh.change_host_key("ed25519")
    site.ssh.start()
    several(stage, 3)
    stage.start()
    stage.until_confirmed(disk=3, nas=3)
    stage.until(fails(stage, "ssh"))
    text = stage.alarms()["DELIVER_FAILED", "ssh"]["text"]
    assert "host key" in text or "host_key" in text
    assert site.ssh.fingerprint in text
    assert list(site.ssh.files.iterdir()) == []
    stage.targets = site.targets
    stage.reload()
    works_again(stage, site, "ssh", 3)


def test_a_share_that_is_gone_comes_back(stage: Stage, site: Servers) -> None:
    several(stage, 2)
    stage.start()
    stage.until_confirmed(disk=2, nas=2, ssh=2)
    away = site.samba.folder.with_name("away")
    site.samba.folder.rename(away)
    several(stage, 3, first=2)
    stage.until_confirmed(disk=5, ssh=5)
    stage.until(fails(stage, "nas"))
    assert stage.queue()["nas"]["waiting"] == 3
    away.rename(site.samba.folder)
    works_again(stage, site, "nas", 5)


def test_a_full_disk_of_a_server(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    with small_disk(tmp_path / "servers" / "share", 24) as share, servers(tmp_path / "servers") as site:
        filler = fill(share, leave=400_000)
        stage = Stage(tmp_path, site.targets)
        try:
            several(stage, 6, size=200_000)
            stage.start()
            stage.until_confirmed(disk=6, ssh=6)
            stage.until(fails(stage, "nas"))
            assert "full" in stage.alarms()["DELIVER_FAILED", "nas"]["text"]
            assert 0 < stage.queue()["nas"]["waiting"] < 6
            filler.unlink()
            works_again(stage, site, "nas", 6)
        finally:
            stage.kill()


def test_names_and_selections_of_their_own(stage: Stage, site: Servers) -> None:
    """Each target has its own folders and names, and gets what it asks for."""
    stage.targets["disk"] |= {"folder_template": "%Y/{direction}", "directions": ["in"]}
    stage.targets["nas"] |= {"folder_template": "{direction}/%m", "name_template": "{caller}_{id}"}
    stage.targets["ssh"] |= {"numbers": ["2*"], "classes": ["sales"]}
    stage.configure()
    one = told(stage, "Direction: in\nCaller: 0612\nCallee: 2001\nClass: sales\n", "abcdefghij")
    two = told(stage, "Direction: out\nCaller: 2001\nCallee: 0612\nClass: private\n", "bbcdefghij")
    stage.start()
    stage.until_confirmed(disk=1, nas=2, ssh=1)
    assert set(held(site.disk)) == {f"2026/in/{Path(file).name}" for file in one.files}
    assert set(held(site.samba.folder)) == {
        f"{place}{ending}"
        for place in ("in/11/0612_abcdefghij", "out/11/2001_bbcdefghij")
        for ending in (".wav", "_info.txt")
    }
    assert set(held(site.ssh.files)) == set(one.files)
    why = stage.run("queue", "why", two.id)
    assert why.returncode == ExitCode.OK
    assert why.stdout.count("not selected") == 2


def test_sealed_recordings_verify_on_every_target(stage: Stage, site: Servers, tmp_path: Path) -> None:
    box = sealed.Box(stage.root, sealed.key(tmp_path, "box"))
    for letter in "abc":
        box.seal(f"{letter}bcdefghij")
    box.checkpoint()
    stage.targets["nas"] |= {"folder_template": "%Y/{direction}", "name_template": "{caller}_{id}"}
    stage.targets["ssh"] |= {"folder_template": "{direction}/%Y"}
    stage.configure()
    stage.start()
    stage.until_confirmed(disk=4, nas=4, ssh=4)  # with the day's checkpoint
    assert (site.samba.folder / "2026/unknown/+31201234567_abcdefghij").is_dir()
    for folder in site.folders.values():
        done = stage.run("verify", str(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "intact" in done.stdout
        assert len(list(folder.rglob("*.wav"))) == 3


def test_what_callers_dial_is_a_name_everywhere(stage: Stage, site: Servers) -> None:
    for values in stage.targets.values():
        values["name_template"] = "{caller}_{callee}_{id}"
    stage.configure()
    told(stage, f"Caller: {FORBIDDEN}\x07\nCallee: *21*0612#\n", "abcdefghij")
    told(stage, "Caller: CON\nCallee: Zoë ☎ ../..\n", "bbcdefghij")
    stage.start()
    stage.until_confirmed(disk=2, nas=2, ssh=2)
    names = {name: set(held(folder)) for name, folder in site.folders.items()}
    assert names["disk"] == names["nas"] == names["ssh"]
    assert len(names["disk"]) == 4
    assert not set("".join(Path(path).name for path in names["nas"])) & set(FORBIDDEN)
    assert any("star-21-star-0612" in path for path in names["nas"])
    contents = {path.read_bytes() for path in held(stage.root).values()}
    for folder in site.folders.values():
        assert {path.read_bytes() for path in held(folder).values()} == contents


def test_a_disabled_target_causes_no_connection(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen: list[object] = []

        def count() -> None:
            while True:
                try:
                    seen.append(server.accept())
                except OSError:
                    return

        listener = threading.Thread(target=count, daemon=True)
        listener.start()
        port = server.getsockname()[1]
        for name in ("nas", "ssh"):
            stage.targets[name] |= {"port": port, "enabled": False}
        stage.configure()
        several(stage, 3)
        stage.start()
        stage.until_confirmed(disk=3)
        stage.reload()
        assert set(stage.queue()) == {"disk"}
        assert stage.run("targets list").returncode == ExitCode.OK
        assert seen == []
        stage.targets["ssh"]["enabled"] = True  # and the listener is one that hears
        stage.reload()
        stage.until(lambda: bool(seen))
        server.shutdown(socket.SHUT_RDWR)


def test_copies_here_go_when_every_required_target_has_them(stage: Stage, site: Servers) -> None:
    stage.sections["storage"] = {"keep_local": "0"}
    stage.targets["nas"]["required"] = False
    stage.configure()
    site.samba.kill()
    site.ssh.kill()
    made = several(stage, 3)
    stage.start()
    stage.until_confirmed(disk=3)
    stage.until(fails(stage, "ssh"))
    stage.reload()  # it looks at the disk anew
    stage.until(lambda: stage.queue()["ssh"]["waiting"] == 3)
    originals = {path: file.read_bytes() for path, file in held(stage.root).items()}
    assert len(originals) == 6
    site.ssh.start()
    stage.until_confirmed(ssh=3)
    stage.until(lambda: not held(stage.root))
    for folder in (site.disk, site.ssh.files):
        assert {path: file.read_bytes() for path, file in held(folder).items()} == originals
    removed = stage.events("recording removed")
    assert sorted(event["id"] for event in removed) == [one.id for one in made]
    assert all(sorted(event["confirmed_by"]) == ["disk", "ssh"] for event in removed)


def test_many_small_ones_and_a_large_one(stage: Stage, site: Servers) -> None:
    """bench/delivery.py has the full numbers."""
    for number in range(500):
        record(stage.root, identity(number), number.to_bytes(4) * 500, ended=1_795_000_000.0 + number)
    record(stage.root, "zzzzzzzzzz", noise(100 * MB), ended=1_795_000_000.0 + 250)
    stage.start()
    stage.until_confirmed(disk=501, nas=501, ssh=501)
    assert all(same(stage.root, folder) for folder in site.folders.values())
    assert stage.alarms() == {}
