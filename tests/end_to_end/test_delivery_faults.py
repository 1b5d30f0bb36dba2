"""Delivery and the servers it delivers to really killed, at random moments.

The long campaign by the same code is `python bench/delivery_faults.py`.
"""

from __future__ import annotations

from pathlib import Path

from bench import delivery_faults
from tests.support.samba import needs_samba

pytestmark = needs_samba


def test_twelve_kills(tmp_path: Path) -> None:
    """One test for all of it: no other could share the campaign, as long as tests run in several processes."""
    campaign = delivery_faults.Campaign(kills=12, every_s=0.1, large_every=8, pause_s=(0.2, 1.2))
    verdict = delivery_faults.run(campaign, tmp_path)
    assert verdict.findings == []
    assert verdict.kills == 12
    assert len(verdict.killed) >= 2
    assert verdict.recordings >= 10
    assert verdict.large
