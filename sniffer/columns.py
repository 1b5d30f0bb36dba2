"""From captured frames to columns: one row a UDP datagram that may be RTP, and a short list of everything slower.

Every layer is peeled off all frames that carry it in one step; tags, tunnels, options and IPv6 only change the offset
column. A frame's `Fate` says what became of it, so that every frame is counted exactly once.
"""

import numpy as np

from ..rtp.rtcp import MAX_SIZE as MAX_RTCP
from ..sip.framing import may_begin
from .addresses import AddressBook
from .datagrams import NOT_RTP, Datagrams, Fate, Keys, Mask, RtpColumns, in_time, join, tcp_flow_keys
from .first_bytes import LOOKED_AT, begins_frame, begins_text
from .layers import Layers
from .peeling import Part
from .prints import prints_of
from .records import WORDS, Ints, Records, gather
from .tls.records import HANDSHAKE
from .tls.secrets import Secrets

MAX_REPORTS = 1024
"""RTCP packets of a block that are looked at; a flood of them is only counted."""
MIN_HELLO, MAX_HELLOS = 25, 1024
"""Bytes that a DTLS handshake's record has at least; and hellos of a block that are looked at."""
_UDP = np.dtype([("source", ">u2"), ("destination", ">u2"), ("size", ">u2"), ("sum", ">u2")])
_RTP = np.dtype([("first", "u1"), ("second", "u1"), ("sequence", ">u2"), ("stamp", ">u4"), ("ssrc", ">u4")])
MIN_OTHER = 4
"""Bytes that a packet of a fax has at least: sequence number, length and some content."""


class Columns:
    """Turns blocks of frames into `Datagrams`. `sip_ports` are UDP and TCP ports where anything may be SIP."""

    def __init__(self, *, sip_ports: frozenset[int] = frozenset({5060}), book: AddressBook | None = None) -> None:
        self.book = book if book is not None else AddressBook()
        self.tcp_flows = np.empty(0, dtype=np.uint64)
        """Keys of TCP connections known to carry SIP (`tcp_flow_keys`): the engine adds to them."""
        self.secrets = Secrets()
        self._tls_ports = np.empty(0, dtype=np.int64)
        self.listen_on(sip_ports)

    def listen_on(self, sip_ports: frozenset[int]) -> None:
        """Take these for the ports where anything may be SIP."""
        self.sip_ports = np.array(sorted(sip_ports), dtype=np.int64)

    def follow_tls(self, secrets: Secrets, ports: frozenset[int]) -> None:
        """Look for TLS as soon as there are secrets: on these ports anything, on others what begins a session."""
        self.secrets, self._tls_ports = secrets, np.array(sorted(ports), dtype=np.int64)

    @property
    def tls_ports(self) -> Ints | None:
        """The ports of SIP over TLS, None while there are no secrets."""
        return self._tls_ports if self.secrets else None

    def read(self, records: Records) -> Datagrams:
        """Peel all frames of a block."""
        return Block(records, self.book, self.sip_ports, self.tcp_flows, self.tls_ports).datagrams()


class Block(Layers):
    """One block: the layers, and what becomes of transport payloads."""

    def __init__(
        self, records: Records, book: AddressBook, sip_ports: Ints, tcp_flows: Keys, tls_ports: Ints | None = None
    ) -> None:
        super().__init__(records, book)
        self.sip_ports = sip_ports
        self.tcp_flows = tcp_flows
        self.tls_ports = tls_ports
        self.cut = 0
        self.rtp: list[RtpColumns] = []
        self.other: list[RtpColumns] = []

    def datagrams(self) -> Datagrams:
        """Peel all frames, and return what they held."""
        self.links()
        records, time = self.records, self.records.time
        rtp = in_time(join(self.rtp))
        self.slow.sort(key=lambda entry: (entry[1].time, entry[0]))
        return Datagrams(
            rtp=rtp,
            slow=[packet for _, packet in self.slow],
            fates=np.bincount(self.fate, minlength=len(Fate)).astype(np.int64),
            first=int(time.min()) if len(time) else 0,
            last=int(time.max()) if len(time) else 0,
            frames=len(records),
            cut=self.cut,
            other=in_time(join(self.other)),
        )

    # -- transport -----------------------------------------------------------------------------------------------------

    def tcp(self, part: Part) -> None:
        """Keep the segments of connections that carry SIP; all others are only counted."""
        part = self.room(part, 20, Fate.TRUNCATED_TCP)
        head = gather(self.data, part.at, _UDP)
        source, destination = head["source"].astype(np.int64), head["destination"].astype(np.int64)
        ports = (source << 16 | destination).astype(np.uint32)
        header = (self.data[part.at + 12] >> 4).astype(np.int64) * 4
        sip = np.isin(source, self.sip_ports) | np.isin(destination, self.sip_ports)
        long = ~sip & (part.end - part.at - header >= LOOKED_AT)
        text = long & (self.looks_like_text(part.at + header) | begins_frame(self.data, part.at + header))
        if self.tls_ports is not None:
            sip |= np.isin(source, self.tls_ports) | np.isin(destination, self.tls_ports)
            begins = ~sip & (part.end - part.at - header >= 6) & self.begins_tls(part.at + header)
            begins[np.nonzero(begins)[0][MAX_HELLOS:]] = False
            sip |= begins
        for index in np.nonzero(text)[0].tolist():
            start = int(part.at[index] + header[index])
            sip[index] |= may_begin(self.data[start : min(start + 1500, int(part.end[index]))].tobytes())
        flows = tcp_flow_keys(part.source, part.destination, ports)
        if len(self.tcp_flows) or sip.any():  # with a connection's first message come its other segments
            sip |= np.isin(flows, self.tcp_flows) | np.isin(flows, flows[sip])
        self.ends(part.rows[~sip], Fate.OTHER_TCP)
        self.ends(part.rows[sip], Fate.TCP)
        for index in np.nonzero(sip)[0].tolist():
            flow = (int(part.source[index]), int(part.destination[index]), int(source[index]), int(destination[index]))
            self.slow_packet(int(part.rows[index]), Fate.TCP, flow, int(part.at[index]), int(part.end[index]))

    def udp(self, part: Part) -> None:
        """Send tunnels on, and sort all other payloads."""
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
        part = Part(part.rows, part.at + 8, np.minimum(part.end, full_end), part.depth, part.source, part.destination)
        rest = self.tunnelled(part, destination)
        if not rest.all():
            part, source, destination = part.pick(rest), source[rest], destination[rest]
        self.payloads(part, source, destination)

    def payloads(self, part: Part, source: Ints, destination: Ints) -> None:
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
        self, part: Part, source: Ints, destination: Ints, head: np.ndarray, size: Ints, rtp: Mask, rtcp: Mask
    ) -> None:
        """Give payloads that are not RTP their fate; what may be SIP, ZRTP, and RTCP take the slow path."""
        first = head["first"]
        words = head["sequence"].astype(np.int64) + 1  # of RTCP the length; a fax has far too much in its place
        whole = self.records.length[part.rows] == self.records.wire[part.rows]
        rtcp = rtcp & ~(whole & (words > 256) & (4 * words > size))
        cookie = head["stamp"].astype(np.int64)
        stun = (first < 4) & (size >= 8) & (cookie == 0x2112A442)
        zrtp = (first >> 4 == 1) & (size >= 12) & (cookie == 0x5A525450)
        dtls = (first >= 20) & (first <= 63) & (size >= 13) & (head["second"] == 0xFE) & (head["sequence"] >= 0xFC00)
        known = rtp | rtcp | stun | zrtp | dtls
        sip_port = np.isin(source, self.sip_ports) | np.isin(destination, self.sip_ports)
        text = ~known & (sip_port | ((size >= 16) & self.looks_like_text(part.at)))
        other = ~(known | text)
        for mask, fate in (
            (rtcp, Fate.RTCP),
            (stun, Fate.STUN),
            (zrtp, Fate.ZRTP),
            (dtls, Fate.DTLS),
            (text, Fate.TEXT),
        ):
            self.ends(part.rows[mask], fate)
        self.ends(part.rows[other], Fate.OTHER_UDP)
        other &= size >= MIN_OTHER
        if other.any():
            self.other_rows(part.pick(other), (source << 16 | destination)[other], head[other])
        report = rtcp & (size <= MAX_RTCP)
        if report.any():
            report[np.nonzero(report)[0][MAX_REPORTS:]] = False
        hello = dtls & (first == HANDSHAKE) & (size >= MIN_HELLO)
        if hello.any():
            hello &= self.is_hello(part.at)
            hello[np.nonzero(hello)[0][MAX_HELLOS:]] = False
        for index in np.nonzero(text | zrtp | report | hello)[0].tolist():
            flow = (int(part.source[index]), int(part.destination[index]), int(source[index]), int(destination[index]))
            fate = Fate.ZRTP if zrtp[index] else Fate.RTCP if report[index] else Fate.TEXT
            fate = Fate.DTLS if hello[index] else fate
            self.slow_packet(int(part.rows[index]), fate, flow, int(part.at[index]), int(part.end[index]))

    def other_rows(self, part: Part, ports: Ints, head: np.ndarray) -> None:
        """Keep what may be a fax (UDPTL, ITU-T T.38) as columns: SDP alone can tell."""
        count = len(part.rows)
        self.other.append(
            RtpColumns(
                time=self.records.time[part.rows],
                source=part.source,
                destination=part.destination,
                ports=ports.astype(np.uint32),
                position=part.at + self.records.position,
                size=(part.end - part.at).astype(np.int32),
                sequence=head["first"].astype(np.uint16) << 8 | head["second"],
                stamp=np.zeros(count, dtype=np.uint32),
                ssrc=np.full(count, NOT_RTP, dtype=np.uint32),
                kind=np.zeros(count, dtype=np.uint8),
                frames=np.ones(count, dtype=np.uint8),
                head=np.zeros(count, dtype=np.uint16),
                prints=prints_of(self.data, part.at, part.end - part.at),
            )
        )

    def begins_tls(self, at: Ints) -> Mask:
        """Tell which segments may begin a TLS session: a record of the handshake, in it a ClientHello."""
        start = np.minimum(at, len(self.data) - 6)
        found: Mask = (self.data[start] == 22) & (self.data[start + 1] == 3) & (self.data[start + 5] == 1)
        return found

    def is_hello(self, at: Ints) -> Mask:
        """Tell which DTLS records hold a ClientHello or ServerHello in the clear (RFC 6347 section 4.3.2)."""
        start = np.minimum(at, len(self.data) - MIN_HELLO)
        kind = self.data[start + 13]
        found: Mask = (self.data[start + 3] == 0) & (self.data[start + 4] == 0) & ((kind == 1) | (kind == 2))
        return found

    def looks_like_text(self, at: Ints) -> Mask:
        """Tell which payloads may begin a SIP message."""
        return begins_text(self.data, at)

    def rtp_rows(self, part: Part, ports: Ints, head: np.ndarray) -> None:
        """Keep RTP as columns, once header extensions and padding are taken off the payload."""
        first = head["first"]
        header = 12 + 4 * (first & 15).astype(np.int64)
        extended = np.nonzero(first & 0x10)[0]
        if len(extended):
            words = gather(self.data, np.minimum(part.at[extended] + header[extended], len(self.data) - 8), WORDS)
            header[extended] += 4 + 4 * words["second"].astype(np.int64)
        size = part.end - part.at - header
        padded = np.nonzero((first & 0x20 != 0) & (size > 0))[0]
        if len(padded):  # of SRTP the count is encrypted, and says nothing yet: such a packet has no sound of its own
            size[padded] = np.maximum(size[padded] - self.data[part.end[padded] - 1], 0)
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
                head=header.astype(np.uint16),
                prints=prints_of(self.data, part.at + header, size),
            )
        )
