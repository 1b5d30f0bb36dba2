"""What was found on a mirror port, as plain figures: what `diagnosis` judges and what `checkup` gathers. No I/O."""

from collections import Counter
from dataclasses import dataclass, field

from ..sip.call import Party

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StreamFact:
    """One RTP stream; times in ns. `called` says that a call claims it, `accidental` that it only looks like RTP."""

    source: tuple[str, int]
    destination: tuple[str, int]
    packets: int
    lost: int
    first: int
    last: int
    called: bool
    accidental: bool

    @property
    def loss(self) -> float:
        """The share of its packets that never came, 0 to 1."""
        return self.lost / max(self.lost + self.packets, 1)


@dataclass(frozen=True, slots=True)
class CallFact:
    """One call: packets of sound from each party; for how long it has been answered, in seconds (0: it is not)."""

    packets: dict[Party, int]
    answered_s: float
    encrypted: bool
    two_way: bool
    """Both parties said that they send and receive."""


@dataclass(frozen=True, slots=True)
class PairFact:
    """SIP between two hosts: messages each way (from the first to the second, and back)."""

    hosts: tuple[str, str]
    there: int
    back: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """All figures. Frames count captured frames; see `sight.Sight` for `foreign`, `group` and `own`.

    `began` and `now` are the first packet's time and the last one's (ns); `seconds` how long was watched by the clock.
    """

    seconds: float = 0.0
    began: int = 0
    now: int = 0
    frames: int = 0
    group: int = 0
    own: int = 0
    foreign: int = 0
    tagged: int = 0
    double_tagged: int = 0
    vlans: dict[int, int] = field(default_factory=dict)
    tunnels: dict[str, int] = field(default_factory=dict)
    snapped: int = 0
    shortened: int = 0
    large_udp: int = 0
    large_tcp: int = 0
    joined: int = 0
    unreadable: int = 0
    ipsec: int = 0
    dtls: int = 0
    zrtp: int = 0
    printed: int = 0
    copies: int = 0
    methods: dict[str, int] = field(default_factory=dict)
    pairs: tuple[PairFact, ...] = ()
    calls: tuple[CallFact, ...] = ()
    streams: tuple[StreamFact, ...] = ()
    others: dict[str, int] = field(default_factory=dict)
    """Signalling that cannot be read: its kind, and how many pairs of hosts speak it."""
    moments: int = 0
    moment_packets: int = 0

    @property
    def messages(self) -> int:
        """SIP messages."""
        return sum(self.methods.values())

    @property
    def media(self) -> list[StreamFact]:
        """The streams that are long enough (a second at 20 ms) to be sound and no accident."""
        return [stream for stream in self.streams if stream.packets >= 50 and not stream.accidental]


def counted(counter: Counter[str]) -> dict[str, int]:
    """Return a counter's entries, the most frequent first."""
    return dict(counter.most_common())
