"""The lines of an info file against what the generator sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tapdeck.sip.dialog import Party
from tapdeck.sniffer.account import Account
from tapdeck.storage.facts import MAX_LIST, Pairs, Recorder, codec_text, pairs, side_notes
from tapdeck.storage.localtime import Zone
from tapdeck.storage.plan import Plan, plan
from tapdeck.storage.presses import Press
from tests.storage.calls import heard
from tests.support import recipes
from tests.support.media import PCMA, PCMU, SECOND, changed, lost
from tests.support.scene import START_NS, Scene, plain_call

ZONE = Zone("UTC")


def facts(
    folder: Path,
    scene: Scene,
    *,
    presses: list[Press] | None = None,
    related: Mapping[str, str] | None = None,
    notes: Iterable[str] = (),
) -> tuple[Plan, Pairs]:
    found = heard(folder, scene.packets())
    made = plan(found.only, Account())
    lines = pairs(
        made,
        identity="abc",
        direction="in",
        zone=ZONE,
        recorder=Recorder("desk", "1.2", "box", "eth1"),
        presses=presses or [],
        related=related or {},
        notes=notes,
        book=found.engine.book,
    )
    return made, lines


def test_the_lines_of_a_plain_call(tmp_path: Path) -> None:
    scene = plain_call(1)
    _, lines = facts(tmp_path, scene, related={"one": "outer leg", "two": "same call"}, notes=["a note"])
    values = dict(lines)
    caller, callee = scene.dialog.caller, scene.dialog.callee
    assert values["Datetime"] == "2026-03-02T10:00:00.000+00:00"
    assert values["Answered"] == "2026-03-02T10:00:00.100+00:00"
    assert values["AudioStart"] == "2026-03-02T10:00:00.110+00:00"
    assert values["Duration"] == f"{len(scene.channels()[0]) / 8000:.3f}"
    assert (values["CallId"], values["RecordingId"], values["Direction"]) == (scene.call_id, "abc", "in")
    assert (values["Caller"], values["CallerName"]) == (caller.number, caller.name)
    assert (values["Callee"], values["Dialled"]) == (callee.number, callee.number)
    assert (values["Codec"], values["Channels"]) == ("PCMA", "left=caller right=callee")
    assert values["Caller-Packets"].startswith(
        "received=50 expected=50 lost=0 duplicate=0 reordered=0 loss=0.00% jitter=0.00ms"
    )
    assert values["Caller-UserAgent"] == f"Synth {caller.number}"
    media = f"{caller.media.address}:{caller.media.port} > {callee.media.address}:{callee.media.port}"
    assert values["Caller-Media"] == f"{media} ssrc=0x{scene.left[0].ssrc:08x}"
    assert values["RelatedCalls"] == "one, two"
    assert values["Note"] == "a note"
    assert values["Recorder"] == "instance=desk version=1.2 host=box source=eth1"
    assert "Caller-Gap" not in values


def test_ipv6_endpoints_are_bracketed(tmp_path: Path) -> None:
    scene = plain_call(1, six=True)
    caller, callee = scene.dialog.caller.media, scene.dialog.callee.media
    _, lines = facts(tmp_path, scene)
    assert dict(lines)["Callee-Media"].startswith(
        f"[{callee.address}]:{callee.port} > [{caller.address}]:{caller.port}"
    )


def test_gaps_are_listed_in_seconds_of_the_recording(tmp_path: Path) -> None:
    """Packets 10-12 and 30 of the caller, who speaks first, are lost: 60 ms at 0.2 s, 20 ms at 0.6 s."""
    scene = plain_call(1)
    _, lines = facts(tmp_path, replace(scene, left=lost(scene.left, {10, 11, 12, 30})))
    assert [value for key, value in lines if key == "Caller-Gap"] == ["0.200+0.060", "0.600+0.020"]


def test_holds_say_who_and_when(tmp_path: Path) -> None:
    scene = recipes.held(1)
    _, lines = facts(tmp_path, scene)
    held = [value for key, value in lines if key == "Hold"]
    assert [value.split(" at ")[0] for value in held] == ["held by caller", "resumed by caller"]


def test_long_lists_end_with_their_number(tmp_path: Path) -> None:
    presses = [Press(START_NS + k * SECOND // 10, Party.CALLER, "5", "INFO") for k in range(MAX_LIST + 7)]
    _, lines = facts(tmp_path, plain_call(1), presses=presses)
    listed = [value for key, value in lines if key == "Digit"]
    assert len(listed) == MAX_LIST + 1
    assert listed[-1] == "and 7 more"


def test_a_flash_is_a_key_but_no_digit(tmp_path: Path) -> None:
    presses = [Press(START_NS, Party.CALLER, "flash", "INFO"), Press(START_NS, Party.CALLER, "5", "INFO")]
    _, lines = facts(tmp_path, plain_call(1), presses=presses)
    assert dict(lines)["Digits"] == "5"
    assert sum(key == "Digit" for key, _ in lines) == 2


@pytest.mark.parametrize(
    ("pts", "text"), [((PCMA, PCMA), "PCMA"), ((PCMU, PCMU), "PCMU"), ((PCMA, PCMU), "caller PCMA; callee PCMU")]
)
def test_codecs(pts: tuple[int, int], text: str, tmp_path: Path) -> None:
    made, lines = facts(tmp_path, plain_call(1, pts=pts))
    assert codec_text(made) == text == dict(lines)["Codec"]


def test_notes_say_what_a_reader_must_know(tmp_path: Path) -> None:
    scene = plain_call(1)
    left = changed(lost(scene.left, set(range(10, 14))), 30, lambda packet: replace(packet, pt=15, payload=bytes(20)))
    right = tuple(replace(packet, pt=99) if k < 2 else packet for k, packet in enumerate(scene.right))
    made, _ = facts(tmp_path, replace(scene, left=left, right=right))
    notes = list(side_notes(made, "it.pcapng"))
    assert "Codec G728 not decoded yet: caller's packets are kept in it.pcapng" in notes
    assert "2 packets of payload type 99 from callee, which no SDP explains, left out" in notes
    assert "Quality: loss 8.0% > 3% from caller" in notes
    assert len(notes) == 3


def test_notes_of_relays_and_forks(tmp_path: Path) -> None:
    relayed, forked = tmp_path / "relayed", tmp_path / "forked"
    relayed.mkdir()
    forked.mkdir()
    scene = recipes.relayed(1)
    notes = list(side_notes(facts(relayed, scene)[0], ""))
    assert notes == [f"{len(scene.unheard)} packets were relayed copies of these, and are not recorded twice"]
    scene = recipes.forked(1)
    notes = list(side_notes(facts(forked, scene)[0], "it.pcapng"))
    assert notes == [f"{len(scene.unheard)} packets of forks that did not answer are in it.pcapng, not in the WAV"]
