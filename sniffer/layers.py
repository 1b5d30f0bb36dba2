"""Link layers, tags, tunnels and IP: each peeled off all frames that carry it in one step.

A layer takes the frames that reached it, ends those that are broken, and sends the rest on to the next layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .addresses import v6_keys
from .datagrams import Fate, Mask
from .peeling import Part, Peeler
from .records import WORDS, Ints, gather

_ETHERNET = np.dtype({"names": ["type"], "formats": [">u2"], "offsets": [12], "itemsize": 14})
_U16 = np.dtype([("value", ">u2")])
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
_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200)
_V6_EXTENSIONS = (0, 43, 60, 135, 139, 140)
MAX_NEXT_HEADERS = 8
_TUNNEL_PORTS = np.array([4789, 8472, 6081, 37008], dtype=np.int64)


class Layers(Peeler, ABC):
    """All layers from the link to the transport, which is the heir's."""

    @abstractmethod
    def udp(self, part: Part) -> None:
        """UDP datagrams."""

    @abstractmethod
    def tcp(self, part: Part) -> None:
        """TCP segments."""

    def links(self) -> None:
        """Peel all frames, beginning with their link types."""
        records = self.records
        rows = np.arange(len(records), dtype=np.int64)
        whole = Part(rows, records.offset, records.offset + records.length, 0)
        first = int(records.link[0]) if len(records) else 0
        for link in [first] if (records.link == first).all() else np.unique(records.link).tolist():
            self.later(_LINKS.get(link, Layers.unknown_link).__get__(self), whole.pick(records.link == link))
        while self.work:
            layer, part = self.work.popleft()
            layer(part)

    # -- link layers ---------------------------------------------------------------------------------------------------

    def unknown_link(self, part: Part) -> None:
        """A link type that nobody here can read."""
        self.ends(part.rows, Fate.UNKNOWN_LINK)

    def ethernet(self, part: Part) -> None:
        """Ethernet II and 802.3."""
        part = self.room(part, 14, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at, _ETHERNET)["type"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 14), kind)

    def cooked(self, part: Part) -> None:
        """Linux cooked v1 (LINKTYPE_LINUX_SLL): 16 bytes, the protocol last."""
        part = self.room(part, 16, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at + 14, _U16)["value"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 16), kind)

    def cooked2(self, part: Part) -> None:
        """Linux cooked v2 (LINKTYPE_LINUX_SLL2): 20 bytes, the protocol first."""
        part = self.room(part, 20, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at, _U16)["value"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 20), kind)

    def loopback(self, part: Part) -> None:
        """BSD loopback (LINKTYPE_NULL, LINKTYPE_LOOP): a family number of 4 bytes; the IP version says the rest."""
        part = self.room(part, 4, Fate.TRUNCATED_LINK)
        self.later(self.raw, part.pick(np.ones(len(part.rows), dtype=bool), 4))

    def erf(self, part: Part) -> None:
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

    def ppp(self, part: Part) -> None:
        """PPP (RFC 1661), with or without the HDLC-like address and control bytes (RFC 1662)."""
        part = self.room(part, 4, Fate.TRUNCATED_LINK)
        words = gather(self.data, part.at, WORDS)
        framed = words["first"] == 0xFF03
        kind = np.where(framed, words["second"], words["first"]).astype(np.int64)
        part = part.pick(np.ones(len(part.rows), dtype=bool), np.where(framed, 4, 2).astype(np.int64))
        left = self.split(part, kind, {0x0021: (self.ipv4, 0), 0x0057: (self.ipv6, 0)})
        self.ends(part.rows[left], Fate.NOT_IP)

    def raw(self, part: Part) -> None:
        """An IP packet of either version."""
        part = self.room(part, 1, Fate.TRUNCATED_IP)
        version = (self.data[part.at] >> 4).astype(np.int64)
        left = self.split(part, version, {4: (self.ipv4, 0), 6: (self.ipv6, 0)})
        self.ends(part.rows[left], Fate.NOT_IP)

    # -- between link and IP -------------------------------------------------------------------------------------------

    def by_ethertype(self, part: Part, kind: npt.NDArray[np.int64]) -> None:
        """Send frames on by their EtherType, or by 802.2 where it is a length."""
        ways: dict[int, tuple[Callable[[Part], None], int]] = {
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

    def vlan(self, part: Part) -> None:
        """An 802.1Q or 802.1ad tag: 2 bytes of tag, the next type."""
        part = self.room(part, 4, Fate.TRUNCATED_LINK)
        kind = gather(self.data, part.at + 2, _U16)["value"].astype(np.int64)
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 4), kind)

    def snap(self, part: Part) -> None:
        """802.2 LLC with SNAP (RFC 1042)."""
        part = self.room(part, 8, Fate.NOT_IP)
        words = gather(self.data, part.at, WORDS)
        snap = (words["first"] == 0xAAAA) & (words["second"] == 0x0300)
        self.ends(part.rows[~snap], Fate.NOT_IP)
        self.by_ethertype(part.pick(snap, 8), words["fourth"][snap].astype(np.int64))

    def mpls(self, part: Part) -> None:
        """One MPLS label (RFC 3032); below the last one IP, or Ethernet behind a control word (RFC 4448)."""
        part = self.room(part, 5, Fate.TRUNCATED_LINK)
        bottom = self.data[part.at + 2] & 1 != 0
        self.later(self.mpls, part.pick(~bottom, 4), deeper=True)
        part = part.pick(bottom, 4)
        version = (self.data[part.at] >> 4).astype(np.int64)
        left = self.split(part, version, {4: (self.ipv4, 0), 6: (self.ipv6, 0), 0: (self.ethernet, 4)})
        self.ends(part.rows[left], Fate.NOT_IP)

    def pppoe(self, part: Part) -> None:
        """A PPPoE session frame (RFC 2516)."""
        part = self.room(part, 8, Fate.TRUNCATED_LINK)
        session = (self.data[part.at] == 0x11) & (self.data[part.at + 1] == 0)
        self.ends(part.rows[~session], Fate.NOT_IP)
        self.later(self.ppp, part.pick(session, 6), deeper=True)

    # -- IP ------------------------------------------------------------------------------------------------------------

    def ipv4(self, part: Part) -> None:
        """IPv4 (RFC 791), options skipped."""
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
        part = Part(part.rows, start + header, np.minimum(part.end, start + size), part.depth)
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

    def ipv6(self, part: Part) -> None:
        """IPv6 (RFC 8200)."""
        part = self.room(part, 40, Fate.TRUNCATED_IP)
        head = gather(self.data, part.at, _IPV6)
        good = head["version"] >> 4 == 6
        if not good.all():
            self.ends(part.rows[~good], Fate.BAD_IP)
            part, head = part.pick(good), head[good]
        start = part.at
        size = head["size"].astype(np.int64)
        end = np.where(size == 0, part.end, np.minimum(part.end, start + 40 + size))  # 0: a jumbogram or offload
        part = Part(part.rows, start + 40, end, part.depth)
        words = [head[name].astype(np.uint64) for name in ("s1", "s2", "d1", "d2")]
        part.source, part.destination = v6_keys(words[0], words[1]), v6_keys(words[2], words[3])
        self.book.learn(part.source, words[0], words[1])
        self.book.learn(part.destination, words[2], words[3])
        self.v6_headers(part, head["next"].astype(np.int64), start)

    def v6_headers(self, part: Part, following: npt.NDArray[np.int64], start: Ints) -> None:
        """Walk the extension headers (RFC 8200 section 4), all frames a step at a time."""
        for _ in range(MAX_NEXT_HEADERS):
            extension = np.isin(following, _V6_EXTENSIONS) | (following == 51) | (following == 44)
            short = extension & (part.end - part.at < 8)
            if short.any():
                self.ends(part.rows[short], Fate.TRUNCATED_IP)
                part, following, start, extension = (
                    part.pick(~short),
                    following[~short],
                    start[~short],
                    extension[~short],
                )
            if not extension.any():
                break
            words = gather(self.data, np.minimum(part.at, part.end), WORDS)  # some may have been led beyond their end
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

    def fragments(self, part: Part, start: Ints, full_end: Ints) -> None:
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

    def by_protocol(self, part: Part, protocol: npt.NDArray[np.int64]) -> None:
        """Send packets on by their IP protocol number."""
        ways: dict[int, tuple[Callable[[Part], None], int]] = {
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

    def gre(self, part: Part) -> None:
        """GRE (RFC 2784, 2890) with IP, Ethernet, PPP (RFC 2637) or ERSPAN types I, II and III inside."""
        part = self.room(part, 4, Fate.TRUNCATED_TUNNEL)
        words = gather(self.data, part.at, WORDS)
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

    def erspan3(self, part: Part) -> None:
        """ERSPAN type III: 12 bytes, 8 more when the O bit says that a platform sub-header follows."""
        part = self.room(part, 12, Fate.TRUNCATED_TUNNEL)
        option = (self.data[part.at + 11] & 1).astype(np.int64)
        self.later(self.ethernet, part.pick(np.ones(len(part.rows), dtype=bool), 12 + 8 * option))

    def vxlan(self, part: Part) -> None:
        """VXLAN (RFC 7348): 8 bytes, then Ethernet."""
        self.later(self.ethernet, part.pick(np.ones(len(part.rows), dtype=bool), 8), deeper=True)

    def geneve(self, part: Part) -> None:
        """Geneve (RFC 8926): 8 bytes and options, then what the protocol type says."""
        words = gather(self.data, part.at, WORDS)
        options = ((words["first"] >> 8) & 0x3F).astype(np.int64) * 4
        self.by_ethertype(part.pick(np.ones(len(part.rows), dtype=bool), 8 + options), words["second"].astype(np.int64))

    def tzsp(self, part: Part) -> None:
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

    def tunnelled(self, part: Part, port: npt.NDArray[np.int64]) -> Mask:
        """Send on what mirrors wrap in UDP, when the header agrees with the port. Return the mask of the rest."""
        wraps = np.isin(port, _TUNNEL_PORTS)
        if not wraps.any():
            return ~wraps
        room = part.end - part.at >= 8
        words = gather(self.data, part.at, WORDS)
        vxlan = wraps & room & ((port == 4789) | (port == 8472)) & (words["first"] == 0x0800) & (words["second"] == 0)
        geneve = wraps & room & (port == 6081) & (words["first"] >> 14 == 0)
        tzsp = wraps & room & (port == 37008) & (words["first"] >> 8 == 1) & (words["second"] == 1)
        for mask, layer in ((vxlan, self.vxlan), (geneve, self.geneve), (tzsp, self.tzsp)):
            self.later(layer, part.pick(mask), deeper=True)
        rest: Mask = ~(vxlan | geneve | tzsp)
        return rest


_LINKS: dict[int, Callable[[Layers, Part], None]] = {
    0: Layers.loopback,
    1: Layers.ethernet,
    9: Layers.ppp,
    12: Layers.raw,
    14: Layers.raw,
    50: Layers.ppp,
    51: Layers.pppoe,
    101: Layers.raw,
    108: Layers.loopback,
    113: Layers.cooked,
    197: Layers.erf,
    228: Layers.ipv4,
    229: Layers.ipv6,
    276: Layers.cooked2,
}
