"""Figures for Prometheus, read by Prometheus' own parser: over HTTP, from a file, and on their way through the box."""

import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from tapdeck.cli import box
from tapdeck.cli.main import cli
from tapdeck.cli.metric_families import families
from tapdeck.cli.metrics import write_file
from tapdeck.cli.settings import ConfigError, MonitoringSettings, Settings, check
from tapdeck.storage import state
from tests.support.netns import wait_for
from tests.support.reports import CAPTURE, alarm, make_old, supervised, write_all
from tests.support.users import environment

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def once(folder: Path) -> Values:
    done = CliRunner().invoke(cli, ["metrics", "--once", "--state", str(folder)])
    assert done.exit_code == 0
    return parsed(done.stdout)


def value(values: Values, name: str, **labels: str) -> float:
    return values[f"tapdeck_{name}", frozenset(labels.items())]


def test_the_figures_are_those_of_the_reports(tmp_path: Path) -> None:
    run = supervised(capture={}, seal={"restarts": 4}, deliver={})
    write_all(tmp_path, run=run, seal={"alarms": [alarm("SPOOL_BEHIND")], "poor_quality": 4})
    found = once(tmp_path)
    assert value(found, "up") == 1
    assert value(found, "health") == 1
    assert value(found, "kernel_drops_total") == 7
    assert value(found, "packets_seen_total") == 1050
    assert value(found, "packets_total", fate="in_calls") == 900
    assert value(found, "mirror_loss_packets_total") == 12
    assert value(found, "interface_packets_total", interface="eth1") == 1000
    assert value(found, "interface_sent_packets_total", interface="eth2") == 2
    assert value(found, "ring_fill_ratio", interface="eth1") == 0.25
    assert value(found, "interface_present", interface="eth1") == 1
    assert value(found, "calls_running") == 2
    assert value(found, "calls_total", outcome="recorded") == 3
    assert value(found, "seal_waiting") == 6
    assert value(found, "poor_quality_total") == 4
    assert value(found, "delivery_waiting", target="nas") == 8
    assert value(found, "delivery_confirmed_total", target="nas") == 77
    assert value(found, "delivery_failing", target="nas") == 0
    assert value(found, "disk_free_bytes") == 5e9
    assert value(found, "days_until_full") == 17.4
    assert value(found, "stage_up", stage="seal") == 1
    assert value(found, "stage_restarts_total", stage="seal") == 4
    assert value(found, "alarm", code="SPOOL_BEHIND", about="", severity="warning", stage="seal") == 1


def test_the_parts_of_the_packets_are_their_sum(tmp_path: Path) -> None:
    write_all(tmp_path)
    found = once(tmp_path)
    parts = [number for (name, _), number in found.items() if name == "tapdeck_packets_total"]
    assert sum(parts) == value(found, "packets_seen_total")


def test_what_is_not_known_is_not_zero(tmp_path: Path) -> None:
    write_all(tmp_path, deliver={"disk": {}})
    found = once(tmp_path)
    assert not [name for name, _ in found if name.startswith(("tapdeck_disk", "tapdeck_days"))]


def test_a_box_that_does_not_run(tmp_path: Path) -> None:
    assert value(once(tmp_path), "up") == 0
    write_all(tmp_path)
    make_old(tmp_path, "capture", 90)
    found = once(tmp_path)
    assert (value(found, "up"), value(found, "health"), value(found, "stage_up", stage="capture")) == (0, 2, 0)
    assert 80 < value(found, "report_age_seconds", stage="capture") < 300


def test_the_families_are_made_of_the_reports_alone() -> None:
    """Whatever the clock and the processes of this machine say."""
    reports = box.Reports({"capture": {**CAPTURE, "updated": 1000.0, "pid": 0}}, frozenset(["capture"]), 1042.0)
    samples = {sample.name: sample.value for family in families(reports) for sample in family.samples}
    assert (samples["tapdeck_up"], samples["tapdeck_report_age_seconds"]) == (1, 42)
    names = [family.name for family in families(reports)]
    assert len(set(names)) == len(names)
    assert all(family.documentation for family in families(reports))


def test_names_from_elsewhere_are_only_labels(tmp_path: Path) -> None:
    target = {"name": 'nas"} 5\ntapdeck_up 0\x1b', "waiting": 1}
    write_all(tmp_path, deliver={"targets": [target]})
    found = once(tmp_path)
    assert value(found, "up") == 1
    assert value(found, "delivery_waiting", target='nas"} 5 tapdeck_up 0\ufffd') == 1


@contextmanager
def serving(folder: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    users = ["--metrics-user=", "--group="]
    spool = [f"--{name}={folder / name}" for name in ("spool", "out", "keys")]
    command = [sys.executable, "-m", "tapdeck.cli", "metrics", "--state", str(folder), *spool, *users, *more]
    command += [f"--{stage}-user=" for stage in ("capture", "seal", "deliver")]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens, by `ss`."""
    out = subprocess.run(["ss", "-Hltunp"], capture_output=True, text=True, check=True).stdout
    return {line.split()[4] for line in out.splitlines() if f"pid={pid}," in line}


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
        assert isinstance(text, str)
        return text


def test_the_endpoint(tmp_path: Path) -> None:
    write_all(tmp_path)
    port = free_port()
    with serving(tmp_path, f"--prometheus-listen=127.0.0.1:{port}") as process:
        wait_for("the report", lambda: (state.read(tmp_path, "metrics") or {}).get("pid") == process.pid)
        assert value(parsed(get(port)), "up") == 1
        make_old(tmp_path, "capture")
        assert value(parsed(get(port)), "up") == 0
        assert listening(process.pid) == {f"127.0.0.1:{port}"}
        process.send_signal(signal.SIGHUP)
        assert value(parsed(get(port)), "stage_up", stage="metrics") == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_an_address_in_use_is_a_wrong_configuration(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with serving(tmp_path, f"--prometheus-listen={address}") as process:
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 78
    assert f"cannot listen on {address}: Address already in use" in errors


def test_the_file(tmp_path: Path) -> None:
    write_all(tmp_path / "state")
    file = tmp_path / "exporter" / "tapdeck.prom"
    with serving(tmp_path / "state", f"--prometheus-file={file}") as process:
        wait_for("the alarm", lambda: (state.read(tmp_path / "state", "metrics") or {}).get("alarms"))
        assert "No such file or directory" in (state.read(tmp_path / "state", "metrics") or {})["alarms"][0]["text"]
        process.kill()
    file.parent.mkdir()
    with serving(tmp_path / "state", f"--prometheus-file={file}") as process:
        wait_for("the file", file.exists)
        assert value(parsed(file.read_text()), "up") == 1
        assert listening(process.pid) == set()
    assert [path.name for path in file.parent.iterdir()] == ["tapdeck.prom"]


def test_the_file_is_replaced_and_everybody_s_to_read(tmp_path: Path) -> None:
    file = tmp_path / "tapdeck.prom"
    old = os.umask(0o077)
    try:
        for text in ("a 1\n", "a 2\n"):
            write_file(file, text)
            assert file.read_text() == text
    finally:
        os.umask(old)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    (tmp_path / f".tapdeck.prom.{os.getpid()}").symlink_to(tmp_path / "victim")
    write_file(file, "a 3\n")
    assert file.read_text() == "a 3\n"
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    "address", ["9464", "127.0.0.1", "localhost:9464", ":9464", "127.0.0.1:0", "127.0.0.1:70000", "::1"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match=r"monitoring\.prometheus_listen: .* like 127\.0\.0\.1:9464"):
        check(Settings(monitoring=MonitoringSettings(prometheus_listen=address)))


def test_addresses(tmp_path: Path) -> None:
    for address in ("127.0.0.1:9464", "[::1]:9464", "0.0.0.0:1"):
        check(Settings(monitoring=MonitoringSettings(prometheus_listen=address)))


def test_nothing_to_do_is_a_wrong_configuration(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["metrics", "--state", str(tmp_path)]).exit_code == 78
