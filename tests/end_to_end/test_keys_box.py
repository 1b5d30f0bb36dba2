"""Keys that real phones press, and masked ones, on the running box."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import soundfile

from tests.end_to_end.test_keys import NUMBER, assert_no_key_in, card_call, channels, lines
from tests.support import files, replay
from tests.support.box import Box
from tests.support.keys import RATE, encoded, keys_in, quiet, with_keys
from tests.support.lab import ONCE, Lab
from tests.support.media import PCMA
from tests.support.netns import Namespaces, Wire
from tests.support.phones import Baresip, needs_phones
from tests.support.speech import Speech

pytestmark = needs_phones


def toned(folder: Path, name: str, keys: str) -> Speech:
    """What a phone plays: keys as tones in the noise of a line."""
    sound = with_keys(quiet(12, -50.0), keys, at_s=0.8, ms=70, pause_ms=70)
    wav, whole = folder / f"{name}.wav", np.clip(np.round(sound), -32768, 32767).astype(np.int16)
    soundfile.write(str(wav), whole, RATE, subtype="PCM_16")
    return Speech(wav, sound, encoded(sound))


def pressed(folder: Path, keys: str, *more: str) -> Box:
    """A call of baresip's in which phone a presses keys, and phone b plays the tones of some."""
    with Lab(ONCE) as lab, Box(lab.tap, ["mon0"], folder, more=("--bye-linger-s", "0.5", *more)) as box:
        plain = toned(folder, "a", "")
        with (
            Baresip(lab, "a", plain, folder) as a,
            Baresip(lab, "b", toned(folder, "b", "73*"), folder) as b,
        ):
            a.dial(b)
            b.answer()
            a.wait("CALL_ESTABLISHED")
            time.sleep(1.0)
            a.press(keys)
            time.sleep(1.0)
            a.hang_up()
            b.wait("CALL_CLOSED")
        box.wait_until_sealed()
        assert box.stop() == 0
    return box


def test_keys_of_real_phones(tmp_path: Path) -> None:
    """By RTP events from one side, as tones (played from a file through its encoder) from the other."""
    (recording,) = pressed(tmp_path, "15#").recordings()
    found = [(line.split()[0], line.split()[2], line.rpartition(" by ")[2]) for line in lines(recording, "Digit")]
    assert [one for one in found if one[1] == "caller"] == [(key, "caller", "RFC 4733") for key in "15#"]
    assert [one for one in found if one[1] == "callee"] == [(key, "callee", "in-band") for key in "73*"]


def test_masked_keys_of_real_phones(tmp_path: Path) -> None:
    box = pressed(tmp_path, "15#", "--mask-digits", "--keep-packets")
    (recording,) = box.recordings()
    assert recording.info["Digits"] == "******"
    assert recording.info["DigitsMasked"] in ("6: 3 by RFC 4733, 3 by in-band", "6: 3 by in-band, 3 by RFC 4733")
    for sound in channels(recording, (PCMA, PCMA)):
        assert keys_in(sound) == ""


def test_a_card_number_is_in_no_file_of_the_box(tmp_path: Path) -> None:
    """While the call runs neither, but for tones in its sound; and afterwards in none, wherever it lies."""
    scene = card_call()
    capture = files.write(tmp_path, files.pcap(scene.packets(), nano=True), "sent.pcap")
    seen: set[bytes] = set()
    with Namespaces() as spaces:
        wire = Wire.between(spaces)
        more = ("--mask-digits", "--keep-packets", "--bye-linger-s", "0.5")
        with Box(wire.tap, [wire.tap_interface], tmp_path, more=more) as box:
            replay.replay(wire.sender, wire.interface, capture)
            for path in (*(box.spool / "live").iterdir(), *(box.spool / "resume").iterdir()):
                seen |= set(re.findall(rb"Signal=.", path.read_bytes()))
            box.wait_until_sealed()
            assert box.stop() == 0
    assert seen <= {b"Signal=X"}
    (recording,) = box.recordings()
    assert recording.info["Digits"] == "*" * len(NUMBER)
    for sound in channels(recording, (PCMA, PCMA)):
        assert keys_in(sound) == ""
    (kept,) = box.out.rglob("*_packets.pcapng")
    assert assert_no_key_in(kept) == 32
    capture.unlink()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not re.search(rb"Signal=[0-9]|Digit: [0-9]|Digits: [0-9]", data), path
            assert NUMBER[:6].encode() not in data, path
