"""Real SIP clients in a lab: baresip as a phone driven by hand, sipp for several calls at once."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest

from .lab import Lab, address
from .netns import Namespaces, entered, needs_namespaces, stop, wait_for
from .speech import Speech

MODULES = (Path("/usr/lib/baresip/modules"), *sorted(Path("/usr/lib").glob("*/baresip/modules")))
SCENARIOS = Path(__file__).with_name("sipp")
CONTROL = ("127.0.0.1", 4444)
NUMBERS = {"a": "2001", "b": "2002", "c": "2003"}
PATIENCE_S = 10.0

needs_phones: pytest.MarkDecorator = needs_namespaces("baresip", "sipp", "espeak-ng", "sox", "tcpdump")


class Baresip:
    """A phone at a host of the lab. Its microphone is a speech, from the answer on; its ears are nobody's."""

    def __init__(self, lab: Lab, host: str, speech: Speech, folder: Path, codec: str = "PCMA") -> None:
        self.lab, self.host, self.number = lab, host, NUMBERS[host]
        self.events: list[tuple[float, str]] = []
        self._folder = folder / f"baresip-{host}"
        self._configure(speech, codec)
        self._buffer = b""

    @property
    def uri(self) -> str:
        return f"sip:{self.number}@{address(self.host)}"

    def __enter__(self) -> Baresip:
        log = self._folder / "log"
        self._process = self.lab.spaces.start(
            self.lab.of[self.host], "baresip", "-4", "-f", self._folder, "-s", log=log
        )
        with entered(self.lab.of[self.host]):
            wait_for("baresip's control port", self._connected)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._control.close()
        stop(self._process)

    def dial(self, other: Baresip | str) -> None:
        """Call another phone (or a URI)."""
        self._command("dial", other if isinstance(other, str) else other.uri)

    def answer(self) -> float:
        """Take the call that rings; return the time at which that was done."""
        self.wait("CALL_INCOMING")
        self._command("accept")
        return self.wait("CALL_ESTABLISHED")

    def hang_up(self) -> None:
        self._command("hangup")

    def hold(self) -> None:
        self._command("hold")

    def resume(self) -> None:
        self._command("resume")

    def press(self, keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self._command("sndcode", key)
            time.sleep(0.3)

    def transfer(self, other: Baresip) -> None:
        """Send who is on the line on to another phone (REFER)."""
        self._command("transfer", other.uri)

    def wait(self, event: str) -> float:
        """Wait for an event of baresip's, like CALL_ESTABLISHED; return its time. Raises TimeoutError."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for when, kind in self.events:
                if kind == event:
                    return when
            self._read()
        raise TimeoutError(f"{self.host}: no {event} within {PATIENCE_S:g} s, only {[kind for _, kind in self.events]}")

    def _connected(self) -> bool:
        try:
            self._control = socket.create_connection(CONTROL, 2)
        except ConnectionRefusedError:
            return False
        self._control.settimeout(0.1)
        return True

    def _command(self, name: str, parameters: str = "") -> None:
        text = json.dumps({"command": name, "params": parameters}).encode()
        self._control.sendall(b"%d:%s," % (len(text), text))

    def _read(self) -> None:
        """Take in netstrings of JSON from the control port."""
        try:
            self._buffer += self._control.recv(65536)
        except TimeoutError:
            return
        while found := re.match(rb"(\d+):", self._buffer):
            begin, end = found.end(), found.end() + int(found[1])
            if len(self._buffer) <= end:
                return
            message, self._buffer = json.loads(self._buffer[begin:end]), self._buffer[end + 1 :]
            if message.get("event"):
                self.events.append((time.time(), message["type"]))

    def _configure(self, speech: Speech, codec: str) -> None:
        self._folder.mkdir(parents=True)
        modules = next(path for path in MODULES if path.is_dir())
        account = f"<{self.uri};transport=udp>;regint=0;audio_codecs={codec};ptime=20\n"
        (self._folder / "accounts").write_text(f'"Phone {self.host}" {account}')
        (self._folder / "contacts").touch()
        lines = [
            f"module_path {modules}",
            f"sip_listen {address(self.host)}:5060",
            f"audio_source aufile,{speech.wav}",
            "audio_player aubridge,nil",
            "audio_alert aubridge,nil",
            f"ausrc_channels {2 if codec.endswith('/2') else 1}",
            f"auplay_channels {2 if codec.endswith('/2') else 1}",
            "rtp_ports 20000-20998",
            *(f"module {name}.so" for name in ("g711", "aufile", "aubridge", *_codec_module(codec))),
            "opus_stereo no",
            "opus_sprop_stereo no",
            "opus_bitrate 64000",
            "module_tmp account.so",
            "module_app menu.so",
            "module_app ctrl_tcp.so",
            "ctrl_tcp_listen {}:{}".format(*CONTROL),
        ]
        (self._folder / "config").write_text("\n".join(lines) + "\n")


def _codec_module(codec: str) -> tuple[str, ...]:
    """The module that a codec of baresip's lies in, by its name."""
    name = codec.partition("/")[0].partition("-")[0].lower()
    return () if name in ("pcma", "pcmu") else (name,)


class Sipp:
    """sipp at a host of the lab, running one of our scenarios; `voice` is a capture of RTP that it plays."""

    def __init__(self, lab: Lab, host: str, scenario: str, voice: Path, folder: Path) -> None:
        self.lab, self.host = lab, host
        self._log = folder / f"sipp-{host}.log"
        self._scenario = folder / f"sipp-{host}.xml"
        # sipp does not expand its keywords in this place.
        self._scenario.write_text((SCENARIOS / f"{scenario}.xml").read_text().replace("VOICE", str(voice)))

    def answers(self) -> subprocess.Popen[bytes]:
        """Begin to take calls."""
        return self._start("-p", 5060)

    def calls(self, other: str, *, calls: int = 1, rate: int = 10, talk_s: float = 3.0) -> Callable[[], None]:
        """Call a host; return what waits for the calls' end. That raises RuntimeError if one of them failed."""
        load = ("-m", calls, "-l", calls, "-r", rate, "-d", int(talk_s * 1000))
        child = self._start(f"{address(other)}:5060", "-p", 5060, "-s", NUMBERS[other], *load)

        def wait() -> None:
            if child.wait(talk_s + calls / rate + PATIENCE_S):
                raise RuntimeError(
                    f"sipp: exit code {child.returncode}\n{self._log.read_text(errors='replace')[-2000:]}"
                )

        return wait

    def _start(self, *more: str | int) -> subprocess.Popen[bytes]:
        media = ("-i", address(self.host), "-mi", address(self.host), "-mp", 30000)
        return self.lab.spaces.start(
            self.lab.of[self.host], "sipp", "-sf", self._scenario, *media, "-nostdin", *more, log=self._log
        )


class Dump:
    """tcpdump on a tap (`mon0`), with the kernel's own stamps: the second listener."""

    def __init__(self, spaces: Namespaces, tap: str, path: Path) -> None:
        self.path = path
        self._spaces, self._tap = spaces, tap
        self._log = path.with_suffix(".log")

    def __enter__(self) -> Dump:
        # Not in immediate mode it keeps the last second to itself when it is stopped.
        stamps = ("--time-stamp-precision", "nano", "--immediate-mode")
        self._process = self._spaces.start(
            self._tap, "tcpdump", "-i", "mon0", "-n", "-B", 65536, "-U", *stamps, "-w", self.path, log=self._log
        )
        wait_for("tcpdump", lambda: "listening on" in self._log.read_text())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        time.sleep(0.2)
        stop(self._process, signal.SIGINT)
