"""Real phones that transfer and redirect calls on a mirrored bridge, recorded by a running box, told by Wireshark."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tapdeck.cli.main import cli
from tests.end_to_end.test_shapes import read, repeated
from tests.support import hearing, shark
from tests.support.box import Box
from tests.support.lab import Lab, address
from tests.support.netns import stop
from tests.support.phones import Baresip, Dump, Sipp, needs_phones
from tests.support.record import Recording
from tests.support.speech import Speech, speech

LIKE = 0.98
TALK_S = 2.0

pytestmark = [needs_phones, shark.needs_wireshark]


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Speech]:
    folder = tmp_path_factory.mktemp("speech")
    return {host: speech(folder, host) for host in ("a", "b", "c")}


@contextmanager
def listening(folder: Path) -> Iterator[tuple[Lab, Box]]:
    """Three phones, a box that records what the mirror port shows, and tcpdump beside it."""
    with Lab(hosts=("a", "b", "c")) as lab, Box(lab.tap, ["mon0"], folder, more=("--bye-linger-s", "0.5")) as box:
        with Dump(lab.spaces, lab.tap, folder / "dump.pcap"):
            yield lab, box
        box.wait_until_sealed()
        assert box.stop() == 0


def told(box: Box, call_id: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["story", call_id, str(box.out), "--json"])
    assert done.exit_code == 0, done.output
    story: dict[str, Any] = json.loads(done.stdout)
    return story


def assert_voices(recording: Recording, voices: dict[str, Speech], left: str, right: str) -> None:
    for channel, host in zip(hearing.sound(recording.path), (left, right), strict=True):
        assert hearing.match(channel[: int(TALK_S * hearing.RATE)], voices[host].samples).likeness > LIKE


def test_a_blind_transfer(voices: dict[str, Speech], tmp_path: Path) -> None:
    with listening(tmp_path) as (lab, box):
        phones = [Baresip(lab, host, voices[host], tmp_path) for host in ("a", "b", "c")]
        with phones[0] as a, phones[1] as b, phones[2] as c:
            a.dial(b)
            b.answer()
            a.wait("CALL_ESTABLISHED")
            time.sleep(TALK_S + 0.3)
            b.transfer(c)
            c.answer()
            time.sleep(TALK_S + 0.3)
            c.hang_up()
            time.sleep(0.5)
    dump = tmp_path / "dump.pcap"
    ((refer_to, first_id),) = set(read(dump, "sip.Method == REFER", "sip.Refer-To", "sip.Call-ID"))
    outcomes = [line for (line,) in read(dump, "sipfrag", "sipfrag.line")]
    found = {one.info["CallId"]: one for one in box.recordings()}
    first, second = found.pop(first_id), found.popitem()[1]
    assert not found
    (transfer,) = repeated(first, "Transfer")
    assert "2003@" in refer_to
    assert transfer.startswith("blind by callee to 2003 at ")
    assert ("outcome=200" in transfer) == any("200" in line.split()[1] for line in outcomes)
    assert second.info["RelatedCalls"].startswith(first.info["RecordingId"])
    assert_voices(first, voices, "a", "b")
    assert_voices(second, voices, "a", "c")
    for call_id in (first_id, second.info["CallId"]):
        story = told(box, call_id)
        assert [call["id"] for call in story["calls"]] == [first.info["RecordingId"], second.info["RecordingId"]]
        assert story["calls"][0]["related"] == [{"call": 2, "is": "transferred to", "by": "2002"}]
        numbers = [[party.split("(")[-1].rstrip(")") for party in talk["between"]] for talk in story["talks"]]
        assert numbers == [["2001", "2002"], ["2001", "2003"]]


def test_a_redirection(voices: dict[str, Speech], tmp_path: Path) -> None:
    with listening(tmp_path) as (lab, box):
        moved = Sipp(lab, "b", "moved", Path(f"sip:2003@{address('c')}"), tmp_path).answers()
        with (
            Baresip(lab, "a", voices["a"], tmp_path) as a,
            Baresip(lab, "c", voices["c"], tmp_path) as c,
        ):
            a.dial(f"sip:2002@{address('b')}")
            c.answer()
            a.wait("CALL_ESTABLISHED")
            time.sleep(TALK_S + 0.3)
            a.hang_up()
            c.wait("CALL_CLOSED")
        stop(moved)
    (found,) = box.recordings()
    statuses = {code for (code,) in read(tmp_path / "dump.pcap", "sip.Status-Code == 302", "sip.Status-Code")}
    assert statuses == {"302"}
    (line,) = repeated(found, "Forwarded")
    assert line.startswith("302 by 2002 to 2003 at ")
    assert_voices(found, voices, "a", "c")
