"""Fuzz the reader of kept packets: `python tests/fuzz/fuzz_kept.py [seconds [seed]]`.

The law: bytes are either refused with KeptError or give a call that can be planned.
"""

import random
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tapdeck.sniffer.account import Account  # noqa: E402
from tapdeck.sniffer.sources.payloads import Payloads  # noqa: E402
from tapdeck.storage.kept import pcapng  # noqa: E402
from tapdeck.storage.kept_file import KeptError, read_kept  # noqa: E402
from tapdeck.storage.plan import plan  # noqa: E402
from tests.fuzz.loop import main, mutate  # noqa: E402
from tests.storage.calls import heard  # noqa: E402
from tests.support.encoded import call, l16, l16_stereo, tune  # noqa: E402


@cache
def good() -> bytes:
    """The kept packets of a short call."""
    scene = call(l16(8000), l16_stereo(tune(8000, 1), tune(8000, 2), 8000), (1, 1))
    scene = scene.until(scene.left[12].time_ns)
    with tempfile.TemporaryDirectory() as folder:
        found = heard(Path(folder), scene.packets())
        return b"".join(pcapng(found.only.tracks, found.payloads, found.engine.book))


def check(rng: random.Random) -> None:
    """One changed file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.pcapng"
        path.write_bytes(mutate(good(), rng, [good()], (b"\0", b"\xff", b"9", b'"')))
        payloads = Payloads(Path(folder))
        try:
            plan(read_kept(path, payloads), Account(), payloads.fetch)
        except KeptError:
            pass
        finally:
            payloads.close()


if __name__ == "__main__":
    sys.exit(main(check))
