"""What connections hold of messages that are not whole is bounded in all."""

import struct
from collections.abc import Callable

import pytest

from tapdeck.sniffer import signalling
from tapdeck.sniffer.account import Account
from tapdeck.sniffer.columns import Columns
from tapdeck.sniffer.datagrams import Fate, SlowPacket
from tapdeck.sniffer.signalling import Signalling
from tests.support import websocket

MESSAGE = (
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 1.1.1.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n"
    b"To: <sip:c@d>\r\nCall-ID: x@y\r\nCSeq: 1 OPTIONS\r\nContent-Length: 4000\r\n\r\n" + b"x" * 4000
)


def segment(port: int, data: bytes, at: int) -> SlowPacket:
    head = struct.pack(">HHIIBBHHH", port, 40123, at, 0, 5 << 4, 0x10, 0, 0, 0)
    return SlowPacket(at, Fate.TCP, "10.0.0.1", "10.0.0.2", port, 40123, head + data)


@pytest.mark.parametrize("sent", [bytes, lambda text: websocket.frame(text)], ids=["TCP", "WebSocket"])
def test_halves_of_messages_are_forgotten_where_there_are_too_many(
    sent: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signalling, "MAX_FRAMED", 50_000)
    heard = Signalling(Columns(), Account(), frozenset({5060}))
    data = sent(MESSAGE)
    for port in range(1, 101):
        assert not list(heard.messages(segment(port, data[:3000], 1)))
    rest = [len(list(heard.messages(segment(port, data[3000:], 3001)))) for port in range(100, 0, -1)]
    assert rest == [1] * sum(rest) + [0] * (100 - sum(rest))  # the latest are still known
    assert 10 <= sum(rest) <= 16
