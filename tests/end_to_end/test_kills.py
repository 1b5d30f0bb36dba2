"""Stages really killed, at random moments, while calls are running: only the last second before a kill may be lost.

The long campaign by the same code is `python bench/faults.py`.
"""

from __future__ import annotations

from pathlib import Path

from bench import faults
from tests.support.netns import needs_namespaces

pytestmark = needs_namespaces()


def test_ten_kills(tmp_path: Path) -> None:
    """One test for all of it: no other could share the campaign, as long as tests run in several processes."""
    verdict = faults.run(faults.Campaign(kills=10, calls=8, seconds=6, pause_s=(0.3, 1.5)), tmp_path)
    assert len(verdict.kills) == 10
    assert set(verdict.killed) >= {"capture", "seal"}
    assert verdict.calls > verdict.in_shadow
    assert verdict.continuations
    assert verdict.losses_s
    assert verdict.worst_loss_s <= 1
    assert not verdict.findings
    assert set(verdict.exit_codes.values()) == {0}


def test_a_supervisor_starts_its_stages_again(tmp_path: Path) -> None:
    campaign = faults.Campaign(kills=2, calls=4, seconds=4, seed=4, supervised=True, hasty=0, pause_s=(0.5, 1.0))
    verdict = faults.run(campaign, tmp_path)
    assert len(verdict.kills) == 2
    assert not verdict.findings
