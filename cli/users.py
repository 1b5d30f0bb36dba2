"""Which users the stages become, when the ones that `tapdeck install` makes are not there."""

import os
import pwd
from dataclasses import replace

from .settings import Settings, UserSettings


def with_present_users(settings: Settings) -> Settings:
    """Return the settings as they can be used on a machine where nothing was installed.

    There, root that only wants to try a port stays root, without its capabilities. Whoever names a user is taken at
    his word.
    """
    usual = UserSettings()
    if os.geteuid() != 0 or settings.users != usual or any(_exists(name) for name in _names(usual)):
        return settings
    return replace(settings, users=UserSettings(group="", capture="", seal="", deliver="", metrics="", alarms=""))


def _names(users: UserSettings) -> tuple[str, str, str]:
    return users.capture, users.seal, users.deliver


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
