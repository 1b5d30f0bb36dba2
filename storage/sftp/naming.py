"""How a file gets its name when it is whole, and never in place of another one.

Version 3's own rename is no way: what it does where the new name exists is left to the server. OpenSSH refuses,
others replace, and where the disk has no hard links OpenSSH too looks first and renames then. So, the best that works:

- `link`: a hard link refuses an existing name, in one step; the temporary name goes after it.
- `claim`: an empty file is made under the name, which fails if it exists, and then replaced by the whole one. Only
  what is empty is ever replaced. An empty file is a name without its file (as in atomic.py): what a kill leaves.
- `rename`: as above, on a server that has been seen to refuse, and can do neither of the others.
"""

from collections.abc import Sequence

from . import wire
from .remote import HARDLINK, POSIX_RENAME
from .session import Session
from .wire import Reply, Request

LINK, CLAIM, CLAIM_PLAINLY, RENAME = "link", "claim", "claim, plain rename", "rename"
EXPLAINED = {
    LINK: "hard link, never replaces",
    CLAIM: "claims the name, then posix-rename",
    CLAIM_PLAINLY: "claims the name, then rename",
    RENAME: "rename, which this server refuses where the name exists",
}


def give_name(session: Session, way: str, part: bytes, name: bytes, also: Sequence[Request]) -> tuple[Reply, ...]:
    """Name a file. Returns how that went, and the replies to what is asked for `also`, in the same go. Where it went
    well nothing is left under the temporary name.
    """
    if way == LINK:
        done, *others = session.call(wire.extended(HARDLINK, part, name), *also)
    elif way == RENAME:
        done, *others = session.call(wire.rename(part, name), *also)
    else:
        claimed, found = session.call(
            wire.open_file(name, wire.WRITING | wire.CREATING | wire.EXCLUSIVE, 0o600), wire.lstat(name)
        )
        if claimed.ok:
            session.post(wire.close(claimed.data))
        elif not (found.ok and found.attributes.is_file and found.attributes.size == 0):
            return (claimed, *session.call(*also))
        done, *others = session.call(replacing(way, part, name), *also)
    return (done, *others)


def replacing(way: str, part: bytes, name: bytes) -> Request:
    """Return the request that puts a file in place of the empty one."""
    return wire.extended(POSIX_RENAME, part, name) if way == CLAIM else wire.rename(part, name)
