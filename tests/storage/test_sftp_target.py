"""An SFTP server as a target, against a real OpenSSH server on loopback."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapdeck.storage.secret import Secret
from tapdeck.storage.sftp_target import MARK, SftpPlace, SftpTarget
from tapdeck.storage.targets import Target
from tests.support.openssh import FOLDER, UID, OpenSsh, openssh
from tests.support.parcels import everything
from tests.support.target_contract import TargetContract


def place_on(server: OpenSsh, **changes: object) -> SftpPlace:
    values = {
        "name": "nas",
        "host": server.host,
        "port": server.port,
        "folder": FOLDER,
        "user": server.user,
        "host_key": server.fingerprint,
        "key_file": str(server.key_file),
    }
    return SftpPlace(**{**values, **changes})  # type: ignore[arg-type]


class SftpFolder:
    """See target_contract.Place."""

    def __init__(self, server: OpenSsh) -> None:
        self.server = server
        self.targets = [SftpTarget(place_on(server))]
        self.target: Target = self.targets[0]

    def another(self) -> Target:
        self.targets.append(SftpTarget(place_on(self.server, key_file="", password=Secret(self.server.password))))
        return self.targets[-1]

    def files(self) -> dict[str, bytes]:
        return {path: content for path, content in everything(self.server.files).items() if path != str(MARK)}

    def put(self, path: str, content: bytes) -> None:
        place = self.server.files / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        for one in (place, *place.relative_to(self.server.files).parents):
            os.chown(self.server.files / one, UID, UID)

    def close(self) -> None:
        for target in self.targets:
            target.close()


class TestSftpTarget(TargetContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[SftpFolder]:
        with openssh(tmp_path / "server") as server:
            place = SftpFolder(server)
            yield place
            place.close()
