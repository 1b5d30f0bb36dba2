"""How a TCP or TLS connection carries SIP: as it is (RFC 3261 section 18.3), or over WebSocket (RFC 7118)."""

from .message import Framer, may_begin_sip
from .websocket import WebSocketFramer, may_begin_websocket

AnyFramer = Framer | WebSocketFramer


def may_begin(data: bytes) -> bool:
    """Whether a stream that begins so may carry SIP."""
    return may_begin_sip(data) or may_begin_websocket(data)


def framer_for(data: bytes, other_way: AnyFramer | None = None) -> AnyFramer:
    """What cuts a stream that begins so into messages; `other_way` is that of the connection's other direction."""
    if isinstance(other_way, WebSocketFramer) or (other_way is None and may_begin_websocket(data)):
        return WebSocketFramer()
    return Framer()
