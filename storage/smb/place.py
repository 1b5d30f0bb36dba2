"""Where an SMB target is, and who we are there."""

from dataclasses import dataclass

from ..secret import Secret


@dataclass(frozen=True, slots=True)
class SmbPlace:
    """A folder in a share, which has to exist, and an account that may write there."""

    name: str
    server: str
    share: str
    user: str
    password: Secret
    port: int = 445
    folder: str = ""
    domain: str = ""
    require_encryption: bool = True
    require_signing: bool = True

    @property
    def share_path(self) -> str:
        r"""Return `\\server\share`."""
        return rf"\\{self.server}\{self.share}"
