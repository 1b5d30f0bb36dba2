"""A mail server on loopback (aiosmtpd), with an authority of its own, that keeps what it is sent."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

USER, PASSWORD = "recorder", "a secret of the mail server"


@dataclass(slots=True)
class Mailbox:
    """`answers` are what the server says to a recipient in place of 250, `broken` what it says to every mail."""

    folder: Path
    tls: str = "starttls"
    login: bool = True
    name: str = "127.0.0.1"
    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    answers: Mapping[str, str] = field(default_factory=dict)
    broken: str = ""
    _controller: Any = None

    @property
    def ca_file(self) -> str:
        """The authority that has signed its certificate."""
        return str(self.folder / "ca.pem")

    def __enter__(self) -> Mailbox:
        self.begin()
        return self

    def begin(self) -> None:
        """Begin, with new certificates, in the network namespace of this thread."""
        make_certificates(self.folder, self.name)
        self.start()

    def close(self) -> None:
        """End, for `contextlib.closing`."""
        self.stop()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Begin, at the port it had before."""
        self.port = self.port or free_port()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        options: dict[str, Any] = {"authenticator": _check, "auth_required": True} if self.login else {}
        if self.tls == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        if self.tls == "smtps":
            options |= {"ssl_context": context}
        if self.login and self.tls == "smtps":
            options |= {"auth_require_tls": False}  # aiosmtpd means STARTTLS
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, **options)
        self._controller.start()

    def stop(self) -> None:
        """End: nobody can connect."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def subjects(self) -> list[str]:
        """The subjects of all mails, in their order."""
        return [str(mail["Subject"]) for mail in self.mails]

    async def handle_RCPT(self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        """aiosmtpd asks for each recipient."""
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        """aiosmtpd has a whole mail."""
        if self.broken:
            return self.broken
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.envelopes.append((envelope.mail_from, list(envelope.rcpt_tos)))
        return "250 taken"


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def make_certificates(folder: Path, name: str) -> None:
    """Write ca.pem, and server.pem with server.key for this name or address."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "An authority of our own")])
    ca = _builder(issuer, issuer, ca_key.public_key()).add_extension(x509.BasicConstraints(True, 0), critical=True)
    try:
        who: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        who = x509.DNSName(name)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    server = _builder(subject, issuer, key.public_key())
    server = server.add_extension(x509.SubjectAlternativeName([who]), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.pem").write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(private)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)


def _check(server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=right)
