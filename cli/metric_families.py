"""From reports to Prometheus metrics: one pure function."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .. import __version__
from ..storage.safe_text import for_line
from .box import STAGES, Reports, summary

_NO_FATES = ("seen", "waiting", "unaccounted")

Labelled = Iterable[tuple[tuple[Any, ...], Any]]


def families(reports: Reports) -> Iterator[Metric]:
    """Yield the metrics of a box."""
    box = summary(reports)
    yield _gauges("info", "The version of Tapdeck.", ("version",), [((__version__,), 1)])
    yield _gauge("up", "Whether calls are being recorded.", int(box["running"]))
    yield _gauge("health", "0 healthy, 1 warning, 2 critical: the exit code of `tapdeck status`.", box["exit_code"])
    yield from _stages(reports, box)
    yield from _capture(box)
    yield from _recordings(box)
    yield from _targets(box)
    names = ("code", "about", "severity", "stage")
    alarms = [((one.get("code"), one.get("about", ""), one.get("severity"), one["stage"]), 1) for one in box["alarms"]]
    yield _gauges("alarm", "Alarms that are raised.", names, alarms)


def _stages(reports: Reports, box: Mapping[str, Any]) -> Iterator[Metric]:
    stages = {name: stage for name, stage in box["stages"].items() if name in STAGES}
    up = [((name,), int(stage["running"])) for name, stage in stages.items()]
    yield _gauges("stage_up", "Whether a stage runs.", ("stage",), up)
    restarts = [((name,), stage["restarts"]) for name, stage in stages.items()]
    yield _counters("stage_restarts", "How often a stage was started again.", ("stage",), restarts)
    ages = [((name,), stage["report_age_s"]) for name, stage in stages.items()]
    yield _gauges("report_age_seconds", "Age of a stage's last report.", ("stage",), ages)


def _capture(box: Mapping[str, Any]) -> Iterator[Metric]:
    fates = [((fate,), count) for fate, count in box["packets"].items() if fate not in _NO_FATES]
    yield _counter("packets_seen", "Packets taken from the rings.", box["packets"].get("seen"))
    yield _counters("packets", "What became of the packets.", ("fate",), fates)
    yield _gauge("packets_waiting", "Packets that wait for their signalling.", box["packets"].get("waiting"))
    yield _gauge("packets_unaccounted", "Packets in no account: a mistake.", box["packets"].get("unaccounted"))
    yield _gauge("packets_per_second", "Packets a second.", box["packets_per_second"])
    yield _counter("kernel_drops", "Packets the kernel had no room for.", box["kernel_drops"])
    yield _counter("mirror_loss_packets", "Packets missed in all streams at once.", box["mirror_loss"])
    names = ("interface",)
    ports = [((one.get("name"),), one) for one in box["interfaces"]]
    for name, text, key in (
        ("interface_packets", "Packets of an interface that the filter let through.", "packets"),
        ("interface_drops", "Packets of an interface that the kernel had no room for.", "drops"),
        ("interface_freezes", "How often an interface's ring was full.", "freezes"),
        ("interface_sent_packets", "Packets that this machine has sent on an interface.", "tx_packets"),
    ):
        yield _counters(name, text, names, [(labels, one.get(key)) for labels, one in ports])
    present = [(labels, int(bool(one.get("present")))) for labels, one in ports]
    yield _gauges("interface_present", "Whether an interface is there.", names, present)
    fill = [(labels, one.get("ring_fill")) for labels, one in ports]
    yield _gauges("ring_fill_ratio", "How full an interface's ring is, 0 to 1.", names, fill)
    yield _counter("clock_steps", "How often the system's clock was set.", box["clock"].get("steps"))
    yield _gauge("downtimes", "Downtimes that the last report lists.", len(box["downtimes"]))


def _recordings(box: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("calls_running", "Answered calls that run.", box["calls"].get("running"))
    yield _counter("calls_seen", "Calls that are over, as capture saw them.", box["calls"].get("seen"))
    outcomes = [((outcome,), count) for outcome, count in box["recordings"].items() if outcome != "seen"]
    yield _counters("calls", "What became of the calls.", ("outcome",), outcomes)
    yield _counter("poor_quality", "Recordings a side of which lost over 3 % of its packets.", box["poor_quality"])
    yield _gauge("spool_files", "Running calls in the spool.", box["spool"].get("files"))
    yield _gauge("spool_queued_bytes", "Bytes that wait in memory for the disk.", box["spool"].get("queued_bytes"))
    yield _gauge("seal_waiting", "Calls that wait to be sealed.", box["spool"]["waiting_to_be_sealed"])


def _targets(box: Mapping[str, Any]) -> Iterator[Metric]:
    names = ("target",)
    targets = [((one.get("name"),), one) for one in box["queue"]]
    waiting = [(labels, one.get("waiting")) for labels, one in targets]
    yield _gauges("delivery_waiting", "Recordings that wait for a target.", names, waiting)
    confirmed = [(labels, one.get("confirmed")) for labels, one in targets]
    yield _counters("delivery_confirmed", "Recordings that a target has confirmed.", names, confirmed)
    failing = [(labels, int(bool(one.get("error")))) for labels, one in targets]
    yield _gauges("delivery_failing", "Whether a target takes nothing.", names, failing)
    since = [(labels, _epoch(one.get("failing_since"))) for labels, one in targets]
    yield _gauges("delivery_failing_since_seconds", "Since when a target fails, since 1970.", names, since)
    disk = box["disk"]
    yield _gauge("disk_free_bytes", "Free bytes on the disk of the recordings.", disk.get("free"))
    yield _gauge("disk_bytes", "Size of the disk of the recordings.", disk.get("total"))
    yield _gauge("recordings_bytes", "Bytes of the recordings on this machine.", disk.get("used_by_recordings"))
    yield _gauge("recordings_bytes_per_day", "Bytes that a day brings.", disk.get("bytes_per_day"))
    yield _gauge("days_until_full", "Days until the disk is full, as days were of late.", box["days_until_full"])


def _gauge(name: str, text: str, value: Any) -> Metric:
    return _gauges(name, text, (), [((), value)])


def _counter(name: str, text: str, value: Any) -> Metric:
    return _counters(name, text, (), [((), value)])


def _gauges(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    return _filled(GaugeMetricFamily(f"tapdeck_{name}", text, labels=labels), values)


def _counters(name: str, text: str, labels: tuple[str, ...], values: Labelled) -> Metric:
    return _filled(CounterMetricFamily(f"tapdeck_{name}", text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Labelled) -> Metric:
    """Add the values that are known: none is not zero."""
    for labels, value in values:
        if isinstance(value, (int, float)):
            family.add_metric([for_line(str(label)) for label in labels], float(value))
    return family


def _epoch(when: Any) -> float | None:
    try:
        return datetime.fromisoformat(when).timestamp()
    except (TypeError, ValueError):
        return None
