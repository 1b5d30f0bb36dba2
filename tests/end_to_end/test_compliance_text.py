"""Every command of docs/compliance.md is run, in a folder that a real seal stage has made, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tapdeck.cli.seal_stage import SealStage
from tapdeck.storage.keys import KeyStore
from tests.support import spooled
from tests.support.authority import serving

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "compliance.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a block, each with what it is to print."""
    result: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("#>"):
            result[-1][1].append(line.removeprefix("#>").strip())
        else:
            result.append((line, []))
    return result


COMMANDS = [command for block in BLOCKS for command in commands(block)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of a recorder, closed and time-stamped, whose key was rotated the day before."""
    folder = tmp_path_factory.mktemp("box")
    day = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
    clock = SimpleNamespace(ahead=0.0)
    with pytest.MonkeyPatch.context() as patch, serving(folder / "authority") as authority:
        patch.setattr(spooled, "START_NS", int(day) * 10**9)
        made = spooled.settings(folder, timestamp_url=authority.url)
        real = time.time_ns
        patch.setattr("time.time_ns", lambda: int(day * 10**9 + clock.ahead * 10**9) + real() % 10**9)
        store = KeyStore(folder / "keys", name="mains street")
        store.open()
        store.rotate(datetime.fromtimestamp(day, UTC))
        spooled.hand_over(folder, 3)
        stage = spooled.stage(made)
        run(stage)
        clock.ahead = 86_400
        end = time.monotonic() + 20
        while not list((folder / "recordings").rglob("*.tsr")):
            assert time.monotonic() < end
            stage._reported = 0.0
            stage.tick()
            time.sleep(0.01)
        stage.end()
    (place,) = {path.parent for path in (folder / "recordings").rglob("*.tsr")}
    (place / "authority.pem").write_bytes((folder / "authority" / "ca.pem").read_bytes())
    (place / "words").write_text("correct horse battery staple")
    (folder / "tapdeck.toml").write_text(
        f'[storage]\nrecordings = "{folder}/recordings"\nspool = "{folder}/spool"\nstate = "{folder}/state"\n'
        f'[signing]\nkeys = "{folder}/keys"\n[users]\ngroup = ""\ncapture = ""\nseal = ""\ndeliver = ""\nmetrics = ""\n'
    )
    tool = folder / "bin" / "tapdeck"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}/src" exec "{sys.executable}" -m tapdeck.cli "$@"\n')
    tool.chmod(0o755)
    return place


def run(stage: SealStage) -> None:
    stage.begin()
    while stage.tick():
        pass


def test_each_command_prints_what_the_text_says(box: Path) -> None:
    """All in one shell, one after the other, as somebody would who follows the text."""
    folder = box.parents[3]
    stem = sorted(box.glob("*_hash.txt"))[-1].name.removesuffix("_hash.txt")
    lines = ["set -eu"]
    for number, (command, _) in enumerate(COMMANDS):
        command = f"S={stem}" if command.startswith("S=") else command
        lines += [f"echo '=== {number}'", command]
    lines.append("echo '=== end'")
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines)],
        cwd=box,
        env={"PATH": f"{folder}/bin:/usr/bin:/bin", "TAPDECK_CONFIG": f"{folder}/tapdeck.toml", "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "=== end" in done.stdout, done.stdout
    parts = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
    for number, (command, wanted) in enumerate(COMMANDS):
        for text in wanted:
            assert text in parts[str(number)], f"{command}\nprinted\n{parts[str(number)]}"


def test_the_text_has_the_commands_that_matter() -> None:
    said = "\n".join(command for command, _ in COMMANDS)
    for word in (
        "openssl dgst",
        "sha256sum -c",
        "openssl ts -verify",
        "openssl verify",
        "PreviousSignature",
        "verify.sh",
    ):
        assert word in said
    assert all(wanted for command, wanted in COMMANDS if command.startswith(("openssl dgst", "openssl ts", "cmp")))


@pytest.mark.parametrize("ending", [".wav", "_info.txt", "_hash.txt", "_hash.SHA256withRSA.sig"])
def test_a_changed_bit_makes_a_command_fail(box: Path, ending: str) -> None:
    """The same commands say no."""
    stem = sorted(box.glob("*_hash.txt"))[-1].name.removesuffix("_hash.txt")
    path = box / f"{stem}{ending}"
    before = path.read_bytes()
    path.write_bytes(before[:-5] + bytes([before[-5] ^ 1]) + before[-4:])
    script = "\n".join(
        [
            "set -eu",
            f"S={stem}",
            *(command for command, _ in COMMANDS if "tapdeck-certificate" in command or "${S}" in command),
        ]
    )
    chosen = script.split("before=")[0]
    try:
        done = subprocess.run(["sh", "-c", chosen], cwd=box, capture_output=True, text=True)
        assert done.returncode != 0, done.stdout
    finally:
        path.write_bytes(before)
