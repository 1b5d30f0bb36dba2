"""Every frame and every call is accounted for: what was seen equals the sum of what became of it."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .datagrams import Fate

PACKET_FATES = (
    "kept",
    "duplicate",
    "relayed",
    "signalling",
    "not_a_call",
    "refused",
    "malformed",
    "kernel_dropped",
    "overload_dropped",
)
CALL_FATES = ("recorded", "refused", "without_media", "encrypted", "failed")

_LEAVES: dict[Fate, tuple[str, str]] = {
    Fate.RTCP: ("signalling", "RTCP"),
    Fate.STUN: ("signalling", "STUN"),
    Fate.DTLS: ("signalling", "DTLS"),
    Fate.ZRTP: ("signalling", "ZRTP"),
    Fate.OTHER_UDP: ("not_a_call", "other UDP"),
    Fate.OTHER_TCP: ("not_a_call", "other TCP"),
    Fate.OTHER_IP: ("not_a_call", "other IP protocol"),
    Fate.ENCRYPTED_TUNNEL: ("not_a_call", "IPsec"),
    Fate.NOT_IP: ("not_a_call", "not IP"),
    Fate.UNKNOWN_LINK: ("malformed", "unknown link type"),
    Fate.TRUNCATED_LINK: ("malformed", "truncated link header"),
    Fate.TRUNCATED_IP: ("malformed", "truncated IP header"),
    Fate.TRUNCATED_UDP: ("malformed", "truncated UDP header"),
    Fate.TRUNCATED_TCP: ("malformed", "truncated TCP header"),
    Fate.TRUNCATED_TUNNEL: ("malformed", "truncated tunnel header"),
    Fate.BAD_IP: ("malformed", "bad IP header"),
    Fate.BAD_UDP: ("malformed", "bad UDP length"),
    Fate.TOO_DEEP: ("malformed", "too many nested headers"),
}
"""The fates that need no further look. RTP, text, TCP and fragments are counted by those who look at them."""


@dataclass(slots=True)
class Account:
    """The packet account (captured frames) and the call account of a run."""

    seen: int = 0
    packets: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def frames(self, count: int, fates: npt.NDArray[np.int64]) -> None:
        """Count a block's frames by fate; the fates that are looked at further are counted later."""
        self.seen += count
        self.fates(fates)

    def fates(self, fates: npt.NDArray[np.int64]) -> None:
        """Count frames that were seen already by what they turned out to be."""
        for fate, leaf in _LEAVES.items():
            if fates[fate]:
                self.packets[leaf] += int(fates[fate])

    def packet(self, fate: str, kind: str, count: int = 1) -> None:
        """Count frames of one fate, one of `PACKET_FATES`, by kind."""
        if count:
            self.packets[fate, kind] += count

    def dropped(self, count: int) -> None:
        """Count packets that crossed the wire and were dropped before they could be captured."""
        self.seen += count
        self.packet("kernel_dropped", "by the capture's own account", count)

    def kernel_dropped(self, count: int) -> None:
        """Count packets that the kernel dropped because nobody emptied the ring in time."""
        self.seen += count
        self.packet("kernel_dropped", "ring full", count)

    def packet_totals(self) -> dict[str, int]:
        """Return `seen` and all of `PACKET_FATES`; `seen` is counted apart, so that a gap in the books shows."""
        totals = {"seen": self.seen} | dict.fromkeys(PACKET_FATES, 0)
        for (fate, _), count in self.packets.items():
            totals[fate] += count
        return totals

    def packet_kinds(self) -> dict[str, dict[str, int]]:
        """Return the counts by fate and kind."""
        kinds: dict[str, dict[str, int]] = {}
        for (fate, kind), count in sorted(self.packets.items()):
            kinds.setdefault(fate, {})[kind] = count
        return kinds

    def call_totals(self) -> dict[str, int]:
        """Return `seen` and all of `CALL_FATES`."""
        return {"seen": self.calls["seen"]} | {fate: self.calls[fate] for fate in CALL_FATES}
