"""What a server's refusals mean, and what to do about them ([MS-ERREF] 2.3.1)."""

from ..targets import ForGood, NameTaken, TargetError, WillPass

END_OF_FILE = 0xC0000011
NO_MORE_FILES, NO_SUCH_FILE = 0x80000006, 0xC000000F
NAME_NOT_FOUND, PATH_NOT_FOUND, NAME_COLLISION = 0xC0000034, 0xC000003A, 0xC0000035
ACCESS_DENIED, DISK_FULL, SHARING_VIOLATION, DELETE_PENDING = 0xC0000022, 0xC000007F, 0xC0000043, 0xC0000056
IS_A_FOLDER, NOT_A_FOLDER = 0xC00000BA, 0xC0000103
REFUSED = (0xC000006D, 0xC0000064, 0xC000006A)
"""Not this user with this password."""
LOGON_FAILURE, BAD_SHARE, NAME_INVALID = 0xC000006D, 0xC00000CC, 0xC0000033
FULL = (DISK_FULL, 0xC0000044)
GONE = (0xC00000C9, 0xC0000203, 0xC000035C, 0xC000020C)
"""The share was taken away, or the session is no more: another log-in may help."""

_LOGIN = (
    "the server does not accept the user name or password: correct them, or ask who looks after the server "
    "(so that it locks no account, the same ones are tried every ten minutes only)"
)
_NAME = "the server refuses this name: choose another folder or name template"
_ACCOUNT = "ask who looks after the server"

_WORDS: dict[int, tuple[type[TargetError], str]] = {
    **dict.fromkeys(REFUSED, (WillPass, _LOGIN)),
    0xC0000234: (WillPass, f"the account is locked, after too many wrong passwords perhaps: {_ACCOUNT}"),
    0xC0000072: (WillPass, f"the account is disabled: {_ACCOUNT}"),
    0xC0000193: (WillPass, f"the account has expired: {_ACCOUNT}"),
    0xC0000071: (WillPass, "the password has expired: set a new one, on the server and in the configuration"),
    0xC0000224: (WillPass, "the password has to be changed: set a new one, on the server and in the configuration"),
    0xC000015B: (WillPass, f"the account may not log in over the network: {_ACCOUNT}"),
    0xC000006E: (WillPass, f"the account may not log in here or now: {_ACCOUNT}"),
    0xC000005E: (WillPass, "the server does not reach its domain controller: look there"),
    BAD_SHARE: (WillPass, "there is no such share on the server: make it, or correct `share` in the configuration"),
    **dict.fromkeys(GONE, (WillPass, "the server has ended the session, or taken the share away: look there")),
    ACCESS_DENIED: (WillPass, "no right to do that: give the account the right to write and delete there"),
    0xC00000A2: (WillPass, "the disk there is read-only: look at the server for why"),
    DISK_FULL: (WillPass, "the disk there is full: make room, or use a larger one"),
    0xC0000044: (WillPass, "the quota of the account is used up: make room there, or raise it"),
    NAME_NOT_FOUND: (WillPass, "it is not there"),
    PATH_NOT_FOUND: (WillPass, "the folder is not there"),
    SHARING_VIOLATION: (WillPass, "another program, or a connection that broke, holds it open: it is tried again"),
    DELETE_PENDING: (WillPass, "it is being deleted: it is tried again"),
    0xC00000D0: (WillPass, "the server takes no more connections: raise its limit, or lower `connections`"),
    0xC000009A: (WillPass, "the server is overloaded: look there"),
    0xC0000185: (WillPass, "the server's disk fails: look there"),
    0xC000009C: (WillPass, "the server's disk fails: look there"),
    0xC0000102: (WillPass, "the server's file system is damaged: look there"),
    0xC00000BB: (WillPass, "the server does not support what is needed: does it speak SMB 3?"),
    NAME_INVALID: (ForGood, _NAME),
    0xC000003B: (ForGood, _NAME),
    0xC0000039: (ForGood, _NAME),
    0xC0000106: (ForGood, "the name is too long for the server: choose a shorter folder or name template"),
    0xC0000904: (ForGood, "the file is too large for the file system there; NTFS, ext4 or XFS take it"),
    0xC0000906: (ForGood, "a virus scanner on the server refuses it: have the scanner leave this folder out"),
    0xC0000257: (ForGood, "this is a DFS link, which is not supported: name the server and share that it leads to"),
    0x8000002D: (ForGood, "there is a symbolic link on the way: name the folder itself"),
    NAME_COLLISION: (NameTaken, "the name is taken"),
    IS_A_FOLDER: (NameTaken, "a folder has this name"),
    NOT_A_FOLDER: (NameTaken, "a file has the name of a folder"),
}


def explained(status: int, where: str) -> TargetError:
    """Return the error that a status stands for."""
    kind, words = _WORDS.get(status, (WillPass, f"the server refuses, with status 0x{status:08X}: look at its log"))
    return kind(f"{where}: {words}")
