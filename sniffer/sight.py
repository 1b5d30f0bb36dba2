"""What frames themselves tell of the mirror they come from: whose they are, how they are wrapped, cut, joined, doubled.

No I/O. Every figure counts captured frames, unless it says otherwise.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .addresses import AddressBook
from .columns import Columns
from .copies import MIN_BYTES, Copies, prints
from .datagrams import Datagrams, Fate, Keys, Mask
from .peeling import Part
from .records import Ints, Records, gather
from .watch import Seen, WatchedBlock

ETHERNET = 1
"""The link type (LINKTYPE_ETHERNET) that tells whose a frame is."""
MAX_TAGS = 64
"""VLANs counted one by one."""
WRAPPINGS_ROOM = 100
"""What tags and tunnels may add to a frame of the interface's MTU, in bytes."""
_SEGMENTS = (32, 92, 172, 252, 332)
"""Sizes of RTP packets (G.729 and G.711, 10 to 40 ms) that are looked for behind each other in one datagram."""
_MACS = np.dtype([("to", ">u2"), ("to_rest", ">u4"), ("from", ">u2"), ("from_rest", ">u4")])
_TAG = np.dtype([("tag", ">u2"), ("type", ">u2")])
_GRE = np.dtype([("flags", ">u2"), ("type", ">u2")])
_V4 = np.dtype({"names": ["size"], "formats": [">u2"], "offsets": [2], "itemsize": 20})
_V6 = np.dtype({"names": ["size"], "formats": [">u2"], "offsets": [4], "itemsize": 40})
_RTP = np.dtype([("first", "u1"), ("kind", "u1"), ("sequence", ">u2"), ("stamp", ">u4"), ("ssrc", ">u4")])
_UDP_FATES = (Fate.RTP, Fate.RTCP, Fate.TEXT, Fate.STUN, Fate.DTLS, Fate.ZRTP, Fate.OTHER_UDP)


@dataclass(slots=True)
class Sight:
    """The figures. `foreign` frames are addressed to and come from others than this machine, or came in a tunnel."""

    frames: int = 0
    group: int = 0
    own: int = 0
    foreign: int = 0
    tagged: int = 0
    double_tagged: int = 0
    vlans: Counter[int] = field(default_factory=Counter)
    tunnels: Counter[str] = field(default_factory=Counter)
    snapped: int = 0
    shortened: int = 0
    large_udp: int = 0
    large_tcp: int = 0
    joined: int = 0
    fates: Counter[Fate] = field(default_factory=Counter)
    copies: Copies = field(default_factory=Copies)


class SightColumns(Columns):
    """Columns that note what they see (`engine.Engine.layers`).

    `own` are this machine's MAC addresses as numbers; `mtu` is the capture interface's, in bytes.
    """

    def __init__(self, *, sip_ports: frozenset[int] = frozenset({5060}), book: AddressBook | None = None) -> None:
        super().__init__(sip_ports=sip_ports, book=book)
        self.own: frozenset[int] = frozenset()
        self.mtu = 1500
        self.seen = Seen()
        self.sight = Sight()

    def read(self, records: Records) -> Datagrams:
        """Peel all frames of a block, and note what is in it."""
        block = _SightBlock(records, self)
        found = block.datagrams()
        if records.position:  # at 0 lie datagrams put together from fragments, whose frames were seen before
            block.note(self.sight, self.mtu)
        return found


class _SightBlock(WatchedBlock):
    def __init__(self, records: Records, columns: SightColumns) -> None:
        super().__init__(records, columns, columns.seen)
        count = len(records)
        self.own = np.array(sorted(columns.own), dtype=np.int64)
        self.sight = columns.sight if records.position else Sight()
        self.tags = np.zeros(count, dtype=np.uint8)
        self.in_tunnel = np.zeros(count, dtype=bool)
        self.short = np.zeros(count, dtype=bool)
        self.prints: list[tuple[Keys, Ints]] = []

    def note(self, sight: Sight, mtu: int) -> None:
        """Add up what the layers noted."""
        records = self.records
        sight.frames += len(records)
        group, own = self._addressed()
        for name, mask in (
            ("group", group),
            ("own", own & ~group),
            ("foreign", ~(own | group)),
            ("tagged", self.tags > 0),
            ("double_tagged", self.tags > 1),
            ("snapped", records.length < records.wire),
            ("shortened", self.short & (records.length >= records.wire)),
        ):
            setattr(sight, name, getattr(sight, name) + int(np.count_nonzero(mask)))
        large = records.wire > mtu + WRAPPINGS_ROOM
        if large.any():
            udp, tcp = np.isin(self.fate, _UDP_FATES), np.isin(self.fate, (Fate.TCP, Fate.OTHER_TCP))
            sight.large_udp += int(np.count_nonzero(large & udp))
            sight.large_tcp += int(np.count_nonzero(large & tcp))
        for fate, count in enumerate(np.bincount(self.fate, minlength=len(Fate)).tolist()):
            if count:
                sight.fates[Fate(fate)] += count
        if self.prints:
            sight.copies.add(*(np.concatenate(column) for column in zip(*self.prints, strict=True)))

    def _addressed(self) -> tuple[Mask, Mask]:
        """Tell which frames are for a group, and which are this machine's; what a tunnel carries is neither."""
        records = self.records
        group, own = np.zeros(len(records), dtype=bool), np.zeros(len(records), dtype=bool)
        rows = np.nonzero((records.link == ETHERNET) & (records.length >= 14) & ~self.in_tunnel)[0]
        macs = gather(self.data, records.offset[rows], _MACS)
        to = macs["to"].astype(np.int64) << 32 | macs["to_rest"]
        source = macs["from"].astype(np.int64) << 32 | macs["from_rest"]
        group[rows] = macs["to"] & 0x0100 != 0
        own[rows] = np.isin(to, self.own) | np.isin(source, self.own)
        return group, own

    # -- layers ----------------------------------------------------------------------------------------------------

    def vlan(self, part: Part) -> None:
        whole = part.pick(part.end - part.at >= 4)
        self.tags[whole.rows] += 1
        numbers = gather(self.data, whole.at, _TAG)["tag"] & 0x0FFF
        vlans = self.sight.vlans
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            if int(number) in vlans or len(vlans) < MAX_TAGS:
                vlans[int(number)] += int(count)
        super().vlan(part)

    def mpls(self, part: Part) -> None:
        self.sight.tunnels["MPLS"] += len(part.rows)
        super().mpls(part)

    def pppoe(self, part: Part) -> None:
        self.sight.tunnels["PPPoE"] += len(part.rows)
        super().pppoe(part)

    def gre(self, part: Part) -> None:
        whole = part.pick(part.end - part.at >= 4)
        words = gather(self.data, whole.at, _GRE)
        sequenced = words["flags"] & 0x1000 != 0
        first, third = words["type"] == 0x88BE, words["type"] == 0x22EB
        self._tunnel("ERSPAN type I", whole.rows[first & ~sequenced])
        self._tunnel("ERSPAN type II", whole.rows[first & sequenced])
        self._tunnel("ERSPAN type III", whole.rows[third])
        self._tunnel("GRE", whole.rows[~(first | third)])
        super().gre(part)

    def vxlan(self, part: Part) -> None:
        self._tunnel("VXLAN", part.rows)
        super().vxlan(part)

    def geneve(self, part: Part) -> None:
        self._tunnel("Geneve", part.rows)
        super().geneve(part)

    def tzsp(self, part: Part) -> None:
        self._tunnel("TZSP", part.rows)
        super().tzsp(part)

    def _tunnel(self, name: str, rows: Ints) -> None:
        if len(rows):
            self.in_tunnel[rows] = True
            self.sight.tunnels[name] += len(rows)

    def ipv4(self, part: Part) -> None:
        whole = part.pick(part.end - part.at >= 20)
        size = gather(self.data, whole.at, _V4)["size"].astype(np.int64)
        self.short[whole.rows[whole.at + size > whole.end]] = True
        super().ipv4(part)

    def ipv6(self, part: Part) -> None:
        whole = part.pick(part.end - part.at >= 40)
        size = gather(self.data, whole.at, _V6)["size"].astype(np.int64)
        self.short[whole.rows[whole.at + 40 + size > whole.end]] = True
        super().ipv6(part)

    # -- transport -------------------------------------------------------------------------------------------------

    def tcp(self, part: Part) -> None:
        header = (self.data[np.minimum(part.at + 12, len(self.data) - 1)] >> 4).astype(np.int64) * 4
        whole = part.pick(part.end - part.at >= header + MIN_BYTES)  # the bytes printed are the header's too
        self._print(whole, np.zeros(len(whole.rows), dtype=np.int64))
        super().tcp(part)

    def payloads(self, part: Part, source: Ints, destination: Ints) -> None:
        size = part.end - part.at
        enough: Mask = size >= MIN_BYTES
        self._print(part.pick(enough), (source << 16 | destination)[enough])
        self._look_for_joined(part, size)
        super().payloads(part, source, destination)

    def _print(self, part: Part, ports: Ints) -> None:
        if len(part.rows):
            keys = prints(self.data, part.at, part.end - part.at, part.source, part.destination, ports)
            self.prints.append((keys, self.records.time[part.rows]))

    def _look_for_joined(self, part: Part, size: Ints) -> None:
        """Find datagrams in which one RTP packet follows another: the network card or its driver joined them."""
        joined = np.zeros(len(size), dtype=bool)
        head = gather(self.data, part.at, _RTP)
        media = head["first"] >> 6 == 2
        for segment in _SEGMENTS:
            rows = np.nonzero(media & (size >= segment + 12))[0]
            if len(rows):
                second = gather(self.data, part.at[rows] + segment, _RTP)
                follows = second["sequence"] == head["sequence"][rows] + np.uint16(1)
                joined[rows] |= (second["first"] >> 6 == 2) & (second["ssrc"] == head["ssrc"][rows]) & follows
        self.sight.joined += int(np.count_nonzero(joined))
