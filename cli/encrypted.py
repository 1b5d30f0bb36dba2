"""Calls that are encrypted and cannot be recorded: one alarm for each peer and day, so that somebody looks into it."""

from dataclasses import dataclass, field
from datetime import datetime

from ..sip.dialog import Party
from ..storage.recording import Recording
from ..storage.safe_text import for_line
from ..storage.state import Alarms

CODE = "ENCRYPTED_CALL"
MAX_PEERS = 20
"""Peers of a day with an alarm of their own; beyond it one stands for all others."""


@dataclass(slots=True)
class EncryptedPeers:
    """Keeps the alarms of a day; they end with it."""

    alarms: Alarms
    _day: str = ""
    _calls: dict[str, int] = field(default_factory=dict)

    def look(self, now: datetime) -> None:
        """End the alarms of a day that is over; `now` is local time."""
        day = now.date().isoformat()
        if day == self._day:
            return
        for peer in [alarm["about"] for alarm in self.alarms.active if alarm["code"] == CODE]:
            self.alarms.clear(CODE, peer)
        self._day, self._calls = day, {}

    def met(self, recording: Recording, now: datetime) -> None:
        """Raise the alarm of a call's peer, if the call could not be recorded because it is encrypted."""
        if recording.outcome != "encrypted":
            return
        self.look(now)
        peer = peer_of(recording)
        if peer not in self._calls and len(self._calls) >= MAX_PEERS:
            peer = "others"
        self._calls[peer] = self._calls.get(peer, 0) + 1
        calls = f"{self._calls[peer]} encrypted call{'' if self._calls[peer] == 1 else 's'}"
        self.alarms.raise_(CODE, f"{calls} with {peer} today could not be recorded: no key is known", about=peer)


def peer_of(recording: Recording) -> str:
    """Return the host at the far end of a call; both hosts where nobody knows which is ours."""
    hosts = {party: recording.call.signalling.get(party, ("", 0))[0] for party in Party}
    far = {"in": (Party.CALLER,), "out": (Party.CALLEE,)}.get(recording.direction, tuple(Party))
    return for_line(" and ".join(hosts[party] for party in far if hosts[party]) or "unknown")
