"""Giving up what a stage no longer needs: its user, its groups, every capability, and the way back.

Sockets that are open stay open. To be called once everything that needs root is open, and before the first thread
starts: capabilities belong to threads.
"""

import ctypes
import grp
import os
import pwd
import resource
from collections.abc import Iterable
from functools import cache

from .settings import ConfigError

SHARING_UMASK = 0o007
"""Stages share folders with the group that `tapdeck install` gave them, and with nobody else."""

_SET_PDEATHSIG, _GET_PDEATHSIG, _SET_DUMPABLE, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 1, 2, 4, 24, 38, 47
_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES = 64
_CAPABILITY_VERSION_3 = 0x20080522
_LOCK_CURRENT, _LOCK_FUTURE, _LOCK_ON_FAULT = 1, 2, 4


def drop_to(user: str, groups: Iterable[str] = (), setting: str = "users.capture") -> None:
    """Become `user` for good, with its own groups and these. `setting` is named in messages.

    A process that is not root stays who it is and only gives up its capabilities; with an empty `user` root stays root.
    Raises ConfigError for a user or group that does not exist, or that cannot read this installation.
    """
    if os.geteuid() != 0:
        drop_capabilities()
        return
    if not user:
        _seal_memory()
        return
    uid, gid, all_groups = _identity(user, groups, setting)
    _refuse_threads()
    parent_death = _parent_death_signal()
    _drop_bounding_set()
    os.setgroups(all_groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.umask(SHARING_UMASK)
    drop_capabilities()
    die_with_parent(parent_death)  # the kernel forgets it when the user changes
    _check_readable(user, setting)


def drop_capabilities() -> None:
    """Give up every capability for good, and with it any way to gain one; keep the user. Raises OSError."""
    _refuse_threads()
    _drop_bounding_set()
    _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    _clear_capabilities()
    _seal_memory()


def protect_memory() -> bool:
    """Keep what is in memory off the swap, now and later. Before `drop_to`, which takes the right to it.

    Returns False where that is not allowed: then nothing is locked, for under a limit later allocations would fail.
    """
    infinite = resource.RLIM_INFINITY
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (infinite, infinite))
    except (ValueError, OSError):
        return False
    return bool(_libc().mlockall(_LOCK_CURRENT | _LOCK_FUTURE | _LOCK_ON_FAULT) == 0)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when the thread that started it ends; 0 to have it not. Raises
    OSError.
    """
    _prctl(_SET_PDEATHSIG, signal_number)


def user_entry(user: str, setting: str) -> pwd.struct_passwd:
    """Look a user up. Raises ConfigError that says what to do about one that does not exist."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(
            f"{setting}: there is no user {user!r} on this machine: `tapdeck install` makes it; or set an empty name, "
            "for the user that starts it"
        ) from None


def group_entry(group: str) -> grp.struct_group:
    """Look a group up. Raises ConfigError that says what to do about one that does not exist."""
    try:
        return grp.getgrnam(group)
    except KeyError:
        raise ConfigError(
            f"users.group: there is no group {group!r} on this machine: `tapdeck install` makes it"
        ) from None


def _identity(user: str, groups: Iterable[str], setting: str) -> tuple[int, int, list[int]]:
    entry = user_entry(user, setting)
    numbers = {*os.getgrouplist(user, entry.pw_gid), *(group_entry(group).gr_gid for group in groups)}
    return entry.pw_uid, entry.pw_gid, sorted(numbers)


def _check_readable(user: str, setting: str) -> None:
    """Python imports as it goes: what the user cannot read would fail at some later moment."""
    for path in (os.__file__, __file__):
        if not os.access(path, os.R_OK):
            raise ConfigError(
                f"{setting}: the user {user!r} cannot read {path}: install Python and Tapdeck where every user may "
                f'read them, as below /opt, or set {setting} = ""'
            )


def _refuse_threads() -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("privileges are dropped before the first thread starts")


def _drop_bounding_set() -> None:
    """Where the process may: without CAP_SETPCAP it has nothing that the bounding set could let it regain."""
    for capability in range(_CAPABILITIES):
        _libc().prctl(_CAPBSET_DROP, capability, 0, 0, 0)


def _clear_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()  # twice effective, permitted, inheritable
    if _libc().capset(header, nothing):
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")


def _seal_memory() -> None:
    """No core dump, no debugger of the same user, nothing set-user-ID gains anything."""
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _parent_death_signal() -> int:
    number = ctypes.c_int()
    _prctl(_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
