"""Time stamps over checkpoints, RFC 3161: an authority signs that it has seen a file's hash, and when.

The reply is kept as it came, `tapdeck-day-2026-11-24.tsr`; what OpenSSL reads:

    openssl ts -verify -in tapdeck-day-2026-11-24.tsr -data tapdeck-day-2026-11-24.txt -CAfile AUTHORITY.pem

Here it is checked that the reply is over this file and answers this request. Whether the authority is to be believed
is for those to say who hold its certificate: OpenSSL tells them.

rfc3161_client wants the certificates in a reply in DER's order, and many authorities, `openssl ts` among them, send
the chain in another. They are put into order for reading; what is kept is the reply as it came.
"""

import hashlib
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, TimeStampResponse

TIMEOUT_S = 20.0
MAX_REPLY = 1 << 20
_GRANTED = (0, 1)
_SHA256 = "2.16.840.1.101.3.4.2.1"
_CERTIFICATES = 0xA0


class StampError(Exception):
    """There is no time stamp, or it is not over this file; the message says why."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time stamp: when the authority saw the file, and the reply as it came."""

    time: datetime
    reply: bytes


def fetch(url: str, content: bytes, timeout: float = TIMEOUT_S) -> Stamp:
    """Ask the authority at `url` (http or https) for a time stamp over this. Raises StampError."""
    request = _request(content)
    query = urllib.request.Request(
        _http(url), request.as_bytes(), {"Content-Type": "application/timestamp-query", "User-Agent": "Tapdeck"}
    )
    try:
        with _opener().open(query, timeout=timeout) as answer:
            reply = answer.read(MAX_REPLY + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise StampError(f"{url} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:  # URLError and TimeoutError are OSErrors
        raise StampError(f"{url} cannot be reached: {getattr(error, 'reason', None) or error}") from None
    except Exception as error:  # noqa: BLE001 - http.client has its own for what is no HTTP
        raise StampError(f"{url} does not speak HTTP: {error}") from None
    if len(reply) > MAX_REPLY:
        raise StampError(f"{url} sent more than {MAX_REPLY:,} bytes")
    found = _granted(reply)
    if found.tst_info.nonce != request.nonce:
        raise StampError(f"{url} sent the answer to another request")
    return read(reply, content)


def read(reply: bytes, content: bytes) -> Stamp:
    """Return the time stamp of a reply over this content. Who made it is not checked. Raises StampError."""
    info = _granted(reply).tst_info
    imprint = info.message_imprint
    if imprint.hash_algorithm.dotted_string != _SHA256 or imprint.message != hashlib.sha256(content).digest():
        raise StampError("the time stamp is over another file")
    time = info.gen_time
    return Stamp(time if time.tzinfo else time.replace(tzinfo=UTC), reply)


def stamped(checkpoint: Path, content: bytes) -> Stamp | None:
    """Return the time stamp that lies beside a checkpoint, None if there is none. Raises StampError, OSError."""
    try:
        with checkpoint.with_suffix(".tsr").open("rb") as file:
            reply = file.read(MAX_REPLY)
    except FileNotFoundError:
        return None
    return read(reply, content)


def _request(content: bytes) -> "TimeStampRequest":
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder(content, HashAlgorithm.SHA256, nonce=True, cert_req=True).build()


def _granted(reply: bytes) -> "TimeStampResponse":
    """Return the reply if it holds a time stamp."""
    from rfc3161_client import decode_timestamp_response

    try:
        found = decode_timestamp_response(_in_order(reply))
        status = found.status
        words = "" if status in _GRANTED else " ".join(found.status_string)
        if status in _GRANTED:
            found.tst_info  # noqa: B018 - raises if there is none
    except ValueError as error:
        raise StampError(f"this is no time stamp: {error}") from None
    if status not in _GRANTED:
        raise StampError(f"the authority refuses (status {status}) {words}".rstrip())
    return found


def _in_order(reply: bytes) -> bytes:
    """Return the reply with the certificates in the order of DER. Raises ValueError."""
    at, end = 0, len(reply)
    # TimeStampResp: the 2nd of it; ContentInfo: the 2nd of it; SignedData within [0]: the 4th of it, if that is [0].
    for number in (1, 1, 0, 3):
        at, end = _value(reply, at, end)
        for _ in range(number):
            at = _value(reply, at, end)[1]
        if at == end:
            return reply  # a refusal
    if reply[at] != _CERTIFICATES:
        return reply
    at, end = _value(reply, at, end)
    certificates, start = [], at
    while at < end:
        stop = _value(reply, at, end)[1]
        certificates.append(reply[at:stop])
        at = stop
    return reply[:start] + b"".join(sorted(certificates)) + reply[end:]


def _value(content: bytes, at: int, end: int) -> tuple[int, int]:
    """Return where the value of the DER element at this place begins and ends. Raises ValueError."""
    if at + 2 > end:
        raise ValueError("it is cut")
    first, at = content[at + 1], at + 2
    more = first & 0x7F if first & 0x80 else 0
    size = int.from_bytes(content[at : at + more]) if more else first
    if more > 4 or first == 0x80 or at + more + size > end:
        raise ValueError("it is cut, or not DER")
    return at + more, at + more + size


def _http(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise StampError(f"{url} is no http or https address: correct signing.timestamp_url")
    return url


def _opener() -> urllib.request.OpenerDirector:
    """No proxies of the environment, and no other schemes than these: the box connects to what is configured."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
