"""What can be wrong with the settings of alarms, and whether anybody is to be told of one. Settings import this."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import AlarmSettings, HeartbeatSettings

ROLES = ("installer", "admin", "it")
"""Who may be told of alarms."""
MAIL_SECURITY = ("starttls", "smtps", "none")
METHODS = ("POST", "GET")

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
_CODE = re.compile(r"[A-Z]+(_[A-Z]+)*")


def wanted(alarms: "AlarmSettings", heartbeat: "HeartbeatSettings") -> bool:
    """Whether there is anything to do for the alarms stage."""
    addresses = any(getattr(alarms, role) for role in ROLES)
    return bool(
        alarms.server
        or addresses
        or alarms.hook
        or alarms.recording_hook
        or heartbeat.file
        or heartbeat.url
        or heartbeat.mail
    )


def trouble(alarms: "AlarmSettings", heartbeat: "HeartbeatSettings") -> str:
    """Return what would only be noticed when there is an alarm to tell of; empty if all is well."""
    return next(_troubles(alarms, heartbeat), "")


def _troubles(alarms: "AlarmSettings", heartbeat: "HeartbeatSettings") -> Iterator[str]:
    single = {"alarms.sender": (alarms.sender,), "heartbeat.mail": (heartbeat.mail,)}
    lists = {f"alarms.{role}": getattr(alarms, role) for role in ROLES}
    for name, addresses in {**single, **lists}.items():
        for address in addresses:
            if address and not _ADDRESS.fullmatch(address):
                yield f"{name}: {address!r} is no mail address like name@example.com"
    for route in alarms.routes:
        code, equals, roles = route.partition("=")
        if not (equals and _CODE.fullmatch(code) and set(filter(None, roles.split("+"))) <= set(ROLES)):
            yield f"alarms.routes: {route!r} is not like DELIVER_FAILED=it+admin; there are {', '.join(ROLES)}"
    if alarms.security not in MAIL_SECURITY:
        yield f"alarms.security: {alarms.security!r} is none of {', '.join(MAIL_SECURITY)}"
    if alarms.security == "none" and alarms.user:
        yield 'alarms.security: with "none" everybody on the way could read the password: take starttls or smtps'
    for key in ("hook", "recording_hook"):
        program = getattr(alarms, key)
        if program and not program[0].startswith("/"):
            yield f"alarms.{key}: {program[0]!r}: name the program by its whole path, as /usr/local/bin/tell"
    if heartbeat.url and not heartbeat.url.startswith(("http://", "https://")):
        yield f"heartbeat.url: {heartbeat.url!r} begins neither with http:// nor with https://"
    if heartbeat.method not in METHODS:
        yield f"heartbeat.method: {heartbeat.method!r} is none of {', '.join(METHODS)}"
