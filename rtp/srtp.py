"""SRTP (RFC 3711, 6188, 7714): packets authenticated, then decrypted, a batch at a time. Pure functions on columns.

Counter mode is one pass over all packets of a batch: their counter blocks lie behind each other, and one call of AES
makes the key stream of all. Only the authentication tag costs a few Python calls a packet.
"""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BLOCK = 16
ENCRYPTION, AUTHENTICATION, SALT = 0, 1, 2
"""Labels of the keys that are derived for RTP (RFC 3711 section 4.3.2)."""
AUTH_KEY = 20
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


@dataclass(frozen=True, slots=True)
class Suite:
    """A crypto suite: bytes of master key, master and session salt, and tag; `aead` for AES-GCM."""

    name: str
    key: int
    salt: int
    tag: int
    aead: bool = False


SUITES = {
    suite.name: suite
    for suite in (
        *(Suite(f"AES_CM_128_HMAC_SHA1_{8 * tag}", 16, 14, tag) for tag in (10, 4)),
        *(Suite(f"AES_{8 * key}_CM_HMAC_SHA1_{8 * tag}", key, 14, tag) for key in (24, 32) for tag in (10, 4)),
        *(Suite(f"AEAD_AES_{8 * key}_GCM", key, 12, 16, aead=True) for key in (16, 32)),
    )
}


@dataclass(frozen=True, slots=True)
class Master:
    """A master key and what is to be known to use it.

    `mki` stands in each packet; `rate` is the exponent of the key derivation rate, 0 if keys are derived once; `clear`:
    the payload is authenticated, not encrypted; `how` the parties told each other the key.
    """

    suite: Suite
    key: bytes = field(repr=False)
    salt: bytes = field(repr=False)
    mki: bytes = b""
    rate: int = 0
    clear: bool = False
    how: str = "SDES"

    @property
    def trailer(self) -> int:
        """Bytes that a packet is longer for being SRTP."""
        return self.suite.tag + len(self.mki)


@dataclass(frozen=True, slots=True)
class Packets:
    """A batch of RTP packets in `data`: each begins at `start`, is `size` bytes long, of which `head` are its header
    with all extensions (int64 each); `sequence` is its number.
    """

    data: bytes = field(repr=False)
    start: Ints
    head: Ints
    size: Ints
    sequence: Ints
    ssrc: int

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: Ints) -> "Packets":
        """Return these packets only."""
        return Packets(self.data, self.start[rows], self.head[rows], self.size[rows], self.sequence[rows], self.ssrc)


@dataclass(frozen=True, slots=True)
class Opened:
    """What could be authenticated: `rows` of the batch, and the payload of each at `place` in `data`, `size` long."""

    rows: Ints
    data: Bytes = field(repr=False)
    place: Ints
    size: Ints


# -- keys --------------------------------------------------------------------------------------------------------------


def derive(key: bytes, salt: bytes, label: int, size: int, counter: int = 0) -> bytes:
    """Return a session key of `size` bytes (RFC 3711 section 4.3.1). `counter` is the packet index by the key
    derivation rate; a salt of 12 bytes is one of 14 that ends in zeros (RFC 7714 section 11).
    """
    number = int.from_bytes(salt.ljust(14, b"\0"), "big") ^ (label << 48 | counter)
    return _keystream(key, number << 16, size)


def _keystream(key: bytes, first: int, size: int) -> bytes:
    blocks = b"".join((first + count).to_bytes(BLOCK, "big") for count in range(-(-size // BLOCK)))
    return encrypted(key, blocks)[:size]


def encrypted(key: bytes, blocks: bytes) -> bytes:
    """Encrypt blocks one by one with AES: they are counters, no two of them alike."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)


def counters(salt: bytes, ssrc: int, index: Ints, blocks: Ints) -> bytes:
    """Return the counter blocks of packets behind each other, `blocks` of each (RFC 3711 section 4.1.1)."""
    number = int.from_bytes(salt, "big")
    upper = number >> 48 ^ ssrc
    lower = np.uint64((number & 0xFFFF_FFFF_FFFF) << 16) ^ (index.astype(np.uint64) << np.uint64(16))
    first = np.repeat(np.cumsum(blocks) - blocks, blocks)
    pairs = np.empty((len(first), 2), dtype=">u8")
    pairs[:, 0] = np.uint64(upper)
    pairs[:, 1] = np.repeat(lower, blocks) | (np.arange(len(first)) - first).astype(np.uint64)
    return pairs.tobytes()


def nonce(salt: bytes, ssrc: int, index: int) -> bytes:
    """Return what AES-GCM begins a packet with (RFC 7714 section 8.1)."""
    return (int.from_bytes(salt, "big") ^ (ssrc << 48 | index)).to_bytes(12, "big")


@dataclass(slots=True)
class Session:
    """A master key in use. It knows the session keys of one span of packet indices; others are derived as they come."""

    master: Master
    _counter: int = field(init=False, default=-1)
    _key: bytes = field(init=False, repr=False, default=b"")
    _salt: bytes = field(init=False, repr=False, default=b"")
    _hashes: tuple[Any, Any] = field(init=False, repr=False, default=(None, None))
    _aead: Any = field(init=False, repr=False, default=None)

    def turn(self, counter: int) -> None:
        """Derive the session keys for indices of this quotient (RFC 3711 section 4.3.1), unless they are there."""
        if counter == self._counter:
            return
        master, suite = self.master, self.master.suite
        self._counter = counter
        self._key = derive(master.key, master.salt, ENCRYPTION, suite.key, counter)
        self._salt = derive(master.key, master.salt, SALT, suite.salt, counter)
        if suite.aead:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._aead = AESGCM(self._key)
        else:
            self._hashes = _hmac_states(derive(master.key, master.salt, AUTHENTICATION, AUTH_KEY, counter))

    def _spans(self, index: Ints) -> Iterator[Ints]:
        """Yield the rows that share their session keys, with these keys in place."""
        if not self.master.rate:
            self.turn(0)
            yield np.arange(len(index))
            return
        quotient = index >> self.master.rate
        for counter in np.unique(quotient).tolist():
            self.turn(counter)
            yield np.nonzero(quotient == counter)[0]

    def open(self, packets: Packets, index: Ints) -> Opened:
        """Authenticate packets, whose index (rollover counter << 16 | sequence number) is taken to be `index`, and
        decrypt those that are what they say.
        """
        long_enough = np.nonzero((packets.size >= packets.head + self.master.trailer) & (index >= 0))[0]
        parts: list[Opened] = []
        for span in self._spans(index[long_enough]):
            rows = long_enough[span]
            part = (self._open_aead if self.master.suite.aead else self._open_plain)(packets, index, rows)
            if len(part.rows):
                parts.append(part)
        return _joined(parts)

    def finds(self, packets: Packets, row: int, wraps: range) -> int | None:
        """Return with which of these rollover counters a packet is authentic, None if with none."""
        if packets.size[row] < packets.head[row] + self.master.trailer:
            return None
        sequence = int(packets.sequence[row])
        if self.master.suite.aead or self.master.rate:
            rows = np.full(len(wraps), row, dtype=np.int64)
            found = self.open(packets.take(rows), np.arange(wraps.start, wraps.stop) << 16 | sequence).rows
            return wraps[int(found[0])] if len(found) else None
        self.turn(0)
        whole, mki, tag = self._parts(packets, row)
        inner = self._hashes[0].copy()
        inner.update(whole)
        for counter in wraps if mki == self.master.mki else ():
            if self._tag(inner.copy(), counter) == tag:
                return counter
        return None

    def _parts(self, packets: Packets, row: int) -> tuple[memoryview, bytes, bytes]:
        """Return what a tag covers, the key's identifier, and the tag."""
        start, end = int(packets.start[row]), int(packets.start[row] + packets.size[row])
        middle, tag = end - self.master.trailer, end - self.master.suite.tag
        return memoryview(packets.data)[start:middle], packets.data[middle:tag], packets.data[tag:end]

    def _tag(self, inner: Any, counter: int) -> bytes:
        """The tag of a packet (RFC 3711 section 4.2); `inner` has taken it, but not its rollover counter."""
        inner.update(counter.to_bytes(4, "big"))
        outer = self._hashes[1].copy()
        outer.update(inner.digest())
        digest: bytes = outer.digest()[: self.master.suite.tag]
        return digest

    # -- counter mode --------------------------------------------------------------------------------------------------

    def _open_plain(self, packets: Packets, index: Ints, rows: Ints) -> Opened:
        rows = rows[self._authentic(packets, index, rows)]
        head, trailer = packets.head[rows], self.master.trailer
        size = packets.size[rows] - head - trailer
        blocks = -(-size // BLOCK)
        place = (np.cumsum(blocks) - blocks) * BLOCK
        data = np.zeros(int(blocks.sum()) * BLOCK, dtype=np.uint8)
        _copy(np.frombuffer(packets.data, dtype=np.uint8), packets.start[rows] + head, size, data, place)
        if not self.master.clear and len(data):
            stream = np.frombuffer(
                encrypted(self._key, counters(self._salt, packets.ssrc, index[rows], blocks)), dtype=np.uint8
            )
            words = data.view(np.uint64)
            np.bitwise_xor(words, stream.view(np.uint64), out=words)
        return Opened(rows, data, place, size)

    def _authentic(self, packets: Packets, index: Ints, rows: Ints) -> Mask:
        """Tell which packets bear the tag that they should: HMAC-SHA1 over packet and rollover counter."""
        data, view = packets.data, memoryview(packets.data)
        mki, size, trailer = self.master.mki, self.master.suite.tag, self.master.trailer
        inner, outer = self._hashes
        start = packets.start[rows]
        end = start + packets.size[rows]
        wraps = [counter.to_bytes(4, "big") for counter in (index[rows] >> 16).tolist()]
        good = np.zeros(len(rows), dtype=bool)
        for number, (first, last, counter) in enumerate(zip(start.tolist(), end.tolist(), wraps, strict=True)):
            hashed = inner.copy()
            hashed.update(view[first : last - trailer])
            hashed.update(counter)
            whole = outer.copy()
            whole.update(hashed.digest())
            good[number] = hmac.compare_digest(whole.digest()[:size], data[last - size : last])
        if mki:
            good &= [data[last - trailer : last - size] == mki for last in end.tolist()]
        return good

    # -- Galois/counter mode -------------------------------------------------------------------------------------------

    def _open_aead(self, packets: Packets, index: Ints, rows: Ints) -> Opened:
        """RFC 7714 section 8: header and cipher text are one message to AES-GCM; the key's identifier follows it."""
        from cryptography.exceptions import InvalidTag

        view, mki = memoryview(packets.data), self.master.mki
        columns = (packets.start[rows], packets.head[rows], packets.size[rows] - len(mki), index[rows])
        good: list[int] = []
        texts: list[bytes] = []
        for row, start, head, size, number in zip(rows.tolist(), *(column.tolist() for column in columns), strict=True):
            end = start + size
            if mki and view[end : end + len(mki)] != mki:
                continue
            try:
                header, sealed = view[start : start + head], view[start + head : end]
                texts.append(self._aead.decrypt(nonce(self._salt, packets.ssrc, number), sealed, header))
            except InvalidTag:
                continue
            good.append(row)
        size_ = np.array([len(text) for text in texts], dtype=np.int64)
        data = np.frombuffer(b"".join(texts), dtype=np.uint8)
        return Opened(np.array(good, dtype=np.int64), data, np.cumsum(size_) - size_, size_)


def _hmac_states(key: bytes) -> tuple[Any, Any]:
    """HMAC-SHA1 half done (RFC 2104): copying the states is four times as fast as beginning anew for each packet."""
    import hashlib

    padded = key.ljust(64, b"\0")
    return hashlib.sha1(padded.translate(_INNER)), hashlib.sha1(padded.translate(_OUTER))


def _joined(parts: list[Opened]) -> Opened:
    """Put parts behind each other, in the order of their rows."""
    if len(parts) == 1:
        return parts[0]
    nothing = np.empty(0, dtype=np.int64)
    if not parts:
        return Opened(nothing, np.empty(0, dtype=np.uint8), nothing, nothing)
    base = np.cumsum([0, *(len(part.data) for part in parts[:-1])]).tolist()
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    place = np.concatenate([part.place + begin for part, begin in zip(parts, base, strict=True)])
    size = np.concatenate([part.size for part in parts])
    return Opened(rows[order], np.concatenate([part.data for part in parts]), place[order], size[order])


def _copy(data: Bytes, offset: Ints, size: Ints, out: Bytes, place: Ints) -> None:
    """Copy pieces of `data` to their places in `out`; pieces of one size go in one step."""
    for length in np.unique(size[size > 0]).tolist():
        rows = np.nonzero(size == length)[0]
        there = np.ndarray((len(data) - length + 1,), dtype=f"V{length}", buffer=data, strides=(1,))
        here = np.ndarray((len(out) - length + 1,), dtype=f"V{length}", buffer=out, strides=(1,))
        here[place[rows]] = there[offset[rows]]
