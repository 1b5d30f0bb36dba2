"""baresip phones that speak SIP over TLS, and SRTP keyed by SDES or DTLS; their secrets go to a key log."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .lab import Lab, address
from .netns import entered, sh, wait_for
from .phones import Baresip
from .speech import Speech

SOURCE = Path(__file__).with_name("keylog.c")


def certificate(folder: Path, *more: str) -> Path:
    """Make a PEM file with a key and its own certificate. Raises NetworkError."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    make = ("openssl", "req", "-x509", "-nodes", "-days", 30, "-subj", "/CN=pbx.example")
    sh(*make, *(more or ("-newkey", "rsa:2048")), "-keyout", key, "-out", cert)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


def key_log_library(folder: Path) -> Path:
    """Compile what makes OpenSSL write a key log. Raises NetworkError."""
    library = folder / "keylog.so"
    sh("gcc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl")
    return library


class SecurePhone(Baresip):
    """A phone whose SIP crosses `transport`, and whose media is `media` (a baresip menc: srtp-mand, dtls_srtp).

    `log` gets the secrets; `conf` is a configuration of OpenSSL: suites and versions.
    """

    def __init__(
        self,
        lab: Lab,
        host: str,
        speech: Speech,
        folder: Path,
        *,
        transport: str = "tls",
        media: str = "",
        log: Path | None = None,
        conf: Path | None = None,
    ) -> None:
        self._transport, self._media = transport, media
        (folder / f"secure-{host}").mkdir(exist_ok=True)
        self._pem = certificate(folder / f"secure-{host}")
        self._env = {"OPENSSL_CONF": str(conf)} if conf else {}
        if log is not None:
            self._env |= {"LD_PRELOAD": str(key_log_library(folder / f"secure-{host}")), "SSLKEYLOGFILE": str(log)}
        super().__init__(lab, host, speech, folder)

    @property
    def uri(self) -> str:
        port = ":5061" if self._transport == "tls" else ""
        return f"sip:{self.number}@{address(self.host)}{port};transport={self._transport}"

    def __enter__(self) -> SecurePhone:
        log, name = self._folder / "log", self.lab.of[self.host]
        command: tuple[str | Path, ...] = ("baresip", "-4", "-f", self._folder, "-s")
        self._process: subprocess.Popen[bytes] = self.lab.spaces.start(name, *command, log=log, env=self._env)
        with entered(name):
            wait_for("baresip's control port", self._connected)
        return self

    def _configure(self, speech: Speech, codec: str, *more: str) -> None:
        super()._configure(speech, codec, *more)
        account = f"<sip:{self.number}@{address(self.host)};transport={self._transport}>;regint=0"
        account += f";audio_codecs={codec};ptime=20"
        account += f";mediaenc={self._media}" if self._media else ""
        (self._folder / "accounts").write_text(f'"Phone {self.host}" {account}\n')
        modules = [name for name, wanted in (("srtp", self._media), ("dtls_srtp", "dtls" in self._media)) if wanted]
        with (self._folder / "config").open("a") as config:
            config.write(f"sip_certificate {self._pem}\n")
            config.writelines(f"module {name}.so\n" for name in modules)
