"""Reports of a box as its stages write them, for tests of what reads them."""

import json
import time
from pathlib import Path
from typing import Any

from tapdeck.storage import state

CAPTURE: dict[str, Any] = {
    "started": "2026-11-24T08:00:00.000+01:00",
    "clean": False,
    "interfaces": [
        {
            "name": "eth1",
            "packets": 1000,
            "drops": 3,
            "freezes": 1,
            "tx_packets": 0,
            "present": True,
            "ring_fill": 0.25,
        },
        {"name": "eth2", "packets": 50, "drops": 4, "freezes": 0, "tx_packets": 2, "present": True, "ring_fill": 0.0},
    ],
    "packets": {
        "in_calls": 900,
        "seen": 1050,
        "duplicate": 10,
        "signalling": 33,
        "not_a_call": 100,
        "kernel_dropped": 7,
        "waiting": 0,
        "unaccounted": 0,
    },
    "rate": 123.4,
    "calls": {"seen": 5, "answered": 4, "handed_over": 3, "without_media": 2, "open": 3, "running": 2, "refused": 0},
    "spool": {"files": 2, "queued_bytes": 4096, "written_bytes": 9000, "error": ""},
    "mirror_loss": {"packets": 12},
    "clock": {"offset_ms": 1.5, "steps": 1},
    "downtime": [{"from": "2026-11-23T22:00:00.000+01:00", "to": "2026-11-24T08:00:00.000+01:00", "clean": True}],
    "alarms": [],
}
SEAL: dict[str, Any] = {
    "waiting": 6,
    "calls": {"seen": 5, "recorded": 3, "without_media": 2, "refused": 0, "encrypted": 0, "failed": 0},
    "alarms": [],
}
DELIVER: dict[str, Any] = {
    "targets": [{"name": "nas", "waiting": 8, "confirmed": 77, "failing_since": None, "error": None}],
    "disk": {
        "free": 5_000_000_000,
        "total": 20_000_000_000,
        "used_by_recordings": 14_000_000_000,
        "bytes_per_day": 288_000_000,
        "days_until_full": 17.4,
    },
    "alarms": [],
}


def write_all(folder: Path, **changes: dict[str, Any]) -> None:
    """Write the reports of a box that is well, as of now and of this process; `capture={...}` changes some of one."""
    for stage, report in (("capture", CAPTURE), ("seal", SEAL), ("deliver", DELIVER)):
        assert state.write(folder, stage, {**report, **changes.pop(stage, {})})
    for stage, report in changes.items():
        assert state.write(folder, stage, report)


def make_old(folder: Path, stage: str, seconds: float = 60.0) -> None:
    """Let a report be as old as one of a stage that has died."""
    path = folder / f"{stage}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "updated": time.time() - seconds}))


def supervised(**children: dict[str, Any]) -> dict[str, Any]:
    """Return the supervisor's report."""
    usual = {"healthy": True, "restarts": 0, "since": "2026-11-24T08:00:00+01:00", "last_exit": None}
    return {"children": {name: {**usual, **facts} for name, facts in children.items()}, "ready": True, "alarms": []}


def alarm(code: str, severity: str = "warning", text: str = "something") -> dict[str, Any]:
    """Return an alarm as a report has it."""
    return {"code": code, "since": "2026-11-24T09:00:00+01:00", "severity": severity, "text": text}
