"""What is to be known of running connections so that another run can go on reading them: no secret is among it.

A phone keeps its connection for days, and what was agreed on is said at its beginning only. So the hellos are kept, and
how far the record numbers and changes of key had got; the secrets come from the key log again.
"""

from collections.abc import Mapping
from typing import Any

from .handshake import CLIENT, SERVER, Earlier, Handshake
from .hello import client_hello, server_hello
from .secrets import TRAFFIC, Secrets
from .session import MAX_LOOK, Epoch, Session, Side

MAX_UPDATES = 1 << 16


def remembered(session: Session) -> dict[str, Any] | None:
    """Return what JSON can hold of a connection, None if nobody could go on with it."""
    shake = session.handshake
    if shake.agreed() is None or shake.client is None or shake.server is None or not session.established:
        return None
    return {
        "client": shake.client.raw.hex(),
        "server": shake.server.raw.hex(),
        "premaster": shake.premaster.hex(),
        "digest": shake.digest.hex(),
        "sides": [_side(side) for side in session.sides],
    }


def _side(side: Side) -> dict[str, Any]:
    updates = side.epochs[0].updates if side.epochs and not side.epochs[0].label else 0
    begun = not side.epochs or side.epochs[0].label in ("", *TRAFFIC)
    return {
        "sealed": side.sealed,
        "number": side.number if begun else 0,
        "slack": side.slack + len(side.queue),
        "updates": updates,
    }


def recalled(told: Mapping[str, Any], secrets: Secrets, earlier: Earlier) -> Session | None:
    """Return a connection as it was remembered, None if that makes no sense. Records may have been missed since."""
    try:
        client, server = client_hello(bytes.fromhex(told["client"])), server_hello(bytes.fromhex(told["server"]))
        premaster, digest = bytes.fromhex(told["premaster"]), bytes.fromhex(told["digest"])
        sides = [_numbers(side) for side in told["sides"]]
    except (KeyError, TypeError, ValueError):
        return None
    if client is None or server is None or len(sides) != 2 or None in sides:
        return None
    shake = Handshake(secrets, earlier)
    shake.recall(client, server, premaster, digest)
    agreed = shake.agreed()
    if agreed is None:
        return None
    session = Session(shake)
    for number in (CLIENT, SERVER):
        known = sides[number]
        assert known is not None
        side = session.sides[number]
        side.begun, side.sealed, side.agreed = True, known[0], agreed
        side.number = known[1]
        side.loosen(known[2] + MAX_LOOK // 2)
        if shake.is_13 and side.sealed:
            side.epochs = [Epoch(TRAFFIC[number], updates=known[3])]
    return session


def _numbers(side: Mapping[str, Any]) -> tuple[bool, int, int, int] | None:
    sealed, number, slack, updates = side["sealed"], side["number"], side["slack"], side["updates"]
    if not all(type(value) is int for value in (number, slack, updates)) or type(sealed) is not bool:
        return None
    if not (0 <= number < 1 << 63 and slack >= 0 and 0 <= updates <= MAX_UPDATES):
        return None
    return sealed, number, slack, updates
