"""The SRTP keys that the parties of a call told each other, and which of them a stream may be made with. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from ..rtp.srtp import SUITES, Master
from ..sip.call import Party
from ..sip.sdes import Crypto

MAX_LINES = 256
"""Different `a=crypto` lines of each party that are remembered: beyond it the oldest go."""
MAX_MASTERS = 128


@dataclass(slots=True)
class Keyring:
    """What each party said that it encrypts with (RFC 4568), the newest last. Keys never show in a `repr`."""

    _lines: dict[Party, dict[Crypto, None]] = field(default_factory=dict, repr=False)
    _taken: set[tuple[int, str]] = field(default_factory=set)

    @property
    def usable(self) -> bool:
        """Whether there is any key that packets can be read with."""
        return any(line.usable for lines in self._lines.values() for line in lines)

    def add(self, party: Party, lines: tuple[Crypto, ...]) -> None:
        """Take the lines of one m-line of a party's description."""
        held = self._lines.setdefault(party, {})
        if len(lines) == 1 and len(self._taken) < MAX_LINES:  # an answer has one: the tag that it took from the offer
            self._taken.add((lines[0].tag, lines[0].suite))
        for line in lines:
            held.pop(line, None)
            held[line] = None
            if len(held) > MAX_LINES:
                del held[next(iter(held))]

    def masters(self, sender: Party) -> list[Master]:
        """Return the keys with which a party's packets may have been made, the likeliest first: its own, of these the
        ones that an answer took, of these the newest. The other party's come last: whose a stream is may be a mistake.
        """
        lines = [line for party in (sender, sender.other) for line in self._ordered(party)]
        return list(dict.fromkeys(islice(_masters(lines), 2 * MAX_MASTERS)))[:MAX_MASTERS]

    def _ordered(self, party: Party) -> list[Crypto]:
        newest = list(reversed(self._lines.get(party, {})))
        return sorted(newest, key=lambda line: (line.tag, line.suite) not in self._taken)


def _masters(lines: Iterable[Crypto]) -> Iterator[Master]:
    """Yield the master keys of these lines. A key identifier may have been told and yet not stand in the packets."""
    lines = [line for line in lines if line.usable and line.suite in SUITES]
    for bare in (False, True):
        for line in lines:
            suite = SUITES[line.suite]
            for key in line.keys if not (line.clear and suite.aead) else ():
                if not bare or key.mki:
                    yield Master(suite, key.key, key.salt, b"" if bare else key.mki, line.rate, line.clear)
