"""The mails of the alarms stage: from the settings to the server, one at a time, beside the stage's round."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..storage import mail, state
from ..storage.mail import MailError, MailServer
from ..storage.outbox import Letter, Outbox
from ..storage.safe_text import for_line
from ..storage.secret import Secret
from .alarm_checks import ROLES
from .background import Background
from .privileges import user_entry
from .secret_places import VARIABLES, NoSecret, SecretPlace
from .settings import AlarmSettings, Settings

Sender = Callable[[MailServer, Letter], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Password:
    """The password of the mail server, or why there is none."""

    secret: Secret | None = None
    trouble: str = ""


def read_password(settings: Settings) -> Password:
    """Return the password. To be called before root becomes somebody else, who may not be able to read it."""
    alarms = settings.alarms
    if not (alarms.server and alarms.user):
        return Password()
    place = password_place(alarms)
    user = settings.users.alarms
    owners = {user_entry(user, "users.alarms").pw_uid} if user and os.geteuid() == 0 else set()
    try:
        secret = place.read(os.environ, owners)
    except NoSecret as error:
        return Password(trouble=f"the password of the mail server cannot be had: {error}")
    return Password(secret, "" if secret else f"alarms.user has no password: {place.advice}")


def reread_password(settings: Settings, known: Password, same_place: bool) -> Password:
    """Return the password as it is now, for a process that is no longer root. What it may not read is what it was."""
    found = read_password(settings)
    if not found.trouble:
        return found
    if same_place and known.secret is not None:
        return known
    return Password(trouble=f"{found.trouble}; if only root may read it, restart the alarms stage")


def password_place(alarms: AlarmSettings) -> SecretPlace:
    """Return where the password comes from."""
    return SecretPlace(
        "alarms.password_file", alarms.password_file, "tapdeck-mail-password", f"{VARIABLES}MAIL_PASSWORD"
    )


def server(alarms: AlarmSettings, password: Password) -> MailServer:
    """Return the mail server of the settings."""
    sender = alarms.sender or f"tapdeck@{socket.gethostname()}"
    return MailServer(alarms.server, sender, alarms.port, alarms.security, alarms.user, password.secret, alarms.ca_file)


def people(alarms: AlarmSettings) -> dict[str, tuple[str, ...]]:
    """Return the addresses of each role."""
    return {role: getattr(alarms, role) for role in ROLES}


def everybody(alarms: AlarmSettings) -> tuple[str, ...]:
    """Return all addresses, each once."""
    return tuple(dict.fromkeys(address for role in people(alarms).values() for address in role))


@dataclass(slots=True)
class Post:
    """Takes the mails of an outbox to the server. Its methods belong to the stage's thread."""

    folder: Path
    alarms: state.Alarms
    send: Sender = mail.send
    sent: int = 0
    _work: Background[tuple[Letter, dict[str, str] | MailError]] = field(default_factory=lambda: Background("mail"))

    def step(self, outbox: Outbox, target: MailServer, trouble: str, now: float) -> None:
        """Set out with the next mail, once it is collected, and written down, what has become of the one before."""
        if trouble:
            self.alarms.raise_("MAIL_FAILED", trouble)
            return
        letter = None if self._work.busy else outbox.next(now)
        if letter is not None:
            self._work.start(partial(_sent, self.send, target, letter))

    def collect(self, outbox: Outbox, now: float) -> None:
        """Take the result of the mail that is under way, if there is one by now."""
        for letter, result in self._work.take():
            if not isinstance(result, MailError):
                self._arrived(outbox, letter, result, now)
            elif result.all_mail:
                outbox.unreachable(now)
                self._failed(outbox, str(result))
            elif outbox.refused(letter, now):
                state.append(self.folder, "mail given up", subject=letter.subject, reason=str(result))
                self._failed(outbox, f"{result}; this mail is given up")
            else:
                self._failed(outbox, str(result))

    def wait(self, patience_s: float) -> None:
        """Give a mail that is under way time to arrive: it would be sent again otherwise."""
        self._work.wait(patience_s)

    def _arrived(self, outbox: Outbox, letter: Letter, refused: dict[str, str], now: float) -> None:
        """Those whom the server refuses for the moment only (4yz, RFC 5321 section 4.2.1) get it later."""
        later = tuple(address for address, reply in refused.items() if reply.startswith("4"))
        if later:
            outbox.refused(replace(letter, to=later), now)
        else:
            outbox.sent(letter)
        self.sent += 1
        if refused:
            who = "; ".join(f"{address}: {reply}" for address, reply in refused.items())
            self._failed(outbox, f"the mail server refuses some of the addresses: {who}")
        else:
            self.alarms.clear("MAIL_FAILED")

    def _failed(self, outbox: Outbox, reason: str) -> None:
        waiting = f"; {len(outbox.letters)} mails wait" if outbox.letters else ""
        self.alarms.raise_("MAIL_FAILED", f"{for_line(reason)}{waiting}")


def _sent(send: Sender, target: MailServer, letter: Letter) -> tuple[Letter, dict[str, str] | MailError]:
    try:
        return letter, send(target, letter)
    except MailError as error:
        return letter, error
