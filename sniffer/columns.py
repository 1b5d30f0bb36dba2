"""From captured frames to columns: one row a UDP datagram that may be RTP, and a short list of everything slower.

Every layer is peeled off all frames that carry it in one step; tags, tunnels, options and IPv6 only change the offset
column. A frame's `Fate` says what became of it, so that every frame is counted exactly once.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from .addresses import AddressBook, v6_keys
from .records import Bytes, Ints, Records, gather

Mask = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]
MAX_LAYERS = 16


class Fate(IntEnum):
    """What became of a frame in the columnar path."""

    UNSEEN = 0
    RTP = 1
    RTCP = 2
    TEXT = 3
    FRAGMENT = 4
    TCP = 5
    STUN = 6
    DTLS = 7
    ZRTP = 8
    OTHER_UDP = 9
    OTHER_TCP = 10
    OTHER_IP = 11
    ENCRYPTED_TUNNEL = 12
    NOT_IP = 13
    UNKNOWN_LINK = 14
    TRUNCATED_LINK = 15
    TRUNCATED_IP = 16
    TRUNCATED_UDP = 17
    TRUNCATED_TCP = 18
    TRUNCATED_TUNNEL = 19
    BAD_IP = 20
    BAD_UDP = 21
    TOO_DEEP = 22
    JOINED_FRAGMENT = 23


@dataclass(frozen=True, slots=True)
class RtpColumns:
    """Datagrams that look like RTP (RFC 3550 section 5.1), one row each, in time order.

    `time` ns (int64); `source` and `destination` address keys (uint64, see `addresses`); `ports` source << 16 | destination
    (uint32); `position` of the payload in the input (int64) and its `size` in bytes (int32); `sequence` (uint16),
    `stamp` (uint32), `ssrc` (uint32), `kind` marker bit and payload type (uint8); `frames`: captured frames it took (uint8).
    """

    time: Ints
    source: Keys
    destination: Keys
    ports: npt.NDArray[np.uint32]
    position: Ints
    size: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.uint16]
    stamp: npt.NDArray[np.uint32]
    ssrc: npt.NDArray[np.uint32]
    kind: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: Ints | slice | Mask) -> "RtpColumns":
        """Return these rows only."""
        return RtpColumns(*(getattr(self, name)[rows] for name in RTP_FIELDS))


RTP_FIELDS = tuple(RtpColumns.__dataclass_fields__)
_TYPES = (np.int64, np.uint64, np.uint64, np.uint32, np.int64, np.int32, np.uint16, np.uint32, np.uint32, np.uint8, np.uint8)
NO_RTP = RtpColumns(*(np.empty(0, dtype=code) for code in _TYPES))  # type: ignore[arg-type]


def join(parts: list[RtpColumns]) -> RtpColumns:
    """Put columns behind each other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_RTP
    return RtpColumns(*(np.concatenate([getattr(part, name) for part in parts]) for name in RTP_FIELDS))


@dataclass(frozen=True, slots=True)
class SlowPacket:
    """One packet for the slow path: an object, because it is rare.

    `time` ns; IP addresses as text; `payload` is the UDP payload (`Fate.TEXT`, `Fate.ZRTP`), the TCP segment with its
    header (`Fate.TCP`) or the IP packet from its header on (`Fate.FRAGMENT`); `cut` says that bytes were not captured.
    """

    time: int
    fate: Fate
    source: str
    destination: str
    source_port: int
    destination_port: int
    payload: bytes
    cut: bool = False


@dataclass(slots=True)
class Datagrams:
    """What one block held: columns, slow packets and how many frames met which fate.

    `first` and `last` are times in ns; `cut` counts the RTP packets whose payload was captured only in part.
    """

    rtp: RtpColumns
    slow: list[SlowPacket]
    fates: npt.NDArray[np.int64]
    first: int
    last: int
    frames: int
    cut: int = 0


_ETHERNET = np.dtype({"names": ["type"], "formats": [">u2"], "offsets": [12], "itemsize": 14})
_U16 = np.dtype([("value", ">u2")])
_TAG = np.dtype([("first", ">u2"), ("second", ">u2"), ("third", ">u2"), ("fourth", ">u2")])
_IPV4 = np.dtype(
    {
        "names": ["version", "size", "fragment", "protocol", "source", "destination"],
        "formats": ["u1", ">u2", ">u2", "u1", ">u4", ">u4"],
        "offsets": [0, 2, 6, 9, 12, 16],
        "itemsize": 20,
    }
)
_IPV6 = np.dtype(
    {
        "names": ["version", "size", "next", "s1", "s2", "d1", "d2"],
        "formats": ["u1", ">u2", "u1", ">u8", ">u8", ">u8", ">u8"],
        "offsets": [0, 4, 6, 8, 16, 24, 32],
        "itemsize": 40,
    }
)
_UDP = np.dtype([("source", ">u2"), ("destination", ">u2"), ("size", ">u2"), ("sum", ">u2")])
_RTP = np.dtype([("first", "u1"), ("second", "u1"), ("sequence", ">u2"), ("stamp", ">u4"), ("ssrc", ">u4")])
_WORDS = np.dtype([("a", ">u4"), ("b", ">u4")])
_TEXT = np.dtype([("text", "u1", (16,))])

_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200)
_V6_EXTENSIONS = (0, 43, 60, 135, 139, 140)
MAX_NEXT_HEADERS = 8


@dataclass(slots=True)
class _Part:
    """Frames at one layer: which frames (rows), where the layer begins and the packet ends in the block."""

    rows: Ints
    at: Ints
    end: Ints
    depth: int
    source: Keys = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    destination: Keys = field(default_factory=lambda: np.empty(0, dtype=np.uint64))

    def pick(self, mask: Mask, skip: Ints | int = 0) -> "_Part":
        """Return the masked frames, `skip` bytes further on."""
        if mask.all():
            return _Part(self.rows, self.at + skip, self.end, self.depth, self.source, self.destination)
        add = skip if isinstance(skip, int) else skip[mask]
        source = self.source[mask] if len(self.source) else self.source
        destination = self.destination[mask] if len(self.destination) else self.destination
        return _Part(self.rows[mask], self.at[mask] + add, self.end[mask], self.depth, source, destination)


class Columns:
    """Turns blocks of frames into `Datagrams`. `sip_ports` are UDP and TCP ports where anything may be SIP."""

    def __init__(self, *, sip_ports: frozenset[int] = frozenset({5060}), book: AddressBook | None = None) -> None:
        self.book = book if book is not None else AddressBook()
        self.tcp_flows = np.empty(0, dtype=np.uint64)
        """Keys of TCP connections known to carry SIP (`tcp_flow_keys`): the engine adds to them."""
        self._sip_ports = np.array(sorted(sip_ports), dtype=np.int64)

    def read(self, records: Records) -> Datagrams:
        """Peel all frames of a block."""
        return _Block(records, self.book, self._sip_ports, self.tcp_flows).datagrams()


def tcp_flow_keys(source: Keys, destination: Keys, ports: npt.NDArray[np.uint32]) -> Keys:
    """Return a direction-free key (uint64) of each TCP connection."""
    swapped = (ports >> np.uint32(16)) | (ports << np.uint32(16))
    return (source ^ destination) * np.uint64(0x9E3779B97F4A7C15) + (ports.astype(np.uint64) ^ swapped.astype(np.uint64)) + (
        ports.astype(np.uint64) * swapped.astype(np.uint64)
    )


class _Block:
    """One block on its way through the layers."""

    def __init__(self, records: Records, book: AddressBook, sip_ports: Ints, tcp_flows: Keys) -> None:
        self.records = records
        self.data: Bytes = records.data
        self.book = book
        self.sip_ports = sip_ports
        self.tcp_flows = tcp_flows
        self.fate = np.zeros(len(records), dtype=np.uint8)
        self.cut = 0
        self.rtp: list[RtpColumns] = []
        self.slow: list[tuple[int, SlowPacket]] = []
        self.work: deque[tuple[Callable[[_Part], None], _Part]] = deque()

    def datagrams(self) -> Datagrams:
        records = self.records
        rows = np.arange(len(records), dtype=np.int64)
        whole = _Part(rows, records.offset, records.offset + records.length, 0)
        first = int(records.link[0]) if len(records) else 0
        for link in [first] if (records.link == first).all() else np.unique(records.link).tolist():
            self.later(_LINKS.get(link, _Block.unknown_link).__get__(self), whole.pick(records.link == link))
        while self.work:
            layer, part = self.work.popleft()
            layer(part)
        time = records.time
        rtp = join(self.rtp)
        if len(rtp) > 1 and (np.diff(rtp.time) < 0).any():
            rtp = rtp.take(np.argsort(rtp.time, kind="stable"))
        self.slow.sort(key=lambda entry: (entry[1].time, entry[0]))
        return Datagrams(
            rtp=rtp,
            slow=[packet for _, packet in self.slow],
            fates=np.bincount(self.fate, minlength=len(Fate)).astype(np.int64),
            first=int(time.min()) if len(time) else 0,
            last=int(time.max()) if len(time) else 0,
            frames=len(records),
            cut=self.cut,
        )

    # -- helpers -------------------------------------------------------------------------------------------------------

    def later(self, layer: Callable[[_Part], None], part: _Part, deeper: bool = False) -> None:
        """Queue frames for a layer; `deeper` counts one more nesting and ends it at `MAX_LAYERS`."""
        if len(part.rows) == 0:
            return
        part.depth += deeper
        if part.depth > MAX_LAYERS:
            self.ends(part.rows, Fate.TOO_DEEP)
        else:
            self.work.append((layer, part))

    def ends(self, rows: Ints, fate: Fate) -> None:
        if len(rows):
            self.fate[rows] = fate

    def room(self, part: _Part, size: int, fate: Fate) -> _Part:
        """Return the frames that have `size` more bytes; the others end here."""
        enough = part.end - part.at >= size
        if enough.all():
            return part
        self.ends(part.rows[~enough], fate)
        return part.pick(enough)

    def split(self, part: _Part, value: npt.NDArray[np.int64], ways: dict[int, tuple[Callable[[_Part], None], int]]) -> Mask:
        """Send frames on by a field's value: value -> (layer, bytes to skip). Return the mask of frames sent nowhere."""
        left = np.ones(len(value), dtype=bool)
        for key, (layer, skip) in ways.items():
            mask = value == key
            if mask.any():
                self.later(layer, part.pick(mask, skip), deeper=True)
                left &= ~mask
        return left

    # -- link layers ---------------------------------------------------------------------------------------------------

    def unknown_link(self, part: _Part) -> None:
        self.ends(part.rows, Fate.UNKNOWN_LINK)

    def ethernet(self, part: _Part) -> None:
        part = self.room(part, 14, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at, _ETHERNET)["type"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 14), kind)

    def cooked(self, part: _Part) -> None:
        """Linux cooked v1 (LINKTYPE_LINUX_SLL): 16 bytes, the protocol last."""
        part = self.room(part, 16, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at + 14, _U16)["value"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 16), kind)

    def cooked2(self, part: _Part) -> None:
        """Linux cooked v2 (LINKTYPE_LINUX_SLL2): 20 bytes, the protocol first."""
        part = self.room(part, 20, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at, _U16)["value"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 20), kind)

    def loopback(self, part: _Part) -> None:
        """BSD loopback (LINKTYPE_NULL, LINKTYPE_LOOP): a family number of 4 bytes; the IP version says the rest."""
        part = self.room(part, 4, Fate.TRUNCATED_LINK)
        self.later(self.raw, part.pick(np.ones(len(part.rows), dtype=bool), 4))

    def erf(self, part: _Part) -> None:
        """Endace ERF: a 16-byte header, extension headers while bit 7 is set, 2 bytes of padding before Ethernet."""
        part = self.room(part, 18, Fate.TRUNCATED_LINK)
        kind = self.data[part.at + 8].astype(np.int64)
        more = kind & 0x80 != 0
        skip = np.full(len(part.rows), 16, dtype=np.int64)
        for _ in range(MAX_NEXT_HEADERS):
            if not more.any():
                break
            more &= part.at + skip < part.end
            first = self.data[np.minimum(part.at + skip, len(self.data) - 1)]
            skip[more] += 8
            more &= first & 0x80 != 0
        ethernet = np.isin(kind & 0x7F, (2, 11, 16, 20))
        self.later(self.ethernet, part.pick(ethernet, skip + 2))
        self.ends(part.rows[~ethernet], Fate.UNKNOWN_LINK)

    def ppp(self, part: _Part) -> None:
        """PPP (RFC 1661), with or without the HDLC-like address and control bytes (RFC 1662)."""
        part = self.room(part, 4, Fate.TRUNCATED_LINK)
        words = gather(self.data, part.at, _TAG)
        framed = words["first"] == 0xFF03
        kind = np.where(framed, words["second"], words["first"]).astype(np.int64)
        part = part.pick(np.ones(len(part.rows), dtype=bool), np.where(framed, 4, 2).astype(np.int64))
        left = self.split(part, kind, {0x0021: (self.ipv4, 0), 0x0057: (self.ipv6, 0)})
        self.ends(part.rows[left], Fate.NOT_IP)

    def raw(self, part: _Part) -> None:
        """An IP packet of either version."""
        part = self.room(part, 1, Fate.TRUNCATED_IP)
        version = (self.data[part.at] >> 4).astype(np.int64)
        left = self.split(part, version, {4: (self.ipv4, 0), 6: (self.ipv6, 0)})
        self.ends(part.rows[left], Fate.NOT_IP)

    # -- between link and IP -------------------------------------------------------------------------------------------

    def by_ethertype(self, part: _Part, kind: npt.NDArray[np.int64]) -> None:
        ways: dict[int, tuple[Callable[[_Part], None], int]] = {
            0x0800: (self.ipv4, 0),
            0x86DD: (self.ipv6, 0),
            0x8847: (self.mpls, 0),
            0x8848: (self.mpls, 0),
            0x8864: (self.pppoe, 0),
            0x6558: (self.ethernet, 0),
            0x880B: (self.ppp, 0),
        }
        ways |= dict.fromkeys(_VLAN, (self.vlan, 0))
        left = self.split(part, kind, ways)
        llc = left & (kind <= 1500)
        if llc.any():
            self.later(self.snap, part.pick(llc), deeper=True)
        self.ends(part.rows[left & ~llc], Fate.NOT_IP)

    def vlan(self, part: _Part) -> None:
        """An 802.1Q or 802.1ad tag: 2 bytes of tag, the next type."""
        part = self.room(part, 4, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at + 2, _U16)["value"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 4), kind)

    def snap(self, part: _Part) -> None:
        """802.2 LLC with SNAP (RFC 1042)."""
        part = self.room(part, 8, Fate.NOT_IP)
        words = gather(self.data, part.at, _TAG)
        snap = (words["first"] == 0xAAAA) & (words["second"] == 0x0300)
        self.ends(part.rows[~snap], Fate.NOT_IP)
        self.by_ethertype(part.pick(snap, 8), words["fourth"][snap].astype(np.int64))

    def mpls(self, part: _Part) -> None:
        """One MPLS label (RFC 3032); below the last one IP, or Ethernet behind a control word (RFC 4448)."""
        part = self.room(part, 5, Fate.TRUNCATED_LINK)
        bottom = self.data[part.at + 2] & 1 != 0
        self.later(self.mpls, part.pick(~bottom, 4), deeper=True)
        part = part.pick(bottom, 4)
        version = (self.data[part.at] >> 4).astype(np.int64)
        left = self.split(part, version, {4: (self.ipv4, 0), 6: (self.ipv6, 0), 0: (self.ethernet, 4)})
        self.ends(part.rows[left], Fate.NOT_IP)

    def pppoe(self, part: _Part) -> None:
        """A PPPoE session frame (RFC 2516)."""
        part = self.room(part, 8, Fate.TRUNCATED_LINK)
        session = (self.data[part.at] == 0x11) & (self.data[part.at + 1] == 0)
        self.ends(part.rows[~session], Fate.NOT_IP)
        self.later(self.ppp, part.pick(session, 6), deeper=True)

    # -- IP ------------------------------------------------------------------------------------------------------------

    def ipv4(self, part: _Part) -> None:
        part = self.room(part, 20, Fate.TRUNCATED_IP)
        head = gather(self.data, part.at, _IPV4)
        header = (head["version"] & 15).astype(np.int64) * 4
        size = head["size"].astype(np.int64)
        size[size == 0] = 0xFFFF  # segmentation offload leaves the field empty: the frame's own length holds
        good = (head["version"] >> 4 == 4) & (header >= 20) & (size >= header)
        if not good.all():
            self.ends(part.rows[~good], Fate.BAD_IP)
            part, head, header, size = part.pick(good), head[good], header[good], size[good]
        start = part.at
        part = _Part(part.rows, start + header, np.minimum(part.end, start + size), part.depth)
        part.source = head["source"].astype(np.uint64)
        part.destination = head["destination"].astype(np.uint64)
        fragment = head["fragment"] & 0x3FFF != 0
        if fragment.any():
            self.fragments(part.pick(fragment), start[fragment], (start + size)[fragment])
            part, head = part.pick(~fragment), head[~fragment]
        short = part.end < part.at
        if short.any():
            self.ends(part.rows[short], Fate.TRUNCATED_IP)
            part, head = part.pick(~short), head[~short]
        self.by_protocol(part, head["protocol"].astype(np.int64))

    def ipv6(self, part: _Part) -> None:
        part = self.room(part, 40, Fate.TRUNCATED_IP)
        head = gather(self.data, part.at, _IPV6)
        good = head["version"] >> 4 == 6
        if not good.all():
            self.ends(part.rows[~good], Fate.BAD_IP)
            part, head = part.pick(good), head[good]
        start = part.at
        size = head["size"].astype(np.int64)
        end = np.where(size == 0, part.end, np.minimum(part.end, start + 40 + size))  # 0: a jumbogram or offload
        part = _Part(part.rows, start + 40, end, part.depth)
        words = [head[name].astype(np.uint64) for name in ("s1", "s2", "d1", "d2")]
        part.source, part.destination = v6_keys(words[0], words[1]), v6_keys(words[2], words[3])
        self.book.learn(part.source, words[0], words[1])
        self.book.learn(part.destination, words[2], words[3])
        self.v6_headers(part, head["next"].astype(np.int64), start)

    def v6_headers(self, part: _Part, following: npt.NDArray[np.int64], start: Ints) -> None:
        """Walk the extension headers (RFC 8200 section 4), all frames a step at a time."""
        for _ in range(MAX_NEXT_HEADERS):
            extension = np.isin(following, _V6_EXTENSIONS) | (following == 51) | (following == 44)
            short = extension & (part.end - part.at < 8)
            if short.any():
                self.ends(part.rows[short], Fate.TRUNCATED_IP)
                part, following, start, extension = part.pick(~short), following[~short], start[~short], extension[~short]
            if not extension.any():
                break
            words = gather(self.data, part.at, _TAG)
            fragment = (following == 44) & (words["second"] & 0xFFF9 != 0)
            if fragment.any():
                self.fragments(part.pick(fragment), start[fragment], part.end[fragment])
                part, following, start = part.pick(~fragment), following[~fragment], start[~fragment]
                extension, words = extension[~fragment], words[~fragment]
            length = (words["first"] & 0xFF).astype(np.int64)
            step = np.where(following == 44, 8, np.where(following == 51, (length + 2) * 4, (length + 1) * 8))
            part.at = part.at + np.where(extension, step, 0)
            following = np.where(extension, (words["first"] >> 8).astype(np.int64), following)
        room = part.end >= part.at
        self.ends(part.rows[~room], Fate.TRUNCATED_IP)
        self.by_protocol(part.pick(room), following[room])

    def fragments(self, part: _Part, start: Ints, full_end: Ints) -> None:
        """Hand IP fragments, from the IP header on, to the slow path."""
        self.ends(part.rows, Fate.FRAGMENT)
        ends = part.end.tolist()
        for index, (row, at) in enumerate(zip(part.rows.tolist(), start.tolist(), strict=True)):
            self.slow_packet(
                row,
                Fate.FRAGMENT,
                (int(part.source[index]), int(part.destination[index]), 0, 0),
                at,
                ends[index],
                cut=bool(full_end[index] > ends[index]),
            )

    def by_protocol(self, part: _Part, protocol: npt.NDArray[np.int64]) -> None:
        ways: dict[int, tuple[Callable[[_Part], None], int]] = {
            17: (self.udp, 0),
            6: (self.tcp, 0),
            4: (self.ipv4, 0),
            41: (self.ipv6, 0),
            47: (self.gre, 0),
        }
        left = self.split(part, protocol, ways)
        sealed = left & ((protocol == 50) | (protocol == 51))
        self.ends(part.rows[sealed], Fate.ENCRYPTED_TUNNEL)
        self.ends(part.rows[left & ~sealed], Fate.OTHER_IP)

    # -- tunnels -------------------------------------------------------------------------------------------------------

    def gre(self, part: _Part) -> None:
        """GRE (RFC 2784, 2890) with IP, Ethernet, PPP (RFC 2637) or ERSPAN types I, II and III inside."""
        part = self.room(part, 4, Fate.TRUNCATED_TUNNEL)
        words = gather(self.data, part.at, _TAG)
        flags, kind = words["first"].astype(np.int64), words["second"].astype(np.int64)
        point_to_point = (flags & 7 == 1) & (kind == 0x880B)
        step = 4 + 4 * ((flags & 0xC000) != 0) + 4 * ((flags & 0x2000) != 0) + 4 * ((flags & 0x1000) != 0)
        step = np.where(point_to_point, step + 4 * ((flags & 0x0080) != 0), step)
        sequenced = flags & 0x1000 != 0
        part = part.pick(np.ones(len(part.rows), dtype=bool), step.astype(np.int64))
        second, third = kind == 0x88BE, kind == 0x22EB
        self.later(self.ethernet, part.pick(second, np.where(sequenced, 8, 0)), deeper=True)
        self.later(self.erspan3, part.pick(third), deeper=True)
        rest = ~(second | third)
        self.by_ethertype(part.pick(rest), kind[rest])

    def erspan3(self, part: _Part) -> None:
        """ERSPAN type III: 12 bytes, 8 more when the O bit says that a platform sub-header follows."""
        part = self.room(part, 12, Fate.TRUNCATED_TUNNEL)
        option = (self.data[part.at + 11] & 1).astype(np.int64)
        self.later(self.ethernet, part.pick(np.ones(len(part.rows), dtype=bool), 12 + 8 * option))

    def vxlan(self, part: _Part) -> None:
        """VXLAN (RFC 7348): 8 bytes, then Ethernet."""
        self.later(self.ethernet, part.pick(np.ones(len(part.rows), dtype=bool), 8), deeper=True)

    def geneve(self, part: _Part) -> None:
        """Geneve (RFC 8926): 8 bytes and options, then what the protocol type says."""
        words = gather(self.data, part.at, _TAG)
        options = ((words["first"] >> 8) & 0x3F).astype(np.int64) * 4
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 8 + options), words["second"].astype(np.int64))

    def tzsp(self, part: _Part) -> None:
        """TZSP: 4 bytes, tagged fields up to the end tag, then Ethernet."""
        part.at = part.at + 4
        looking = np.ones(len(part.rows), dtype=bool)
        for _ in range(32):
            looking &= part.at < part.end
            if not looking.any():
                break
            place = np.minimum(part.at, len(self.data) - 2)
            tag, size = self.data[place], self.data[place + 1].astype(np.int64)
            step = np.where(tag <= 1, 1, 2 + size)
            part.at = part.at + np.where(looking, step, 0)
            looking &= tag != 1
        self.ends(part.rows[looking], Fate.TRUNCATED_TUNNEL)
        self.later(self.ethernet, part.pick(~looking), deeper=True)

    def tunnelled(self, part: _Part, port: npt.NDArray[np.int64]) -> Mask:
        """Send on what mirrors wrap in UDP, when the header agrees with the port. Return the mask of the rest."""
        wraps = np.isin(port, _TUNNEL_PORTS)
        if not wraps.any():
            return ~wraps
        room = part.end - part.at >= 8
        words = gather(self.data, part.at, _TAG)
        vxlan = wraps & room & ((port == 4789) | (port == 8472)) & (words["first"] == 0x0800) & (words["second"] == 0)
        geneve = wraps & room & (port == 6081) & (words["first"] >> 14 == 0)
        tzsp = wraps & room & (port == 37008) & (words["first"] >> 8 == 1) & (words["second"] == 1)
        for mask, layer in ((vxlan, self.vxlan), (geneve, self.geneve), (tzsp, self.tzsp)):
            self.later(layer, part.pick(mask), deeper=True)
        return ~(vxlan | geneve | tzsp)

    # -- transport -----------------------------------------------------------------------------------------------------

    def tcp(self, part: _Part) -> None:
        """Keep the segments of connections that carry SIP; all others are only counted."""
        part = self.room(part, 20, Fate.TRUNCATED_TCP)
        head = gather(self.data, part.at, _UDP)
        source, destination = head["source"].astype(np.int64), head["destination"].astype(np.int64)
        ports = (source << 16 | destination).astype(np.uint32)
        header = (self.data[part.at + 12] >> 4).astype(np.int64) * 4
        sip = np.isin(source, self.sip_ports) | np.isin(destination, self.sip_ports)
        sip |= (part.end - part.at - header >= 16) & self.looks_like_text(part.at + header)
        if len(self.tcp_flows):
            sip |= np.isin(tcp_flow_keys(part.source, part.destination, ports), self.tcp_flows)
        self.ends(part.rows[~sip], Fate.OTHER_TCP)
        self.ends(part.rows[sip], Fate.TCP)
        for index in np.nonzero(sip)[0].tolist():
            flow = (int(part.source[index]), int(part.destination[index]), int(source[index]), int(destination[index]))
            self.slow_packet(int(part.rows[index]), Fate.TCP, flow, int(part.at[index]), int(part.end[index]))

    def udp(self, part: _Part) -> None:
        part = self.room(part, 8, Fate.TRUNCATED_UDP)
        head = gather(self.data, part.at, _UDP)
        size = head["size"].astype(np.int64)
        size[size == 0] = 0xFFFF
        if (size < 8).any():
            good = size >= 8
            self.ends(part.rows[~good], Fate.BAD_UDP)
            part, head, size = part.pick(good), head[good], size[good]
        source, destination = head["source"].astype(np.int64), head["destination"].astype(np.int64)
        full_end = part.at + size
        part = _Part(part.rows, part.at + 8, np.minimum(part.end, full_end), part.depth, part.source, part.destination)
        rest = self.tunnelled(part, destination)
        if not rest.all():
            part, source, destination = part.pick(rest), source[rest], destination[rest]
        self.payloads(part, source, destination)

    def payloads(self, part: _Part, source: Ints, destination: Ints) -> None:
        """Sort UDP payloads by their first bytes (RFC 7983): RTP, RTCP, SIP, and what else shares media ports."""
        head = gather(self.data, part.at, _RTP)
        size = part.end - part.at
        first = head["first"]
        version2 = (first >> 6 == 2) & (size >= 8)
        rtcp = version2 & (head["second"] >= 192) & (head["second"] <= 223)
        rtp = version2 & ~rtcp & (size >= 12)
        if not rtp.all():
            self.odd_payloads(part, source, destination, head, size, rtp, rtcp)
            part, source, destination, head = part.pick(rtp), source[rtp], destination[rtp], head[rtp]
        if len(part.rows):
            self.rtp_rows(part, source << 16 | destination, head)

    def odd_payloads(
        self, part: _Part, source: Ints, destination: Ints, head: np.ndarray, size: Ints, rtp: Mask, rtcp: Mask
    ) -> None:
        first = head["first"]
        cookie = head["stamp"].astype(np.int64)
        stun = (first < 4) & (size >= 8) & (cookie == 0x2112A442)
        zrtp = (first >> 4 == 1) & (size >= 12) & (cookie == 0x5A525450)
        dtls = (first >= 20) & (first <= 63) & (size >= 13) & (head["second"] == 0xFE)
        known = rtp | rtcp | stun | zrtp | dtls
        sip_port = np.isin(source, self.sip_ports) | np.isin(destination, self.sip_ports)
        text = ~known & (sip_port | ((size >= 16) & self.looks_like_text(part.at)))
        other = ~(known | text)
        for mask, fate in ((rtcp, Fate.RTCP), (stun, Fate.STUN), (zrtp, Fate.ZRTP), (dtls, Fate.DTLS), (text, Fate.TEXT)):
            self.ends(part.rows[mask], fate)
        self.ends(part.rows[other], Fate.OTHER_UDP)
        for index in np.nonzero(text | zrtp)[0].tolist():
            flow = (int(part.source[index]), int(part.destination[index]), int(source[index]), int(destination[index]))
            fate = Fate.ZRTP if zrtp[index] else Fate.TEXT
            self.slow_packet(int(part.rows[index]), fate, flow, int(part.at[index]), int(part.end[index]))

    def looks_like_text(self, at: Ints) -> Mask:
        """Tell which payloads may begin a SIP message: three capitals, printable, a blank or slash among 16 bytes."""
        if len(at) == 0:
            return np.zeros(0, dtype=bool)
        start = self.data[np.minimum(at, len(self.data) - 16)]
        maybe = (start >= 65) & (start <= 90)
        if not maybe.any():
            return maybe
        rows = np.nonzero(maybe)[0]
        text = gather(self.data, np.minimum(at[rows], len(self.data) - 16), _TEXT)["text"]
        capitals = ((text[:, :3] >= 65) & (text[:, :3] <= 90)).all(axis=1)
        printable = (text >= 32).all(axis=1)
        parted = ((text == 32) | (text == 47)).any(axis=1)
        maybe[rows] = capitals & printable & parted
        return maybe

    def rtp_rows(self, part: _Part, ports: Ints, head: np.ndarray) -> None:
        first = head["first"]
        header = 12 + 4 * (first & 15).astype(np.int64)
        extended = np.nonzero(first & 0x10)[0]
        if len(extended):
            words = gather(self.data, np.minimum(part.at[extended] + header[extended], len(self.data) - 8), _TAG)
            header[extended] += 4 + 4 * words["second"].astype(np.int64)
        size = part.end - part.at - header
        padded = np.nonzero((first & 0x20 != 0) & (size > 0))[0]
        if len(padded):
            size[padded] -= self.data[part.end[padded] - 1]
        good = size >= 0
        if not good.all():
            self.ends(part.rows[~good], Fate.OTHER_UDP)
            part, ports, head, header, size = part.pick(good), ports[good], head[good], header[good], size[good]
        self.ends(part.rows, Fate.RTP)
        self.cut += int(np.count_nonzero(self.records.length[part.rows] < self.records.wire[part.rows]))
        self.rtp.append(
            RtpColumns(
                time=self.records.time[part.rows],
                source=part.source,
                destination=part.destination,
                ports=ports.astype(np.uint32),
                position=part.at + header + self.records.position,
                size=size.astype(np.int32),
                sequence=head["sequence"].astype(np.uint16),
                stamp=head["stamp"].astype(np.uint32),
                ssrc=head["ssrc"].astype(np.uint32),
                kind=head["second"].astype(np.uint8),
                frames=np.ones(len(part.rows), dtype=np.uint8),
            )
        )

    def slow_packet(self, row: int, fate: Fate, flow: tuple[int, int, int, int], at: int, end: int, cut: bool = False) -> None:
        packet = SlowPacket(
            time=int(self.records.time[row]),
            fate=fate,
            source=self.book.text(flow[0]),
            destination=self.book.text(flow[1]),
            source_port=flow[2],
            destination_port=flow[3],
            payload=self.data[at:end].tobytes(),
            cut=cut or bool(self.records.wire[row] > self.records.length[row]),
        )
        self.slow.append((row, packet))


_TUNNEL_PORTS = np.array([4789, 8472, 6081, 37008], dtype=np.int64)
_LINKS: dict[int, Callable[[_Block, _Part], None]] = {
    0: _Block.loopback,
    1: _Block.ethernet,
    9: _Block.ppp,
    12: _Block.raw,
    14: _Block.raw,
    50: _Block.ppp,
    51: _Block.pppoe,
    101: _Block.raw,
    108: _Block.loopback,
    113: _Block.cooked,
    197: _Block.erf,
    228: _Block.ipv4,
    229: _Block.ipv6,
    276: _Block.cooked2,
}
