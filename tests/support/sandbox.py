"""A service started as a systemd unit says, where systemd does not run: `python -m tests.support.sandbox UNIT`.

What the kernel enforces is enforced here by the same means: user, groups, capabilities, no new privileges, system calls
and address families by seccomp, memory that is never both writable and executable, a file system that is read-only but
for ReadWritePaths. A setting of the sandbox that this module does not know is an error. To be run as root, in a mount
namespace of its own.
"""

import ctypes
import grp
import os
import pwd
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

WITHOUT_EFFECT_HERE = """
Type ExecReload KillMode TimeoutStartSec TimeoutStopSec WatchdogSec Nice OOMScoreAdjust LimitMEMLOCK IPAddressDeny
IPAddressAllow Restart RestartSec RestartPreventExitStatus LimitNOFILE StandardOutput StandardError PrivateTmp
PrivateDevices PrivateMounts DevicePolicy ProtectKernelTunables ProtectKernelModules ProtectKernelLogs
ProtectControlGroups ProtectClock ProtectHostname ProtectHome RestrictRealtime LockPersonality SystemCallArchitectures
SystemCallErrorNumber KeyringMode RemoveIPC LimitCORE PrivateNetwork
"""
ENFORCED = """
ExecStart User SupplementaryGroups CapabilityBoundingSet AmbientCapabilities NoNewPrivileges UMask ProtectSystem
ReadWritePaths RestrictAddressFamilies RestrictNamespaces RestrictSUIDSGID MemoryDenyWriteExecute SystemCallFilter
ProtectProc ProcSubset
"""

CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_RAW": 13,
}
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
EPERM, EAFNOSUPPORT = 1, 97
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
MASKED_EQ = 7
AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_SETATTR, AT_FDCWD = 0x8000, 1, 442, -100
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_SET_MDWE, PR_SET_KEEPCAPS = 24, 38, 47, 65, 8

libc = ctypes.CDLL(None, use_errno=True)


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp of libseccomp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64))


def main() -> None:
    unit = read(Path(sys.argv[1]))
    unknown = set(unit) - set(ENFORCED.split()) - set(WITHOUT_EFFECT_HERE.split())
    if unknown:
        sys.exit(f"the sandbox does not know {', '.join(sorted(unknown))}")
    calls = allowed_calls(unit["SystemCallFilter"][0]) if "SystemCallFilter" in unit else []
    protect_files(unit)
    become(unit)
    os.umask(int(unit["UMask"][0], 8))
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    check(libc.prctl(PR_SET_MDWE, 1, 0, 0, 0), "memory deny write execute")
    restrict(unit, calls)
    command = shlex.split(unit["ExecStart"][0])
    os.execv(command[0], command)


def read(path: Path) -> dict[str, list[str]]:
    """The [Service] section: key -> values."""
    found: dict[str, list[str]] = defaultdict(list)
    section = path.read_text().split("[Service]\n")[1].split("\n[")[0]
    for line in section.splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return dict(found)


def allowed_calls(group: str) -> list[str]:
    """The system calls of a group, as systemd has them."""
    out = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    ).stdout
    names = [line.strip() for line in out.splitlines() if line.startswith("    ") and "#" not in line]
    return [call for name in names for call in (allowed_calls(name) if name.startswith("@") else [name])]


def protect_files(unit: dict[str, list[str]]) -> None:
    """ProtectSystem=strict: everything is read-only but ReadWritePaths, /dev, /proc and /sys."""
    assert unit["ProtectSystem"] == ["strict"]
    writable = [word.removeprefix("-") for word in shlex.split(" ".join(unit.get("ReadWritePaths", [])))]
    for path in writable:
        if Path(path).exists():
            subprocess.run(["mount", "--bind", path, path], check=True)
    set_read_only("/", True)
    for path in [*writable, "/dev", "/proc", "/sys"]:
        if Path(path).exists():
            set_read_only(path, False)
    if unit.get("ProtectProc") == ["invisible"]:
        only_own = ",subset=pid" if unit.get("ProcSubset") == ["pid"] else ""
        subprocess.run(["mount", "-t", "proc", "-o", f"hidepid=invisible{only_own}", "proc", "/proc"], check=True)


def set_read_only(path: str, read_only: bool) -> None:
    attributes = (ctypes.c_uint64 * 4)(*((MOUNT_ATTR_RDONLY, 0) if read_only else (0, MOUNT_ATTR_RDONLY)), 0, 0)
    arguments = (AT_FDCWD, os.fsencode(path), AT_RECURSIVE, attributes, ctypes.c_size_t(32))
    check(libc.syscall(MOUNT_SETATTR, *arguments), f"mount_setattr {path}")


def become(unit: dict[str, list[str]]) -> None:
    """User, groups and capabilities."""
    keep = {CAPABILITIES[name] for name in unit["CapabilityBoundingSet"][0].split()}
    ambient = {CAPABILITIES[name] for name in " ".join(unit.get("AmbientCapabilities", [])).split()}
    for number in range(41):
        if number not in keep | {CAPABILITIES["CAP_SETPCAP"]}:
            check(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "bounding set")
    groups = [grp.getgrnam(name).gr_gid for name in " ".join(unit.get("SupplementaryGroups", [])).split()]
    user = unit.get("User", ["root"])[0]
    entry = pwd.getpwnam(user)
    check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")
    os.setgroups(sorted({*os.getgrouplist(user, entry.pw_gid), *groups}))
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    if CAPABILITIES["CAP_SETPCAP"] not in keep:
        set_capabilities({*keep, CAPABILITIES["CAP_SETPCAP"]})
        check(libc.prctl(PR_CAPBSET_DROP, CAPABILITIES["CAP_SETPCAP"], 0, 0, 0), "bounding set")
    set_capabilities(keep if entry.pw_uid == 0 else ambient)
    for number in ambient:
        check(libc.prctl(PR_CAP_AMBIENT, 2, number, 0, 0), "ambient")


def set_capabilities(numbers: set[int]) -> None:
    low = sum(1 << number for number in numbers)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)(low, low, low, 0, 0, 0)), "capset")


def restrict(unit: dict[str, list[str]], calls: list[str]) -> None:
    """Two filters: some arguments are refused, and every call that is not listed, the setting of filters too."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    picky = ctypes.c_void_p(seccomp.seccomp_init(ALLOW))
    for name, error, compare in refused_arguments(unit):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        check(seccomp.seccomp_rule_add_array(picky, ERRNO | error, number, 1, ctypes.byref(compare)), name)
    check(seccomp.seccomp_load(picky), "arguments")
    if calls:
        listed = ctypes.c_void_p(seccomp.seccomp_init(ERRNO | EPERM))
        for name in calls:
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:
                seccomp.seccomp_rule_add_array(listed, ALLOW, number, 0, None)
        check(seccomp.seccomp_load(listed), "system calls")


def refused_arguments(unit: dict[str, list[str]]) -> Iterator[tuple[str, int, Compare]]:
    families = unit.get("RestrictAddressFamilies", [""])[0].split()
    for family in range(46):
        if family not in {FAMILIES[name] for name in families}:
            yield "socket", EAFNOSUPPORT, Compare(0, MASKED_EQ, 0xFFFFFFFF, family)
    modes = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "mkdir": 1, "mkdirat": 2, "open": 2, "openat": 3, "creat": 1}
    for name, argument in modes.items() if unit.get("RestrictSUIDSGID") == ["yes"] else ():
        for bit in (0o4000, 0o2000):
            yield name, EPERM, Compare(argument, MASKED_EQ, bit, bit)
    for name in ("unshare", "setns") if unit.get("RestrictNamespaces") == ["yes"] else ():
        yield name, EPERM, Compare(0, MASKED_EQ, 0, 0)


def check(result: int, what: str) -> None:
    if result:
        sys.exit(f"sandbox: {what}: {os.strerror(-result if result < -1 else ctypes.get_errno())}")


if __name__ == "__main__":
    main()
