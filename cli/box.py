"""The box as a whole, made of what its stages report: one pure function from reports to what `tapdeck status` says."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..storage import state
from .exit_codes import Health

WORDS = {Health.GREEN: "healthy", Health.AMBER: "warning", Health.RED: "critical"}
STAGES = ("capture", "seal", "deliver", "metrics", "alarms")
"""Processes that report each second, besides the supervisor's own `run`."""

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reports:
    """What lies in a state folder, by stage, and which stages run. `now` is in seconds since the epoch."""

    of: Mapping[str, Report]
    alive: frozenset[str]
    now: float


def read(folder: Path) -> Reports:
    """Read all reports of a state folder."""
    found: dict[str, Report] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        report = state.read(folder, path.stem)
        if report is not None:
            found[path.stem] = report
    return Reports(found, frozenset(name for name, report in found.items() if state.alive(report)), time.time())


def summary(reports: Reports) -> dict[str, Any]:
    """Return the state of the box as JSON has it."""
    capture, seal, deliver = (reports.of.get(stage, {}) for stage in STAGES[:3])
    packets = mapping(capture, "packets")
    disk = mapping(deliver, "disk")
    alarms = active_alarms(reports)
    health = _health(reports, alarms)
    return {
        "health": WORDS[health],
        "exit_code": int(health),
        "running": "capture" in reports.alive,
        "since": capture.get("started"),
        "kernel_drops": kernel_drops(capture),
        "mirror_loss": number(capture, "mirror_loss", "packets"),
        "tls": {"secrets": number(capture, "tls", "secrets"), "not_read": _not_read(capture)},
        "days_until_full": disk.get("days_until_full"),
        "packets": dict(packets),
        "packets_per_second": number(capture, "rate"),
        "calls": dict(mapping(capture, "calls")),
        "recordings": dict(mapping(seal, "calls")),
        "poor_quality": number(seal, "poor_quality"),
        "interfaces": entries(capture, "interfaces"),
        "spool": {
            **mapping(capture, "spool"),
            "waiting_to_be_sealed": number(seal, "waiting"),
            "unsigned": number(seal, "unsigned"),
        },
        "queue": entries(deliver, "targets"),
        "disk": dict(disk),
        "clock": dict(mapping(capture, "clock")),
        "stages": {name: _stage(reports, name) for name in ("run", *STAGES) if name in reports.of},
        "selftest": _selftest(reports),
        "downtimes": entries(capture, "downtime"),
        "alarms": alarms,
        "remote_access": "none",
    }


def active_alarms(reports: Reports) -> list[dict[str, Any]]:
    """Return all alarms, each with its `stage`: of stages that run, and of reports that no running stage keeps up, as a
    self-test's. `acknowledged` says who looks after it, and is None where nobody does.
    """
    passing = {*STAGES, "run"}
    book = entries(reports.of["alarms"], "acknowledged") if "alarms" in reports.alive else []
    looked_after = {(one.get("stage"), one.get("code"), one.get("about")): one for one in book}
    return [
        {**alarm, "stage": name, "acknowledged": looked_after.get((name, alarm.get("code"), alarm.get("about", "")))}
        for name, report in reports.of.items()
        if name in reports.alive or name not in passing
        for alarm in entries(report, "alarms")
    ]


def kernel_drops(capture: Report) -> int | float:
    """Return how many packets the kernel had no room for since capture was started."""
    return sum(number(one, "drops") for one in entries(capture, "interfaces"))


def number(report: Report, *keys: str) -> int | float:
    """Return a number of a report, zero where there is none: a report may be an older version's."""
    value: Any = report
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def entries(report: Report, key: str) -> list[dict[str, Any]]:
    """Return a list of objects of a report, empty where there is none."""
    value = report.get(key)
    return [dict(one) for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def mapping(report: Report, key: str) -> Mapping[str, Any]:
    """Return an object of a report, empty where there is none."""
    value = report.get(key)
    return value if isinstance(value, Mapping) else {}


def _not_read(capture: Report) -> dict[str, int]:
    """Return what could not be read of SIP over TLS, by kind."""
    counts = mapping(mapping(capture, "tls"), "not_read")
    return {str(kind): count for kind, count in counts.items() if isinstance(count, int)}


def _stage(reports: Reports, name: str) -> dict[str, Any]:
    report = reports.of[name]
    child = mapping(mapping(reports.of.get("run", {}), "children"), name) if "run" in reports.alive else {}
    return {
        "running": name in reports.alive,
        "expected": is_expected(reports, name),
        "pid": report.get("pid"),
        "since": child.get("since") or report.get("started"),
        "report_age_s": round(max(reports.now - number(report, "updated"), 0.0), 1),
        "restarts": number(child, "restarts"),
        "last_exit": child.get("last_exit"),
    }


def _selftest(reports: Reports) -> dict[str, Any] | None:
    report = reports.of.get("selftest")
    return None if report is None else {"passed": report.get("passed") is True, "ended": report.get("ended")}


def _health(reports: Reports, alarms: list[dict[str, Any]]) -> Health:
    if "capture" not in reports.alive or any(alarm.get("severity") == "critical" for alarm in alarms):
        return Health.RED
    return Health.AMBER if alarms or missing(reports) else Health.GREEN


def missing(reports: Reports) -> list[str]:
    """Return the stages that should run, and do not."""
    return [stage for stage in STAGES if is_expected(reports, stage) and stage not in reports.alive]


def is_expected(reports: Reports, name: str) -> bool:
    """Whether a stage should run: under a supervisor it and its children, else each stage that ever did."""
    if "run" in reports.alive:
        return name == "run" or name in mapping(reports.of["run"], "children")
    return name != "run" and name in reports.of


def local(when: Any) -> str:
    """Return a time of a report as people read it, empty if it is none."""
    try:
        return f"{datetime.fromisoformat(when).astimezone():%Y-%m-%d %H:%M:%S}"
    except (TypeError, ValueError):
        return ""
