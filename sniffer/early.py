"""What was said in calls whose spool has not begun: an earlier run's, or those of a flood. Pure."""

from .items import Spoke

MAX_MESSAGES, MEMORY = 64, 32 << 20
"""Messages of a call, and bytes in all, that are kept."""


class Early:
    """Messages by the number of their call, in bounded memory; `size` is what they take, in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._kept: dict[int, list[Spoke]] = {}

    def keep(self, spoke: Spoke, anyway: bool = False) -> None:
        """Keep a message if there is room, or anyway."""
        kept = self._kept.setdefault(spoke.number, [])
        if anyway or (len(kept) < MAX_MESSAGES and self.size + len(spoke.packet) <= MEMORY):
            kept.append(spoke)
            self.size += len(spoke.packet)

    def take(self, number: int) -> list[Spoke]:
        """Return a call's messages, and forget them."""
        taken = self._kept.pop(number, [])
        self.size -= sum(len(spoke.packet) for spoke in taken)
        return taken
