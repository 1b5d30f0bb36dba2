"""Real phones (baresip) on a mirrored bridge, in every codec they offer: what was recorded is what was spoken.

Codecs that keep the wave's form are held against the speech that was played; the others, sample for sample, against
what ffmpeg makes of the payloads that tcpdump saw. baresip packs G.726 as AAL2 does, under the names of RFC 3551.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support import encoded, hearing, shark
from tests.support.encoded import Samples
from tests.support.lab import Lab
from tests.support.phones import Baresip, Dump, needs_phones
from tests.support.record import Recording, Result, record, unbalanced
from tests.support.speech import speech

LIKE = 0.98
TALK_S = 3.0

pytestmark = [needs_phones, shark.needs_wireshark]


@dataclass(frozen=True)
class Offer:
    """A codec as baresip names it, how the info file does, the rate of its sound; and, if the wave's form is lost, how
    FFmpeg decodes its frames.
    """

    name: str
    shown: str
    rate: int
    channels: int = 1
    decode: Callable[[Sequence[bytes]], Samples] | None = None


WAVEFORM = [
    Offer("PCMA/8000/1", "PCMA", 8000),
    Offer("PCMU/8000/1", "PCMU", 8000),
    Offer("G722/16000/1", "G722", 16000),
    Offer("G726-32/8000/1", "G726-32", 8000),
    Offer("G726-40/8000/1", "G726-40", 8000),
    Offer("L16/8000/1", "L16/8000", 8000),
    Offer("L16/16000/1", "L16/16000", 16000),
    Offer("L16/44100/2", "L16", 44100, 2),
    Offer("opus/48000/1", "OPUS", 48000),
]
OTHERS = [
    Offer("GSM/8000/1", "GSM", 8000, decode=encoded.by_command("-f", "gsm")),
    Offer("G726-24/8000/1", "G726-24", 8000, decode=encoded.by_command("-f", "g726", "-code_size", "3")),
    Offer("G726-16/8000/1", "G726-16", 8000, decode=encoded.by_command("-f", "g726", "-code_size", "2")),
    Offer("AMR/8000/1", "AMR", 8000, decode=encoded.by_library("libopencore_amrnb", 8000)),
    Offer("AMR-WB/16000/1", "AMR-WB", 16000, decode=encoded.by_library("libopencore_amrwb", 16000)),
]


def called(offer: Offer, folder: Path) -> tuple[Result, Path, dict[str, np.ndarray]]:
    """A call between two phones in this codec, recorded from what passed the mirror port; and what each said."""
    voices = {}
    for host in ("a", "b"):
        (folder / host).mkdir()
        voices[host] = speech(folder / host, host, offer.rate, offer.channels)
    capture = folder / "call.pcap"
    with (
        Lab() as lab,
        Dump(lab.spaces, lab.tap, capture),
        Baresip(lab, "a", voices["a"], folder, offer.name) as a,
        Baresip(lab, "b", voices["b"], folder, offer.name) as b,
    ):
        a.dial(b)
        b.answer()
        a.wait("CALL_ESTABLISHED")
        time.sleep(TALK_S)
        a.hang_up()
        b.wait("CALL_CLOSED")
    result = record(folder / "out", capture)
    assert unbalanced(result.summary["packets"]) == 0
    return result, capture, {host: voice.samples for host, voice in voices.items()}


def both(recording: Recording) -> np.ndarray:
    return hearing.sound(recording.path)


@pytest.mark.parametrize("offer", WAVEFORM, ids=lambda offer: offer.name)
def test_what_was_spoken_is_heard(offer: Offer, tmp_path: Path) -> None:
    result, _, said = called(offer, tmp_path)
    recording = result.only()
    assert recording.info["Codec"] == offer.shown
    assert recording.wav.rate == offer.rate
    for channel, host in zip(both(recording), ("a", "b"), strict=True):
        found = hearing.match(channel, said[host])
        assert found.likeness > LIKE


@pytest.mark.parametrize("offer", OTHERS, ids=lambda offer: offer.name)
def test_what_ffmpeg_makes_of_the_same_payload(offer: Offer, tmp_path: Path) -> None:
    result, capture, _ = called(offer, tmp_path)
    recording = result.only()
    assert recording.info["Codec"] == offer.shown
    streams = {stream.source.partition(":")[0]: stream for stream in shark.rtp_streams(capture)}
    assert offer.decode is not None
    for channel, host in zip(both(recording), ("10.9.0.11", "10.9.0.12"), strict=True):
        payloads = [packet.payload for packet in streams[host].ordered()]
        expected = offer.decode(stored(offer, payloads))
        assert np.abs(expected).max() > 1000
        assert channel.astype("<i2").tobytes().find(expected.astype("<i2").tobytes()) >= 0


def stored(offer: Offer, payloads: Sequence[bytes]) -> list[bytes]:
    """Frames as a file has them: AMR in octets without the request for a mode (RFC 4867 sections 4.4 and 5.3)."""
    if not offer.name.startswith("AMR"):
        return list(payloads)
    assert all(payload[1] & 0x80 == 0 for payload in payloads), "more than one frame a packet"
    return [bytes([payload[1] & 0x7C]) + payload[2:] for payload in payloads]
