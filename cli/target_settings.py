"""What can be set for one target, a table `[[targets]]` of the configuration file. target_tables.py reads it.

The file, the checks and the documentation are made from these keys, as those of the other settings are.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from ..storage.safe_text import for_terminal

KINDS = ("folder", "smb", "sftp")
"""The kinds of targets. cli/targets.py has what makes them."""

NETWORK_KINDS = ("smb", "sftp")
"""Those that are reached over the network."""

_PORTS = {"smb": 445, "sftp": 22}


def _key(default: Any, text: str, *kinds: str, least: float | None = None, most: float | None = None) -> Any:
    about = {"help": text, "kinds": kinds or KINDS, "least": least, "most": most}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """One target."""

    name: str = _key("", "its name, in the queue and to people: ASCII letters, digits and -; never change it")
    kind: str = _key("", "folder, smb or sftp")
    enabled: bool = _key(True, "false: no connection at all, and nothing is queued for it")
    folder: str = _key(
        "", "where on the target recordings lie: a path on this machine, within the share, or on the server"
    )
    folder_template: str = _key("", "folder below that, from date fields and {variables}; empty: as on this machine")
    name_template: str = _key(
        "",
        "name, from date fields and {variables}: of the files, or of a folder for each sealed recording; empty: none",
    )
    classes: tuple[str, ...] = _key((), "only recordings of these classes")
    directions: tuple[str, ...] = _key((), "only recordings of these directions: in, out, internal, unknown")
    numbers: tuple[str, ...] = _key((), "only recordings of which either party's number fits one of these patterns")
    required: bool = _key(True, "recordings leave this machine only after this target has confirmed them")
    hours: str = _key("", "local time in which it is used, as in 22:00-06:00; empty: always")
    limit_kbit: int = _key(0, "bandwidth of all its connections together, in kbit/s; 0: no limit", least=0)
    connections: int = _key(2, "connections at one time", least=1, most=8)
    read_back: bool = _key(True, "read each file back from the target and compare it before it is confirmed")
    server: str = _key("", "name or address of the server", "smb")
    share: str = _key("", "the share on it", "smb")
    host: str = _key("", "name or address of the server", "sftp")
    port: int = _key(0, "its port; 0: 445 for smb, 22 for sftp", *NETWORK_KINDS, least=0, most=65535)
    user: str = _key("", "the account that writes there", *NETWORK_KINDS)
    domain: str = _key("", "the account's Windows domain; empty: the server's own accounts", "smb")
    require_encryption: bool = _key(True, "refuse a server that does not encrypt", "smb")
    require_signing: bool = _key(True, "refuse a server that does not sign", "smb")
    host_key: str = _key(
        "",
        "the server's key: its fingerprint, SHA256:..., or a line of known_hosts; without it nothing is sent",
        "sftp",
    )
    key_file: str = _key("", "file with the private key of the account; empty: it logs in by password", "sftp")
    password_file: str = _key("", "file with the password, mode 0600; empty: see below", *NETWORK_KINDS)
    passphrase_file: str = _key("", "file with the passphrase of key_file, mode 0600; empty: see below", "sftp")

    @property
    def port_number(self) -> int:
        """The port, also where it is left to the kind."""
        return self.port or _PORTS.get(self.kind, 0)

    @property
    def network(self) -> bool:
        """Whether the target is reached over the network."""
        return self.kind in NETWORK_KINDS

    @property
    def shown(self) -> str:
        """The name, safe for a terminal."""
        return for_terminal(self.name)

    @property
    def place(self) -> str:
        """Where the target is, for people."""
        if self.kind == "smb":
            return for_terminal(f"//{self.server}/{self.share}/{self.folder} as {self.user}")
        return for_terminal(f"{self.host}:{self.folder} as {self.user}" if self.kind == "sftp" else self.folder)


@dataclass(frozen=True, slots=True)
class TargetKey:
    """One key of a target: its default, help, limits, and the kinds that have it."""

    name: str
    default: Any
    help: str
    kinds: tuple[str, ...]
    least: float | None
    most: float | None


def target_keys() -> list[TargetKey]:
    """Return all keys, in the order of the documentation."""
    return [
        TargetKey(one.name, one.default, *(one.metadata[word] for word in ("help", "kinds", "least", "most")))
        for one in fields(TargetSettings)
    ]
