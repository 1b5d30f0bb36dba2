"""What SIP over TLS costs: messages a CPU-second of each cipher, and handshakes.

    python bench/tls.py
    python bench/tls.py --messages 100000

Messages are of 900 bytes, a record each, sealed by OpenSSL. Measured is what lies between TCP and SIP: records cut,
authenticated, decrypted. Single-threaded, CPU time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from ssl import TLSVersion
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "src")]

from tapdeck.sip.framing import may_begin  # noqa: E402
from tapdeck.sniffer.reassembly import Connection, Stretch  # noqa: E402
from tapdeck.sniffer.tls.secrets import Secrets  # noqa: E402
from tapdeck.sniffer.tls.streams import TlsStreams  # noqa: E402
from tests.support.tls import CLIENT, Flight, Talk  # noqa: E402

MESSAGE = b"MESSAGE sip:b@example.com SIP/2.0\r\n".ljust(896, b"x") + b"\r\n\r\n"
HANDSHAKES = 500
KINDS = [
    (TLSVersion.TLSv1_3, ""),
    (TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256"),
    (TLSVersion.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305"),
    (TLSVersion.TLSv1_2, "ECDHE-RSA-AES256-SHA384"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=20_000)
    count = parser.parse_args().messages
    print(f"{'suite':<30} {'messages/s':>12}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for version, suite in KINDS:
            talk = Talk(folder, version, version, suite)
            flights = talk.shake_hands()
            for _ in range(count):
                flights += talk.say(CLIENT, MESSAGE)
            print(f"{talk.suite:<30} {count / spent(folder, [flights]):>12,.0f}")
        talks = [Talk(folder, TLSVersion.TLSv1_3) for _ in range(HANDSHAKES)]
        sessions = [talk.shake_hands() + talk.say(CLIENT, MESSAGE) for talk in talks]
        print(f"{'handshakes, TLS 1.3':<30} {HANDSHAKES / spent(folder, sessions):>12,.0f}")
    return 0


def spent(folder: Path, sessions: Iterable[list[Flight]]) -> float:
    """CPU-seconds for reading these connections."""
    secrets = Secrets()
    secrets.feed((folder / "keys.log").read_bytes())
    tls = TlsStreams(secrets, frozenset({5061}), may_begin)
    begin, heard = time.process_time(), 0
    for number, flights in enumerate(sessions):
        ends: tuple[Connection, Connection] = (("a", number, "b", 5061), ("b", 5061, "a", number))
        for side, data in flights:
            heard += sum(len(said.stretch.data) for said in tls.take(ends[side], Stretch(data, False), number * 10**7))
    assert heard % len(MESSAGE) == 0
    assert heard
    return time.process_time() - begin


if __name__ == "__main__":
    sys.exit(main())
