"""The interfaces that may be the mirror port: what each gets for a few seconds, and which is the likeliest."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..sniffer.checkup import Checkup
from ..sniffer.sources.capture_file import CaptureError
from ..sniffer.sources.interfaces import Interface, interface, interfaces
from ..sniffer.sources.ring import Ring
from ..sniffer.traffic import Traffic

RING, BLOCK = 8 << 20, 256 << 10
VISIT_S = 0.1
MAX_HEARD = 32
"""Interfaces listened to at once: a machine with many containers has hundreds."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interface with its packets a second, and what was heard on it (None: nobody could listen)."""

    interface: Interface
    rate: float = 0.0
    traffic: Traffic | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The interface's name."""
        return self.interface.name

    @property
    def score(self) -> int:
        """How likely it is the mirror port; below 0 it cannot be."""
        one, heard = self.interface, self.traffic
        score = 0
        if heard is not None and heard.foreign:
            score += 8 + 16 * bool(heard.messages or heard.media)
        score += 4 * bool(self.rate) + 2 * one.link_up + (one.kind == "ethernet")
        if one.default_route:
            return score - 64
        return score - 5 * bool(_addresses(one)) - 32 * (not one.up)

    @property
    def likely(self) -> bool:
        """Whether it shows what only a mirror shows."""
        return self.score >= 8

    @property
    def hint(self) -> str:
        """What to make of it, in words."""
        one, heard = self.interface, self.traffic
        if not one.up:
            return f"is off: ip link set {one.name} up"
        if not one.link_up:
            return "no link: is the cable in?"
        if one.default_route:
            return "the way to this machine: leave it for management"
        if heard is None:
            return self.problem
        if heard.foreign and (heard.messages or heard.media):
            return "calls between others: this is the mirror port"
        if heard.foreign:
            return "packets between others, no calls just now: probably the mirror port"
        if heard.frames:
            return "only broadcasts and its own packets: no mirror yet"
        return "silent: no mirror yet"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        one, heard = self.interface, self.traffic
        seen = None
        if heard is not None:
            seen = {
                "packets": heard.frames,
                "between_others": heard.foreign,
                "sip_messages": heard.messages,
                "rtp_streams": len(heard.media),
            }
        return {
            "name": one.name,
            "kind": one.kind,
            "driver": one.driver,
            "virtual_machine": one.machine,
            "up": one.up,
            "link_up": one.link_up,
            "mac": one.mac,
            "mtu": one.mtu,
            "addresses": list(one.addresses),
            "default_route": one.default_route,
            "packets_per_second": round(self.rate, 1),
            "heard": seen,
            "likely": self.likely,
            "hint": self.hint,
        }


def candidates(seconds: float) -> list[Candidate]:
    """Listen to all interfaces but the loopback for so long, and return them, the likeliest first."""
    found = [Candidate(one) for one in interfaces() if one.kind != "loopback"]
    own = frozenset(int(one.interface.mac.replace(":", ""), 16) for one in found if one.interface.mac)
    heard = [_Ear(one, own) for one in found if one.interface.up][:MAX_HEARD]
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(VISIT_S)
            for ear in heard:
                ear.listen()
    finally:
        for ear in heard:
            ear.close()
    known = {ear.name: ear.result(seconds) for ear in heard}
    return ranked([known.get(one.name, one) for one in found])


def ranked(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the likeliest first."""
    return sorted(found, key=lambda one: (-one.score, -one.rate, one.interface.index))


def _addresses(one: Interface) -> list[str]:
    return [address for address in one.addresses if not address.startswith("fe80:")]


class _Ear:
    """Listens to one interface; without the right to, it only reads its counters."""

    def __init__(self, candidate: Candidate, own: frozenset[int]) -> None:
        self.name = candidate.name
        self._candidate = candidate
        self._before = candidate.interface.counters.rx_packets
        self._checkup = Checkup(own=own, mtu=candidate.interface.mtu)
        self._ring: Ring | None = None
        self._problem = ""
        try:
            self._ring = Ring(self.name, size=RING, block=BLOCK)
        except CaptureError as error:
            self._problem = str(error)

    def listen(self) -> None:
        """Take what the ring holds."""
        if self._ring is None:
            return
        captured = self._ring.read()
        if captured is not None:
            self._checkup.read(replace(captured.records, position=1))
            self._ring.release(captured.blocks)

    def result(self, seconds: float) -> Candidate:
        """Return the candidate with what was heard."""
        try:
            now = interface(self.name)  # anew: a link takes a moment to come up
        except CaptureError as error:
            return replace(self._candidate, problem=str(error))
        found = replace(self._candidate, interface=now)
        received = now.counters.rx_packets - self._before
        if self._ring is None:
            return replace(found, rate=received / seconds, problem=self._problem)
        self._checkup.finish()
        traffic = self._checkup.traffic(seconds)
        return replace(found, rate=max(received, traffic.frames) / seconds, traffic=traffic)

    def close(self) -> None:
        """Stop listening."""
        if self._ring is not None:
            self.listen()
            self._ring.close()
