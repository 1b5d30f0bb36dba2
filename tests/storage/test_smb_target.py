"""A share as a target, against a real Samba server."""

import hashlib
import os
import signal
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tapdeck.storage.secret import Secret
from tapdeck.storage.smb_target import MARK, SmbPlace, SmbTarget
from tapdeck.storage.targets import ForGood, NameTaken, Target, WillPass
from tests.support.parcels import everything, fill, noise, small_disk, visible
from tests.support.samba import PASSWORD, SHARE, USER, Samba, needs_samba
from tests.support.target_contract import Place, TargetContract, digest_of

pytestmark = needs_samba
SOUND = PurePosixPath("2026/11/24/call.wav")
Start = Callable[..., Samba]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Samba] = []

    def begin(folder: Path | None = None, **settings: str) -> Samba:
        servers.append(Samba(folder or tmp_path / "share", **settings))
        return servers[-1]

    yield begin
    for server in servers:
        with suppress(ProcessLookupError):
            server.signal(signal.SIGCONT)
        server.close()


def target_of(samba: Samba, limit: float = 10.0, **other: Any) -> SmbTarget:
    place = {"name": "nas", "server": "127.0.0.1", "port": samba.port, "share": SHARE, "user": USER}
    return SmbTarget(SmbPlace(**{**place, "password": Secret(PASSWORD), **other}), limit)


def put(target: Target, path: PurePosixPath, content: bytes, digest: str = "") -> int:
    with target.upload(path, len(content), digest) as upload:
        for begin in range(upload.kept, len(content), 1 << 20):
            upload.write(content[begin : begin + (1 << 20)])
        assert b"".join(upload.read_back()) == content
    return upload.kept


class SambaPlace:
    def __init__(self, server: Samba) -> None:
        self.server, self.target = server, target_of(server)
        self._others: list[SmbTarget] = []

    def another(self) -> Target:
        self._others.append(target_of(self.server))
        return self._others[-1]

    def files(self) -> dict[str, bytes]:
        return visible(self.server.folder)

    def put(self, path: str, content: bytes) -> None:
        place = self.server.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def close(self) -> None:
        for target in (self.target, *self._others):
            target.close()


class TestSmbTarget(TargetContract):
    @pytest.fixture
    def place(self, start: Start) -> Iterator[Place]:
        place = SambaPlace(start())
        yield place
        place.close()


def test_making_one_touches_no_network() -> None:
    target = SmbTarget(SmbPlace("nas", "no-such-server.invalid", "x", "me", Secret("s3cret-word")))
    assert target.name == "nas"
    assert "s3cret-word" not in repr(target)


def test_it_is_encrypted_and_says_so(start: Start) -> None:
    target = target_of(start())
    target.check(known=False)
    about = target.about()
    assert (about["dialect"], about["encryption"]) == ("SMB 3.1.1", "AES-128-GCM")


@pytest.mark.parametrize("other", [{"password": Secret("wrong-word-9")}, {"user": "nobody-here"}])
@pytest.mark.parametrize("guests", ["never", "bad user"])
def test_a_wrong_password_says_so_and_stays_secret(start: Start, other: dict[str, Any], guests: str) -> None:
    target = target_of(start(settings=f"map to guest = {guests}"), **other)
    with pytest.raises(WillPass, match="user name or password") as raised:
        target.check(known=False)
    told = "".join(traceback.format_exception(raised.value)) + repr(target)
    assert "wrong-word-9" not in told
    assert PASSWORD not in told


def test_a_refused_password_is_not_tried_again_and_again(start: Start) -> None:
    """Domains lock an account after a few wrong ones."""
    server = start(settings="log level = 1 auth_audit:3")
    for _ in range(4):
        with pytest.raises(WillPass, match="user name or password"):
            target_of(server, password=Secret("wrong-word-9")).check(known=False)
    assert server.log().count("NT_STATUS_WRONG_PASSWORD") == 1
    target_of(server).check(known=False)


def test_a_share_that_is_gone(start: Start) -> None:
    server = start()
    with pytest.raises(WillPass, match="no such share"):
        target_of(server, share="other").check(known=False)


def test_a_server_that_is_gone_and_comes_back(start: Start) -> None:
    server = start()
    target = target_of(server)
    target.check(known=False)
    server.kill()
    with suppress(WillPass):  # it may have noticed already
        target.size(SOUND)
    with pytest.raises(WillPass, match="cannot be reached"):
        target.size(SOUND)
    server.start()
    put(target, SOUND, b"sound")
    assert target.about()["encryption"] == "AES-128-GCM"


def test_a_name_that_nobody_knows(start: Start) -> None:
    with pytest.raises(WillPass, match="is not known"):
        target_of(start(), server="no-such-server.invalid").check(known=False)


def test_a_server_that_refuses_encryption(start: Start) -> None:
    server = start(settings="server smb encrypt = off")
    with pytest.raises(WillPass, match="refuses encryption"):
        target_of(server).check(known=False)
    target = target_of(server, require_encryption=False)
    target.check(known=False)
    put(target, SOUND, noise(3 << 20))
    assert (target.about()["signing"], target.about()["encryption"]) == ("AES-GMAC", "none")


@pytest.mark.parametrize("newest", ["SMB2_02", "SMB2_10", "SMB3_00", "SMB3_02"])
def test_older_servers(start: Start, newest: str) -> None:
    server = start(settings=f"server max protocol = {newest}\nserver min protocol = SMB2_02")
    content = noise(3 << 20)
    if newest.startswith("SMB2"):
        with pytest.raises(WillPass, match="refuses encryption"):
            target_of(server).check(known=False)
        target = target_of(server, require_encryption=False)
    else:
        target = target_of(server)
    target.check(known=False)
    put(target, SOUND, content)
    assert (server.folder / SOUND).read_bytes() == content


def test_nothing_goes_in_clear_after_a_reconnect(start: Start) -> None:
    server, marker = start(), b"what was said in the call " * 400
    target = target_of(server)
    target.check(known=False)
    server.restart()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        tap.bind(("lo", 0))
        put(target, SOUND, marker)
        tap.settimeout(0.3)
        seen, end, port = b"", time.monotonic() + 1.5, server.port.to_bytes(2)
        with suppress(TimeoutError):
            while time.monotonic() < end:  # others may use the loopback too, without a pause
                frame = tap.recv(1 << 17)
                seen += frame if port in (frame[34:36], frame[36:38]) else b""
    assert b"\xfdSMB" in seen
    assert marker[:26] not in seen
    assert "call.wav".encode("utf-16-le") not in seen


def test_killed_in_the_middle_it_goes_on_where_it_was(start: Start) -> None:
    server, content = start(), noise(48 << 20)
    target = target_of(server)
    target.check(known=False)
    with pytest.raises(WillPass):  # noqa: PT012, SIM117
        with target.upload(SOUND, len(content), digest_of(content)) as upload:
            for begin in range(0, len(content), 1 << 20):
                if begin == 40 << 20:
                    server.kill()
                upload.write(content[begin : begin + (1 << 20)])
    server.start()
    assert put(target, SOUND, content, digest_of(content)) >= 16 << 20
    assert hashlib.sha256((server.folder / SOUND).read_bytes()).hexdigest() == digest_of(content)
    assert set(everything(server.folder)) == {str(SOUND), MARK}


def test_a_full_disk_says_so_and_keeps_nothing(start: Start, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 32) as disk:
        server = start(disk)
        target = target_of(server)
        target.check(known=False)
        with pytest.raises(WillPass, match="disk there is full"), target.upload(SOUND, 64 << 20):
            raise AssertionError("there is no room for it")
        with pytest.raises(WillPass, match="full"), target.upload(SOUND, 8 << 20) as upload:  # noqa: PT012
            fill(disk)
            upload.write(noise(8 << 20))
        (disk / ".filler").unlink()
        target.size(SOUND)
        assert set(everything(disk)) == {MARK}
        put(target, SOUND, b"sound")
        target.close()
        server.kill()


def test_a_read_only_share(start: Start) -> None:
    with pytest.raises(WillPass, match="right to write"):
        target_of(start(share="read only = yes")).check(known=False)


def test_a_server_that_stalls_is_given_up_in_time(start: Start) -> None:
    server = start()
    target = target_of(server, limit=1.0)
    target.check(known=False)
    server.signal(signal.SIGSTOP)
    for other in (target, target_of(server, limit=1.0)):
        begun = time.monotonic()
        with pytest.raises(WillPass, match="answer"):
            other.size(SOUND)
        assert time.monotonic() - begun < 8
    server.signal(signal.SIGCONT)
    put(target, SOUND, b"sound")


def test_a_server_that_stalls_in_the_middle_is_given_up_in_time(start: Start) -> None:
    server, content = start(), noise(64 << 20)
    target = target_of(server, limit=1.0)
    target.check(known=False)
    begun = time.monotonic()
    with pytest.raises(WillPass, match="answer"), target.upload(SOUND, len(content)) as upload:  # noqa: PT012
        upload.write(content[: 8 << 20])
        server.signal(signal.SIGSTOP)
        upload.write(content[8 << 20 :])
    assert time.monotonic() - begun < 8
    server.signal(signal.SIGCONT)
    put(target, SOUND, b"sound")


class Between:
    """Sits between a target and its server. `forged` is sent to the target in place of its next message."""

    def __init__(self, server: Samba) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.forged = b""
        self._server = server
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self._server.port))
            threading.Thread(target=self._back, args=(client, server), daemon=True).start()
            while data := client.recv(1 << 16):
                if self.forged:
                    client.sendall(len(self.forged).to_bytes(4) + self.forged)
                else:
                    server.sendall(data)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_forged_answer_is_not_taken(start: Start, encrypted: bool) -> None:
    """An answer to CREATE that is neither encrypted nor signed: the library would take it."""
    server = start(settings="" if encrypted else "server smb encrypt = off")
    between = Between(server)
    target = target_of(server, limit=2.0, port=between.port, require_encryption=encrypted)
    target.check(known=False)
    number = target._share.line().sequence_window["low"]
    header = struct.pack("<4sHHIHHIIQIIQ16s", b"\xfeSMB", 64, 1, 0, 5, 1, 1, 0, number, 0, 0, 0, bytes(16))
    between.forged = header + struct.pack("<H", 89) + bytes(86)
    with pytest.raises(WillPass, match="without encryption" if encrypted else "not signed"):
        target.size(SOUND)
    between.listener.close()


@pytest.mark.parametrize("name", ["Zoë Müller", "🎉 +#%&'()[]{};=@~^!$", "日本語", "x" * 220 + ".wav", "a..b", "-"])
def test_odd_names(start: Start, name: str) -> None:
    server = start()
    target = target_of(server)
    target.check(known=False)
    put(target, PurePosixPath("2026", name), b"sound")
    assert (server.folder / "2026" / name).read_bytes() == b"sound"
    assert target.size(PurePosixPath("2026", name)) == 5


@pytest.mark.parametrize("name", ["a:b", "a\\b", "a*", "a?", 'a"', "a|b", "a\nb", "y" * 300])
def test_names_that_are_refused(start: Start, name: str) -> None:
    target = target_of(start())
    target.check(known=False)
    with pytest.raises(ForGood):
        put(target, PurePosixPath("2026", name), b"sound")


def test_a_file_in_place_of_a_folder(start: Start) -> None:
    server = start()
    target = target_of(server)
    target.check(known=False)
    (server.folder / "2026").write_bytes(b"a file")
    with pytest.raises(NameTaken):
        put(target, SOUND, b"sound")


def test_another_folder_than_the_known_one(start: Start) -> None:
    server = start()
    (server.folder / "deep" / "down").mkdir(parents=True)
    target = target_of(server, folder="deep/down")
    with pytest.raises(WillPass, match=r"\.tapdeck-target is missing"):
        target.check(known=True)
    target.check(known=False)
    target.check(known=True)
    put(target, SOUND, b"sound")
    assert (server.folder / "deep" / "down" / SOUND).read_bytes() == b"sound"
    with pytest.raises(WillPass, match="make the folder"):
        target_of(server, folder="missing").check(known=False)


def test_two_at_the_same_file(start: Start) -> None:
    server = start()
    one, two = target_of(server), target_of(server)
    one.check(known=False)
    content = noise(2 << 20)
    with one.upload(SOUND, len(content)) as upload:
        upload.write(content)
        with pytest.raises(WillPass, match="holds it open"):
            put(two, SOUND, content)
    assert (server.folder / SOUND).read_bytes() == content


def test_half_a_gigabyte(start: Start, tmp_path: Path) -> None:
    server, block, count = start(), noise(1 << 20), 500
    target, whole, back = target_of(server), hashlib.sha256(), hashlib.sha256()
    target.check(known=False)
    with target.upload(SOUND, count << 20) as upload:
        for number in range(count):
            piece = number.to_bytes(8) + block[8:]
            whole.update(piece)
            upload.write(piece)
    for piece in target.read(SOUND):
        back.update(piece)
    assert back.digest() == whole.digest()
    os.unlink(server.folder / SOUND)
