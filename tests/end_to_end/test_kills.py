"""Stages really killed, at random moments, while calls are running: only the last second before a kill may be lost.

The long campaign by the same code is `python bench/faults.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import faults
from bench.losses import Verdict
from tests.support.netns import needs_namespaces

pytestmark = needs_namespaces()


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    campaign = faults.Campaign(kills=10, calls=8, seconds=6, pause_s=(0.3, 1.5))
    return faults.run(campaign, tmp_path_factory.mktemp("kills"))


def test_the_campaign_kills_and_calls(verdict: Verdict) -> None:
    assert len(verdict.kills) == 10
    assert set(verdict.killed) >= {"capture", "seal"}
    assert verdict.calls > verdict.in_shadow
    assert verdict.losses_s


def test_no_recording_is_lost_doubled_or_damaged(verdict: Verdict) -> None:
    assert not verdict.lost
    assert not verdict.damaged


def test_nothing_is_missing_but_the_last_second_before_a_kill(verdict: Verdict) -> None:
    assert not verdict.overlong
    assert not verdict.unexplained
    assert verdict.worst_loss_s <= 1


def test_broken_off_recordings_and_their_continuations_say_so(verdict: Verdict) -> None:
    assert verdict.continuations
    assert not verdict.unmarked


def test_nothing_half_written_is_left(verdict: Verdict) -> None:
    assert not verdict.leftovers
    assert set(verdict.exit_codes.values()) == {0}


def test_a_supervisor_starts_its_stages_again(tmp_path: Path) -> None:
    campaign = faults.Campaign(kills=2, calls=4, seconds=4, seed=4, supervised=True, hasty=0, pause_s=(0.5, 1.0))
    verdict = faults.run(campaign, tmp_path)
    assert len(verdict.kills) == 2
    assert not verdict.findings
