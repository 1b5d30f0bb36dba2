"""An SFTP server as a target, against a real OpenSSH server: who is let in, what is refused, what breaks."""

import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from tapdeck.storage.secret import Secret
from tapdeck.storage.sftp_target import MARK, SftpPlace, SftpTarget
from tapdeck.storage.targets import NameTaken, Target, TargetError, WillPass, part_name
from tests.support.openssh import FOLDER, UID, OpenSsh, openssh
from tests.support.parcels import everything, fill, noise
from tests.support.replacing_sftp import ReplacingSftp, replacing_sftp
from tests.support.target_contract import TargetContract, break_off, digest_of, finish

A = PurePosixPath("2026/11/24/a.wav")


def place_on(server: OpenSsh | ReplacingSftp, **changes: object) -> SftpPlace:
    values = {
        "name": "nas",
        "host": server.host,
        "port": server.port,
        "folder": server.folder,
        "user": server.user,
        "host_key": server.fingerprint,
        "key_file": str(server.key_file),
    }
    return SftpPlace(**{**values, **changes})  # type: ignore[arg-type]


def with_password(server: OpenSsh, password: str) -> SftpPlace:
    return place_on(server, key_file="", password=Secret(password))


def put(target: Target, path: PurePosixPath, content: bytes, digest: str = "") -> None:
    with target.upload(path, len(content), digest) as upload:
        upload.write(content[upload.kept :])


def refusal(place: SftpPlace, limit: float = 10) -> str:
    """Return what a target says that cannot be used, with all that comes with the error."""
    target = SftpTarget(place, limit)
    with pytest.raises(WillPass) as caught:
        target.check(known=False)
    target.close()
    assert place.password is None or place.password.reveal() not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSsh]:
    """A server that is never stopped; each test has a folder of its own on it."""
    with openssh(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture(scope="module")
def replacing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplacingSftp]:
    """A server of another make."""
    with replacing_sftp(tmp_path_factory.mktemp("other") / "server") as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OpenSsh]:
    """A server that the test may do anything to."""
    with openssh(tmp_path / "server") as server:
        yield server


@contextmanager
def using(place: SftpPlace, limit: float = 30) -> Iterator[SftpTarget]:
    target = SftpTarget(place, limit)
    try:
        target.check(known=False)
        yield target
    finally:
        target.close()


class SftpFolder:
    """See target_contract.Place."""

    def __init__(self, server: OpenSsh | ReplacingSftp, name: str) -> None:
        self.server, self.folder = server, f"{server.folder}/{name}"
        self.root = server.files / name
        self.root.mkdir()
        os.chown(self.root, UID, UID)
        self.targets = [SftpTarget(place_on(server, folder=self.folder))]
        self.target: Target = self.targets[0]

    def another(self) -> Target:
        place = place_on(self.server, folder=self.folder, key_file="", password=Secret(self.server.password))
        self.targets.append(SftpTarget(place))
        return self.targets[-1]

    def files(self) -> dict[str, bytes]:
        return {path: content for path, content in everything(self.root).items() if path != str(MARK)}

    def put(self, path: str, content: bytes) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        for one in (place, *place.relative_to(self.root).parents):
            os.chown(self.root / one, UID, UID)

    def close(self) -> None:
        for target in self.targets:
            target.close()


class TestSftpTarget(TargetContract):
    @pytest.fixture
    def place(self, tmp_path: Path, shared: OpenSsh) -> Iterator[SftpFolder]:
        place = SftpFolder(shared, tmp_path.name)
        yield place
        place.close()
        assert not [path for path in everything(place.root) if path.startswith(".") and path != str(MARK)]


class TestWhereARenameReplaces(TargetContract):
    @pytest.fixture
    def place(self, tmp_path: Path, replacing: ReplacingSftp) -> Iterator[SftpFolder]:
        place = SftpFolder(replacing, tmp_path.name)
        yield place
        place.close()
        assert not [path for path in everything(place.root) if path.startswith(".") and path != str(MARK)]


# Who is let in, and what is refused before anything is sent.


def test_a_password_is_enough(own: OpenSsh, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    place = with_password(own, own.password)
    with using(place) as target:
        put(target, A, b"sound")
        about = target.about()
    assert (own.files / A).read_bytes() == b"sound"
    assert about["user"] == own.user
    assert about["cipher"] == "aes128-gcm@openssh.com"
    assert about["host key"].startswith(own.fingerprint)
    assert about["server"].startswith("OpenSSH")
    assert about["durable"] == "yes"
    assert own.password not in repr((place, about, target, caplog.text))
    assert "ssh" not in caplog.text


def test_a_wrong_password_is_told(shared: OpenSsh) -> None:
    told = refusal(with_password(shared, "hunter2-wrong"))
    assert f"refuses user {shared.user} with the password" in told
    assert "hunter2-wrong" not in told


def test_a_wrong_key_is_told_with_the_line_that_the_server_needs(shared: OpenSsh) -> None:
    public = " ".join(shared.other_key_file.with_suffix(".pub").read_text().split()[:2])
    told = refusal(place_on(shared, key_file=str(shared.other_key_file)))
    assert "authorized_keys" in told
    assert public in told


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o700])
def test_a_key_that_others_may_read_is_not_used(shared: OpenSsh, tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key"
    key.write_bytes(shared.key_file.read_bytes())
    key.chmod(mode)
    assert f"chmod 600 '{key}'" in refusal(place_on(shared, key_file=str(key)))


def test_a_key_with_a_passphrase(shared: OpenSsh) -> None:
    key = str(shared.base / "id_locked")
    with using(place_on(shared, key_file=key, key_passphrase=Secret("open sesame"))) as target:
        assert target.about()["user"] == shared.user
    told = refusal(place_on(shared, key_file=key, key_passphrase=Secret("open poppy")))
    assert "passphrase is wrong" in told
    assert "poppy" not in told
    assert "passphrase" in refusal(place_on(shared, key_file=key))


def test_what_is_no_key_is_told(shared: OpenSsh, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert "No such file" in refusal(place_on(shared, key_file=str(key)))
    key.write_text("nonsense")
    key.chmod(0o600)
    assert "no private key" in refusal(place_on(shared, key_file=str(key)))
    assert "neither a password nor a key_file" in refusal(place_on(shared, key_file=""))


def test_without_a_host_key_nothing_is_sent_and_the_line_is_shown(own: OpenSsh) -> None:
    told = refusal(place_on(own, host_key=""))
    assert f'host_key = "{own.fingerprint}"' in told
    assert "Compare" in told
    assert not _logins(own)
    line = re.search(r'host_key = "(.*?)"', told)
    assert line is not None
    with using(place_on(own, host_key=line[1])):
        assert _logins(own)


def test_a_server_with_one_kind_of_host_key(own: OpenSsh) -> None:
    own.kill()
    own.drop_host_keys("ed25519", "ecdsa")
    own.start()
    with using(place_on(own, host_key=own.fingerprint_of("rsa"))) as target:
        assert "ssh-rsa" in target.about()["host key"]
    told = refusal(place_on(own, host_key=own.fingerprint))
    assert "ALARM" in told
    assert own.fingerprint_of("rsa") in told


def test_host_keys_in_all_forms_and_of_all_kinds(shared: OpenSsh) -> None:
    for kind in ("ed25519", "ecdsa", "rsa"):
        print_, public = shared.fingerprint_of(kind), shared.public_key(kind)
        for text in (print_, f"{print_}=", public, f"[127.0.0.1]:{shared.port} {public}"):
            with using(place_on(shared, host_key=text)) as target:
                assert target.about()["host key"].startswith(print_)
                target.close()
                target.check(known=True)


@pytest.mark.parametrize("text", ["SHA256:short", "ssh-ed25519", "MD5:00:11", "@revoked * ssh-rsa AAAA", "a key"])
def test_what_is_no_host_key_is_told(shared: OpenSsh, text: str) -> None:
    assert "is no host key" in refusal(place_on(shared, host_key=text))


@pytest.mark.parametrize("public", [False, True])
def test_a_changed_host_key_is_an_alarm_and_nothing_is_sent(own: OpenSsh, public: bool) -> None:
    place = with_password(own, own.password)
    old = own.public_key() if public else own.fingerprint
    own.kill()
    own.change_host_key("ed25519")
    own.start()
    own.log.write_text("")
    target = SftpTarget(place_on(own, host_key=old, key_file="", password=place.password))
    for _ in range(2):
        with pytest.raises(WillPass, match=r"ALARM.*Nothing was sent.*compare") as caught:
            target.check(known=True)
        assert own.fingerprint in str(caught.value)
    target.close()
    assert not _logins(own)
    assert everything(own.files) == {}


def test_a_host_key_that_changes_between_two_connections(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        put(target, A, b"sound")
        own.kill()
        own.change_host_key("ed25519")
        own.start()
        with pytest.raises(WillPass):  # noqa: PT012 - the connection is found broken first
            target.size(A.with_name("b"))
            target.size(A.with_name("b"))
        with pytest.raises(WillPass, match="ALARM"):
            target.size(A)


def _logins(server: OpenSsh) -> list[str]:
    """Return what sshd says of those who tried to get in."""
    return [line for line in server.log.read_text().splitlines() if re.search(r"Accepted|Failed|Postponed", line)]


# What cannot be reached.


def test_nobody_listens(own: OpenSsh) -> None:
    place = place_on(own)
    own.kill()
    assert "refuses connections" in refusal(place)


def test_the_name_is_unknown(shared: OpenSsh) -> None:
    assert re.search("name server|cannot be reached", refusal(place_on(shared, host="nas.invalid")))


def test_what_listens_never_says_anything(shared: OpenSsh) -> None:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        line.listen()
        started = time.monotonic()
        assert "does not answer within 1 s" in refusal(place_on(shared, port=line.getsockname()[1]), limit=1)
        assert time.monotonic() - started < 5


def test_what_lets_us_in_is_no_sftp(tmp_path: Path) -> None:
    with openssh(tmp_path / "server", more="ForceCommand echo hello, here is no SFTP") as server:
        assert re.search("no SFTP|ended the session", refusal(place_on(server)))


def test_a_server_that_sends_more_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    with replacing_sftp(tmp_path / "server") as server, using(place_on(server)) as target:
        put(target, A, b"sound")
        server.more_than_asked = b"!"
        with pytest.raises(WillPass, match="more than was asked for"):
            b"".join(target.read(A))
        server.more_than_asked = b""
        assert b"".join(target.read(A)) == b"sound"


def test_making_one_touches_no_network_and_loads_no_ssh() -> None:
    code = (
        "import sys; from tapdeck.storage.sftp_target import SftpPlace, SftpTarget; "
        "SftpTarget(SftpPlace('nas', 'nas.invalid', '/x', 'me')).close(); print('asyncssh' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# What breaks off, and goes on.


def test_a_killed_server_goes_on_where_it_was(own: OpenSsh) -> None:
    content = noise((24 << 20) + 5)
    target = SftpTarget(place_on(own))
    target.check(known=False)

    def send() -> None:
        with target.upload(A, len(content), digest_of(content)) as upload:
            for start in range(0, len(content), 1 << 20):
                if start == 12 << 20:
                    own.kill()
                upload.write(content[start : start + (1 << 20)])

    with pytest.raises(WillPass, match="tried again by itself"):
        send()
    with pytest.raises(WillPass, match="refuses connections"):
        target.check(known=True)
    own.start()
    kept = finish(target, A, content)
    target.close()
    assert 4 << 20 <= kept <= 12 << 20
    arrived = everything(own.files)
    assert arrived.keys() == {str(A), str(MARK)}
    assert hashlib.sha256(arrived[str(A)]).hexdigest() == digest_of(content)


def test_it_connects_again_by_itself(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        put(target, A, b"sound")
        own.kill_sessions()
        time.sleep(0.2)
        with pytest.raises(WillPass):
            target.size(A.with_name("b.wav"))
        assert target.size(A) == 5
        put(target, A.with_name("b.wav"), b"more")
    assert everything(own.files).keys() == {str(A), str(A.with_name("b.wav")), str(MARK)}


def test_a_killed_small_upload_leaves_nothing_after_the_next(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        with pytest.raises(WillPass), target.upload(A, 5) as upload:  # noqa: PT012
            upload.write(b"so")
            own.kill_sessions()
        put(target, A, b"sound")
    assert everything(own.files).keys() == {str(A), str(MARK)}
    assert (own.files / A).read_bytes() == b"sound"


@pytest.mark.parametrize("moment", ["check", "size", "write", "read_back", "read"])
def test_a_server_that_stands_still_is_given_up(own: OpenSsh, moment: str) -> None:
    target = SftpTarget(place_on(own), limit=1)
    target.check(known=False)
    put(target, A, b"sound")

    def use() -> None:
        if moment == "check":
            target.check(known=True)
        elif moment == "size":
            target.size(A.with_name("c"))
        elif moment == "read":
            b"".join(target.read(A))
        else:
            with target.upload(A.with_name("b.wav"), 32 << 20, "0" * 64) as taken:
                own.stall()
                for _ in range(32 if moment == "write" else 1):
                    taken.write(noise(1 << 20))
                b"".join(taken.read_back())

    if moment in ("check", "size", "read"):
        own.stall()
    started = time.monotonic()
    with pytest.raises(WillPass, match="has not answered for 1 s"):
        use()
    assert time.monotonic() - started < 8
    own.resume()
    target.check(known=True)
    target.close()


def test_a_slow_upload_outlives_the_servers_patience(tmp_path: Path) -> None:
    """The server asks now and then whether we are still there: while a pause of a bandwidth limit lasts, too."""
    with (
        openssh(tmp_path / "server", more="ClientAliveInterval 1\nClientAliveCountMax 1") as server,
        using(place_on(server)) as target,
    ):
        with target.upload(A, 4) as upload:
            upload.write(b"so")
            time.sleep(3.5)
            upload.write(b"nd")
        assert (server.files / A).read_bytes() == b"sond"


def test_a_connection_that_nobody_uses_is_closed(shared: OpenSsh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapdeck.storage.sftp.session._IDLE_S", 0.2)
    shared.log.write_text("")
    with using(place_on(shared)) as target:
        deadline = time.monotonic() + 10
        while "Disconnected from user" not in shared.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert target.size(A) is None


# What the server's folder does.


@pytest.fixture
def small(tmp_path: Path) -> Iterator[OpenSsh]:
    """A server with a disk of 16 MB."""
    files = tmp_path / "server/files"
    files.mkdir(parents=True)
    if os.getuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "none", files], check=True)
    try:
        with openssh(tmp_path / "server") as server:
            yield server
    finally:
        subprocess.run(["umount", "--lazy", files], check=False, capture_output=True)


def test_a_full_disk_is_told_and_nothing_half_is_left(small: OpenSsh) -> None:
    with using(place_on(small)) as target:
        large = noise(20 << 20)
        with pytest.raises(WillPass, match=r"disk is full.*make room"):
            put(target, A, large, digest_of(large))
        with pytest.raises(WillPass, match="disk is full"):
            put(target, A, large)
        assert everything(small.files).keys() == {str(MARK)}
        put(target, A, b"sound")
        filler = fill(small.files)
        with pytest.raises(WillPass, match="disk is full"):
            target.check(known=True)
        with pytest.raises(WillPass, match="disk is full"):
            put(target, A.with_name("b.wav"), noise(1 << 20))
        filler.unlink()
        target.check(known=True)
        assert everything(small.files).keys() == {str(MARK), str(A)}


def test_a_disk_that_fills_up_on_the_way_keeps_no_part(small: OpenSsh) -> None:
    content = noise(12 << 20)
    with using(place_on(small)) as target:

        def send() -> None:
            with target.upload(A, len(content), digest_of(content)) as upload:
                fill(small.files)
                upload.write(content)

        with pytest.raises(WillPass, match="disk is full"):
            send()
    assert everything(small.files).keys() == {str(MARK), ".filler"}


def test_a_read_only_disk_is_told(small: OpenSsh) -> None:
    with using(place_on(small)) as target:
        put(target, A, b"sound")
        target.close()  # no file is open there
        subprocess.run(["mount", "-o", "remount,ro", small.files], check=True)
        with pytest.raises(WillPass, match="read-only"):
            target.check(known=True)
        with pytest.raises(WillPass, match="read-only"):
            put(target, A.with_name("b.wav"), b"more")
        subprocess.run(["mount", "-o", "remount,rw", small.files], check=True)
        put(target, A.with_name("b.wav"), b"more")


def test_no_right_to_write_is_told(own: OpenSsh) -> None:
    os.chown(own.files, 0, 0)
    told = refusal(place_on(own))
    assert f"give the user {own.user} the right to write" in told
    os.chown(own.files, UID, UID)
    with using(place_on(own)) as target:
        (own.files / "2026").mkdir(mode=0o755)
        with pytest.raises(WillPass, match="no right"):
            put(target, A, b"sound")
        os.chown(own.files / "2026", UID, UID)
        put(target, A, b"sound")


def test_a_folder_that_is_not_there_is_not_made(own: OpenSsh) -> None:
    assert "is not on the server" in refusal(place_on(own, folder=f"{FOLDER}/usb"))
    (own.files / "usb").write_bytes(b"")
    assert "is no folder" in refusal(place_on(own, folder=f"{FOLDER}/usb"))
    (own.files / "usb").unlink()
    assert everything(own.files) == {}


def test_a_mount_point_without_its_disk_takes_nothing(own: OpenSsh) -> None:
    disk = own.files / "usb"
    disk.mkdir()
    os.chown(disk, UID, UID)
    with using(place_on(own, folder=f"{FOLDER}/usb")) as target:
        put(target, A, b"sound")
        away = disk.rename(own.files / "away")
        with pytest.raises(WillPass):
            put(target, A.with_name("b.wav"), b"more")
        disk.mkdir()
        os.chown(disk, UID, UID)
        for path in (A.with_name("b.wav"), PurePosixPath("2027/c.wav")):
            with pytest.raises(WillPass, match=r"is missing\. Is the disk mounted"):
                put(target, path, b"more")
        with pytest.raises(WillPass, match=r"is missing\. Is the disk mounted"):
            target.check(known=True)
        assert list(disk.iterdir()) == []
        disk.rmdir()
        away.rename(disk)
        target.check(known=True)
        put(target, A.with_name("b.wav"), b"more")


def test_a_folder_that_was_removed_is_made_again(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        put(target, A, b"sound")
        (own.files / A).unlink()
        (own.files / A).parent.rmdir()
        put(target, A, b"sound")
        assert target.size(A) == 5


def test_a_file_where_a_folder_is_needed(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        (own.files / "2026").write_bytes(b"in the way")
        assert target.size(A) is None
        with pytest.raises(NameTaken, match="is a file, where a folder is needed"):
            put(target, A, b"sound")
        assert everything(own.files)["2026"] == b"in the way"
        (own.files / "x").mkdir(mode=0o755)
        with pytest.raises(NameTaken, match="is no file"):
            target.size(PurePosixPath("x"))


@pytest.mark.parametrize(
    "name",
    [
        "a\\b",
        'a:b*c?d"e<f>g|h',
        "[a]{b}*",
        "-rf",
        "a\nb",
        "#1 %41 ;&",
        "e\u0301",
        "\udcff\udc80",
        "..a",
        "x" * 240,
        "ä" * 120,
    ],
)
def test_names_arrive_as_they_are(shared: OpenSsh, tmp_path: Path, name: str) -> None:
    place = SftpFolder(shared, tmp_path.name)
    place.target.check(known=False)
    put(place.target, PurePosixPath("d", name), b"sound")
    assert place.target.size(PurePosixPath("d", name)) == 5
    assert b"".join(place.target.read(PurePosixPath("d", name))) == b"sound"
    assert os.listdir(place.root / "d") == [name]
    place.close()


def test_names_that_cannot_be_are_told(shared: OpenSsh, tmp_path: Path) -> None:
    place = SftpFolder(shared, tmp_path.name)
    place.target.check(known=False)
    for name in ("x" * 256, "a\0b"):
        with pytest.raises(TargetError, match=r"refuses the name|NUL"):
            put(place.target, PurePosixPath("d", name), b"sound")
    place.close()


# How files get their names.


@pytest.mark.parametrize("options", ["", "-P hardlink,posix-rename", "-P fsync,statvfs,limits", None])
def test_no_file_is_ever_replaced(tmp_path: Path, options: str | None) -> None:
    """By OpenSSH with and without its extensions, and by a server whose rename would replace."""
    running = replacing_sftp(tmp_path / "server") if options is None else openssh(tmp_path / "server", options)
    with running as server, using(place_on(server)) as target:
        about = target.about()
        assert about["naming"].startswith("claims the name" if options is None else "rename, which this server refuses")
        assert ("no fsync" in about["durable"]) == ("fsync" in (options or ""))
        for digest in ("", digest_of(b"ours")):
            other = server.files / A
            with pytest.raises(NameTaken, match="other content"), target.upload(A, 4, digest) as upload:  # noqa: PT012
                upload.write(b"ours")
                assert b"".join(upload.read_back()) == b"ours"
                other.write_bytes(b"them")
            assert everything(server.files).keys() == {str(A), str(MARK)}
            assert other.read_bytes() == b"them"
            with target.upload(A, 4, digest) as upload:
                upload.write(b"them")
            other.unlink()
            put(target, A, b"ours", digest)
            assert everything(server.files).keys() == {str(A), str(MARK)}
            other.unlink()


@pytest.mark.parametrize("long", [False, True])
def test_the_second_name_that_a_kill_leaves_goes(own: OpenSsh, long: bool) -> None:
    """The server lost its power between giving the name and taking the temporary one."""
    sound, other = (noise(1 << 20), noise(1 << 20)) if long else (b"sound", b"other")
    with using(place_on(own)) as target:
        put(target, A, sound)
        part = own.files / A.with_name(part_name(A.name, digest_of(sound) if long else ""))
        os.link(own.files / A, part)
        with pytest.raises(NameTaken):
            put(target, A, other, digest_of(other) if long else "")
        assert (own.files / A).read_bytes() == sound
        assert not part.exists()
        os.link(own.files / A, part)
        target.close()
        assert target.size(A) == len(sound)
        assert b"".join(target.read(A)) == sound
        assert everything(own.files).keys() == {str(A), str(MARK)}


def test_many_files_into_one_folder_and_what_others_put_there_meanwhile(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        for number in range(60):
            path = A.with_name(f"{number}.wav")
            assert target.size(path) is None
            if number in (40, 50):
                (own.files / path).write_bytes(b"them" if number == 40 else b"%4d" % number)
                os.chown(own.files / path, UID, UID)
            if number == 40:
                with pytest.raises(NameTaken):
                    put(target, path, b"%4d" % number)
            else:
                put(target, path, b"%4d" % number)
            assert target.size(path) == 4
            assert target.size(path) == 4
    expected = {str(A.with_name(f"{n}.wav")): b"them" if n == 40 else b"%4d" % n for n in range(60)}
    there = everything(own.files)
    assert there.pop(str(MARK))
    assert there == expected


def test_what_a_killed_probe_leaves_goes(own: OpenSsh) -> None:
    for name in (part_name(str(MARK)), part_name(f"{MARK}.second")):
        (own.files / name).write_bytes(b"half")
    with using(place_on(own)):
        assert everything(own.files).keys() == {str(MARK)}


def test_modes_are_for_the_owner_or_as_the_folder_is_shared(own: OpenSsh) -> None:
    with using(place_on(own)) as target:
        put(target, A, b"sound")
    assert (own.files / A).stat().st_mode & 0o777 == 0o600
    assert (own.files / "2026").stat().st_mode & 0o777 == 0o700
    own.files.chmod(0o2770)
    with using(place_on(own)) as target:
        put(target, PurePosixPath("2027/b"), b"sound")
    assert (own.files / "2027/b").stat().st_mode & 0o777 == 0o640
    assert (own.files / "2027").stat().st_mode & 0o777 == 0o750


def test_half_a_gigabyte(shared: OpenSsh, tmp_path: Path) -> None:
    place, block, digest = SftpFolder(shared, tmp_path.name), noise(1 << 20), hashlib.sha256()
    place.target.check(known=False)
    with place.target.upload(A, 500 << 20, "ab" * 32) as upload:
        for number in range(500):
            piece = number.to_bytes(4) + block[4:]
            digest.update(piece)
            upload.write(piece)
    assert place.target.size(A) == 500 << 20
    with (place.root / A).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hexdigest()
    place.close()
    (place.root / A).unlink()


def test_what_is_kept_survives_another_connection(shared: OpenSsh, tmp_path: Path) -> None:
    place, content = SftpFolder(shared, tmp_path.name), noise(5 << 20)
    break_off(place.target, A, content, 3 << 20)
    assert finish(place.another(), A, content) == 3 << 20
    assert place.files() == {str(A): content}
    place.close()
