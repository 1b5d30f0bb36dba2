"""Rendered bytes against the bytes that were sent, whole and in pieces."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tapdeck.sniffer.account import Account
from tapdeck.storage import render
from tapdeck.storage.plan import Plan, plan
from tapdeck.storage.render import Renderer, encoding, pieces
from tapdeck.storage.wav import Encoding
from tests.storage.calls import Heard, heard
from tests.support import recipes
from tests.support.media import PCMA, PCMU
from tests.support.scene import Scene, in_order, plain_call


def plans(found: Heard) -> list[Plan]:
    account = Account()
    return [plan(ended, account) for ended in found.ended]


def rendered(found: Heard, made: list[Plan]) -> list[bytes]:
    """The interleaved bytes of each plan, all of them rendered as one batch."""
    renderer = Renderer(found.payloads)
    out = {id(one): b"" for one in made}
    batch = [piece for one in made for piece in pieces(one)]
    for piece, part in zip(batch, renderer.render(batch), strict=True):
        out[id(piece.plan)] += part.tobytes()
    return [out[id(one)] for one in made]


def interleaved(scene: Scene) -> bytes:
    left, right = scene.channels()
    return bytes(byte for pair in zip(left, right, strict=True) for byte in pair)


@pytest.mark.parametrize("piece", [100, 1000, 1 << 20])
@pytest.mark.parametrize("law", [PCMA, PCMU])
def test_a_batch_of_calls_in_pieces_of_any_length(
    piece: int, law: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets that straddle the edge of a piece are cut there and go on in the next."""
    monkeypatch.setattr(render, "PIECE", piece)
    scenes = [recipes.impaired(plain_call(number, pts=(law, law)), number) for number in (1, 2, 3)]
    found = heard(tmp_path, in_order(*(scene.packets() for scene in scenes)))
    made = plans(found)
    by_id = {one.ended.call.call_id: sound for one, sound in zip(made, rendered(found, made), strict=True)}
    for scene in scenes:
        assert by_id[scene.call_id] == interleaved(scene)
    assert {encoding(one) for one in made} == {Encoding.ALAW if law == PCMA else Encoding.MULAW}


@pytest.mark.parametrize("piece", [333, 1 << 20])
def test_both_laws_are_decoded_to_sixteen_bits(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against libsndfile's decoding of the same bytes; silence is zero."""
    monkeypatch.setattr(render, "PIECE", piece)
    scene = plain_call(1, pts=(PCMA, PCMU))
    found = heard(tmp_path, scene.packets())
    made = plans(found)
    assert encoding(made[0]) is Encoding.PCM16
    sound = np.frombuffer(rendered(found, made)[0], dtype="<i2").reshape(-1, 2)
    for side, (codes, name, packets) in enumerate(
        zip(scene.channels(), ("ALAW", "ULAW"), (scene.left, scene.right), strict=True)
    ):
        raw = io.BytesIO(codes)
        samples, _ = soundfile.read(raw, dtype="int16", format="RAW", subtype=name, samplerate=8000, channels=1)
        start = (packets[0].place_ns - made[0].reference) // 125_000
        stop = start + 160 * len(packets)
        assert sound[start:stop, side].tolist() == samples[start:stop].tolist()
        assert not sound[:start, side].any()
        assert not sound[stop:, side].any()


def test_different_kinds_of_calls_in_one_batch_keep_their_order(tmp_path: Path) -> None:
    scenes = [plain_call(1), plain_call(2, pts=(PCMA, PCMU)), plain_call(3, pts=(PCMU, PCMU)), plain_call(4)]
    found = heard(tmp_path, in_order(*(scene.packets() for scene in scenes)))
    made = plans(found)
    together = rendered(found, made)
    assert together == [rendered(found, [one])[0] for one in made]
    for one, sound, scene in zip(made, together, scenes, strict=True):
        assert one.ended.call.call_id == scene.call_id
        if encoding(one) is not Encoding.PCM16:
            assert sound == interleaved(scene)
