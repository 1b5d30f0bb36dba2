"""Sending one mail over SMTP (RFC 5321), kept secret by STARTTLS (RFC 3207) or TLS from the start (RFC 8314)."""

import smtplib
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from .outbox import Letter
from .safe_text import for_line
from .secret import Secret

PORTS = {"starttls": 587, "smtps": 465, "none": 25}

_SUBJECT, _LINE = 150, 2000


@dataclass(frozen=True, slots=True)
class MailServer:
    """How mail is sent. `security` is `starttls`, `smtps` or `none`; `port` 0 is the usual one of that."""

    host: str
    sender: str
    port: int = 0
    security: str = "starttls"
    user: str = ""
    password: Secret | None = None
    ca_file: str = ""
    patience_s: float = 30.0

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port or PORTS[self.security]}"


class MailError(Exception):
    """A mail did not get to its server; the message says what to do. `all_mail`: no other mail would either."""

    def __init__(self, text: str, all_mail: bool = True) -> None:
        super().__init__(text)
        self.all_mail = all_mail


def send(server: MailServer, letter: Letter) -> dict[str, str]:
    """Send a mail; return the recipients that the server has refused, others not, and its answer. Raises MailError."""
    if not letter.to:
        raise MailError("there is nobody to send it to", all_mail=False)
    try:
        content = message(server, letter).as_bytes()
    except ValueError as error:
        raise MailError(f"this mail cannot be written: {for_line(str(error), 300)}", all_mail=False) from None
    try:
        smtp = _connection(server)
        try:
            refused = smtp.sendmail(server.sender, list(letter.to), content)
            with suppress(OSError, smtplib.SMTPException):
                smtp.quit()  # the mail is the server's by now, whatever it answers
        finally:
            smtp.close()
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
        raise MailError(_of_mail(server, error), all_mail=False) from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise MailError(_of_server(server, error)) from None
    return {address: _reply(server, *reply) for address, reply in refused.items()}


def message(server: MailServer, letter: Letter) -> EmailMessage:
    """Return the mail itself. No text can add a header, or a line of its own to the body."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = server.sender
    mail["To"] = ", ".join(letter.to)
    mail["Subject"] = for_line(letter.subject, _SUBJECT)
    mail["Date"] = format_datetime(datetime.fromtimestamp(letter.made).astimezone())
    mail["Message-ID"] = f"<{letter.id}@{server.sender.partition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday note answers it
    body = "\n".join(_body_line(line) for line in letter.body.split("\n"))
    mail.set_content(body, charset="utf-8", cte="quoted-printable")
    return mail


def _body_line(line: str) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return " " * indent + for_line(line, _LINE)


def _connection(server: MailServer) -> smtplib.SMTP:
    """Connect, secure, log in. Raises OSError, SMTPException."""
    port, name = server.port or PORTS[server.security], _own_name()
    if server.security == "smtps":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, port, local_hostname=name, timeout=server.patience_s, context=_context(server)
        )
    else:
        smtp = smtplib.SMTP(server.host, port, local_hostname=name, timeout=server.patience_s)
    try:
        smtp.ehlo_or_helo_if_needed()
        if server.security == "starttls":
            smtp.starttls(context=_context(server))
            smtp.ehlo()
        if server.user:
            smtp.login(server.user, server.password.reveal() if server.password is not None else "")
    except BaseException:
        smtp.close()
        raise
    return smtp


def _context(server: MailServer) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=server.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise MailError(f"alarms.ca_file: {server.ca_file}: no certificates can be read from it: {error}") from None


def _own_name() -> str:
    """What we say HELO with. Never by DNS, which may be what does not work."""
    name = socket.gethostname()
    return name if name.isascii() and name.replace("-", "").replace(".", "").isalnum() else "localhost"


def _of_server(server: MailServer, error: Exception) -> str:
    """Say in plain words why no mail gets through, and what to do."""
    at = f"mail server {for_line(server.address)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"{at}: its certificate is refused ({for_line(error.verify_message)}): alarms.server must be the name in "
            "the certificate; if your own authority has signed it, name that in alarms.ca_file"
        )
    if isinstance(error, ssl.SSLError):
        return f"{at}: no TLS can be had ({for_line(str(error.reason or error))}): see alarms.security and alarms.port"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        if server.security == "starttls" and "STARTTLS" in str(error):
            return f'{at} offers no STARTTLS, and nothing is sent in the clear: try alarms.security = "smtps"'
        return f"{at} takes no password: leave alarms.user empty, or use another port"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"{at} refuses user and password ({_reply(server, error.smtp_code, error.smtp_error)}): see alarms.user"
    if isinstance(error, smtplib.SMTPSenderRefused):
        return (
            f"{at} takes no mail from {server.sender} ({_reply(server, error.smtp_code, error.smtp_error)}): "
            "see alarms.sender and alarms.user"
        )
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{at} answers {_reply(server, error.smtp_code, error.smtp_error)}"
    if isinstance(error, socket.gaierror):
        return f"{at}: there is no such name: see alarms.server, and whether this machine can resolve names"
    if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):  # smtplib hides it in its own
        return f"{at} does not answer: is it on, and does a firewall let this machine through?"
    if isinstance(error, ConnectionRefusedError):
        return f"{at} takes no connection: is it on, and is alarms.port right?"
    return f"{at}: {_clean(server, str(error) or type(error).__name__)}"


def _of_mail(server: MailServer, error: smtplib.SMTPException) -> str:
    at = f"mail server {for_line(server.address)}"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        who = "; ".join(f"{address}: {_reply(server, *reply)}" for address, reply in error.recipients.items())
        return f"{at} refuses every recipient ({who}): see the addresses in [alarms]"
    assert isinstance(error, smtplib.SMTPDataError)
    return f"{at} refuses the mail itself: {_reply(server, error.smtp_code, error.smtp_error)}"


def _reply(server: MailServer, code: int, text: bytes | str) -> str:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    return _clean(server, f"{code} {said}")


def _clean(server: MailServer, text: str) -> str:
    """A server may repeat what it was sent."""
    secret = server.password.reveal() if server.password is not None else ""
    return for_line(text.replace(secret, "***") if secret else text, 300)
