"""`tapdeck alarms test`: everything that tells people of alarms, tried once."""

import os
from collections.abc import Iterator

from ..storage import hook, mail
from ..storage.alarm_book import Change, Entry
from ..storage.alarm_words import trial_letter
from ..storage.mail import MailError
from .alarms_mail import Password, everybody, server
from .settings import AlarmSettings, Settings


def trials(settings: Settings, password: Password, now: float) -> Iterator[tuple[str, str]]:
    """Try mail and hooks; yield what was tried, and what went wrong, which is empty if nothing did."""
    alarms = settings.alarms
    if alarms.server or everybody(alarms):
        yield _mail(settings, password, now)
    if alarms.hook:
        entry = Entry("alarms", "TEST", "", "warning", "a test: nothing is wrong", now, now)
        yield _hook("alarms.hook", alarms.hook, {**Change("raised", entry, now).shown(), "test": True}, alarms)
    if alarms.recording_hook:
        facts = {"id": "test", "call_id": "", "caller": "", "callee": "", "files": []}
        yield _hook(
            "alarms.recording_hook",
            alarms.recording_hook,
            {"event": "recording finished", **facts, "test": True},
            alarms,
        )


def _mail(settings: Settings, password: Password, now: float) -> tuple[str, str]:
    alarms = settings.alarms
    to, target = everybody(alarms), server(alarms, password)
    name = f"mail to {', '.join(to) or 'nobody'} by {target.address}, {alarms.security}"
    if not alarms.server:
        return name, "alarms.server is empty: no mail can be sent"
    if not to:
        return name, "nobody would get one: set alarms.installer, alarms.admin or alarms.it"
    if password.trouble:
        return name, password.trouble
    try:
        refused = mail.send(target, trial_letter(to, settings.recording.instance or os.uname().nodename, now))
    except MailError as error:
        return name, str(error)
    who = "; ".join(f"{address}: {reply}" for address, reply in refused.items())
    return name, f"some of the addresses are refused: {who}" if who else ""


def _hook(setting: str, command: tuple[str, ...], event: dict[str, object], alarms: AlarmSettings) -> tuple[str, str]:
    ran = hook.run(command, event, alarms.hook_limit_s)
    said = f"; it prints: {' | '.join(ran.output)}" if ran.output else ""
    return f"{setting}: {' '.join(command)}, {ran.seconds:.1f} s{said}", ran.error
