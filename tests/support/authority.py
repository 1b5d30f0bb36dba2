"""A time-stamping authority: the real `openssl ts` behind a small HTTP server on loopback."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CONFIG = """
[tsa]
default_tsa = tsa_config
[tsa_config]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
{chain}
"""
_EXTENSIONS = "extendedKeyUsage=critical,timeStamping\nbasicConstraints=critical,CA:FALSE\n"


@dataclass
class Authority:
    """`answer` says what comes of a request: `stamp`, or something that goes wrong. `chain`: replies carry the CA's
    certificate too, as many authorities' do.
    """

    folder: Path
    answer: str = "stamp"
    requests: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    url: str = ""

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def make(self, chain: bool) -> None:
        self.folder.mkdir(exist_ok=True)
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
                      "-subj", "/CN=Authority", "-days", "3650")  # fmt: skip
        self._openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "tsa.key", "-out", "tsa.csr",
                      "-subj", "/CN=Time stamps")  # fmt: skip
        (self.folder / "extensions").write_text(_EXTENSIONS)
        self._openssl("x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                      "-days", "3650", "-extfile", "extensions", "-out", "tsa.pem")  # fmt: skip
        (self.folder / "serial").write_text("01\n")
        certificates = f"certs = {self.ca}" if chain else ""
        (self.folder / "ts.cnf").write_text(_CONFIG.format(folder=self.folder, chain=certificates))

    def reply(self, request: bytes) -> bytes:
        (self.folder / "request").write_bytes(request)
        self._openssl("ts", "-reply", "-config", "ts.cnf", "-section", "tsa_config", "-queryfile", "request",
                      "-out", "reply")  # fmt: skip
        return (self.folder / "reply").read_bytes()

    def verifies(self, stamp: Path, data: Path) -> bool:
        """Whether OpenSSL takes a time stamp over a file."""
        done = subprocess.run(
            ["openssl", "ts", "-verify", "-in", stamp, "-data", data, "-CAfile", self.ca], capture_output=True
        )
        return done.returncode == 0 and b"Verification: OK" in done.stdout + done.stderr

    def _openssl(self, *args: str) -> None:
        subprocess.run(["openssl", *args], cwd=self.folder, check=True, capture_output=True)


@contextmanager
def serving(folder: Path, chain: bool = False) -> Iterator[Authority]:
    """An authority at `url`, which is http."""
    authority = Authority(folder)
    authority.make(chain)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if authority.answer == "hang":
                authority.requests.append(b"")
                stop.wait(5)
                return
            with lock:
                self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            authority.requests.append(body)
            assert self.headers["Content-Type"] == "application/timestamp-query"
            what = authority.answer
            if what == "error":
                self.send_error(503, "Not today")
                return
            if what == "stamp":
                authority.replies.append(authority.reply(body))
            content = {"stamp": b"".join(authority.replies[-1:]), "replay": b"".join(authority.replies[:1])}.get(
                what, what.encode()
            )
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    stop = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    authority.url = f"http://127.0.0.1:{server.server_address[1]}/tsr"
    try:
        yield authority
    finally:
        stop.set()
        server.shutdown()
        thread.join()
        server.server_close()
