"""`tapdeck install`: what it writes is judged by systemd itself, what it sets up is run as the units say."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tapdeck.cli.main import cli
from tapdeck.cli.settings import (
    ConfigError,
    DeliverSettings,
    MonitoringSettings,
    Settings,
    SigningSettings,
    StorageSettings,
)
from tapdeck.cli.target_settings import TargetSettings
from tapdeck.cli.units import units
from tapdeck.storage import state
from tests.support import files
from tests.support.machine import Machine, machine_in
from tests.support.netns import needs_namespaces, wait_for
from tests.support.replay import replay
from tests.support.sandbox import read as read_unit
from tests.support.scene import plain_call
from tests.support.users import environment, needs_root, python_for_all

STAGES = ("alarms", "capture", "deliver", "metrics", "seal")
NAMES = ["tapdeck.service", *(f"tapdeck-{stage}.service" for stage in STAGES)]
MOST_EXPOSED = 25
"""2.5, as `systemd-analyze --threshold` counts."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")

SMB = TargetSettings(name="nas", kind="smb", server="nas.example.com", share="Voice", user="tapdeck")
SFTP = TargetSettings(
    name="office-2",
    kind="sftp",
    host="sftp.example.com",
    folder="in",
    user="tapdeck",
    key_file="/root/key",
    password_file="/etc/tapdeck/50% pass word",
)
USB = TargetSettings(name="usb", kind="folder", folder="/mnt/usb")

VARIANTS = {
    "plain": Settings(),
    "open endpoint": Settings(
        monitoring=MonitoringSettings(prometheus_listen="0.0.0.0:9464", prometheus_file="/x/y.prom")
    ),
    "local endpoint": Settings(monitoring=MonitoringSettings(prometheus_listen="[::1]:9464")),
    "at home": Settings(storage=StorageSettings(recordings="/home/boss/calls"), deliver=DeliverSettings("/mnt/nas")),
    "network targets": Settings(targets=(SMB, SFTP)),
    "targets by address": Settings(targets=(replace(SMB, server="192.0.2.7"), replace(SFTP, host="2001:db8::1"))),
    "odd folder": Settings(storage=StorageSettings(recordings="/srv/50% of \\ 'all' calls;")),
}


def install(*words: str) -> Result:
    return CliRunner().invoke(cli, ["install", *words])


@pytest.fixture(params=VARIANTS)
def unit_files(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    for name, text in units(VARIANTS[request.param], "/bin/true").items():
        (tmp_path / name).write_text(text)
    return sorted(tmp_path.glob("*.service"))


@needs_systemd
def test_systemd_finds_no_unit_more_exposed_than_it_may_be(unit_files: list[Path]) -> None:
    assert sorted(file.name for file in unit_files) == sorted(NAMES)
    for file in unit_files:
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", done.stdout)
        assert found, done.stdout + done.stderr
        assert done.returncode == 0, done.stdout
        assert float(found[1]) * 10 <= MOST_EXPOSED


@needs_systemd
def test_systemd_has_nothing_to_say_against_them(unit_files: list[Path]) -> None:
    done = subprocess.run(["systemd-analyze", "verify", *unit_files], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_each_stage_has_its_user_and_no_right_but_capture_one(tmp_path: Path) -> None:
    assert install("--root", str(tmp_path), "--python", "/usr/bin/python3").exit_code == 0
    for stage in ("capture", "seal", "deliver", "metrics", "alarms"):
        unit = read_unit(tmp_path / "etc/systemd/system" / f"tapdeck-{stage}.service")
        assert unit["User"] == [f"tapdeck-{stage}"]
        assert unit["SupplementaryGroups"] == ["tapdeck"]
        assert unit["CapabilityBoundingSet"] == (["CAP_NET_RAW"] if stage == "capture" else [""])
        assert unit.get("AmbientCapabilities", [""]) == (["CAP_NET_RAW"] if stage == "capture" else [""])
        assert unit["StandardOutput"] == unit["StandardError"] == ["journal"]
        assert unit["ExecStart"][0].startswith(f"/usr/bin/python3 -P -m tapdeck.cli {stage} ")


def test_the_whole_box_in_one_unit(tmp_path: Path) -> None:
    install("--root", str(tmp_path), "--python", "/usr/bin/python3")
    unit = read_unit(tmp_path / "etc/systemd/system/tapdeck.service")
    command = "/usr/bin/python3 -P -m tapdeck.cli run --config /etc/tapdeck/tapdeck.toml"
    assert unit["ExecStart"] == [command]
    assert unit["Type"] == ["notify"]
    assert unit["Restart"] == ["always"]
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert int(unit["WatchdogSec"][0]) > 10


def test_a_stage_writes_to_its_folders_alone() -> None:
    settings = Settings(
        storage=StorageSettings(recordings="/d/rec", spool="/d/spool", state="/d/state"),
        deliver=DeliverSettings("/mnt/nas"),
        signing=SigningSettings(keys="/d/keys"),
        monitoring=MonitoringSettings(prometheus_file="/var/lib/node/tapdeck.prom"),
    )
    found = {
        name: line.removeprefix("ReadWritePaths=").split()
        for name, text in units(settings, "/bin/true").items()
        for line in text.splitlines()
        if line.startswith("ReadWritePaths=")
    }
    assert set(found["tapdeck-capture.service"]) == {"/d/spool", "/d/state"}
    assert set(found["tapdeck-seal.service"]) == {"/d/spool", "/d/rec", "/d/state", "/d/keys"}
    assert set(found["tapdeck-deliver.service"]) == {"/d/rec", "/d/state", "-/mnt/nas"}
    assert set(found["tapdeck-metrics.service"]) == {"/d/state", "-/var/lib/node"}
    own = {"/d/spool", "/d/rec", "/d/state", "/d/keys"}
    assert set(found["tapdeck.service"]) == {*own, "-/mnt/nas", "-/var/lib/node"}


def lines_of(settings: Settings, name: str, *keys: str) -> set[str]:
    text = units(settings, "/bin/true")[f"{name}.service"]
    return {line for line in text.splitlines() if line.startswith(tuple(f"{key}=" for key in keys))}


@pytest.mark.parametrize("targets", [(), (USB,), (replace(SMB, enabled=False), replace(SFTP, enabled=False))])
def test_without_a_target_in_the_network_delivery_has_none(targets: tuple[TargetSettings, ...]) -> None:
    settings = Settings(targets=targets)
    assert lines_of(settings, "tapdeck-deliver", "RestrictAddressFamilies", "PrivateNetwork", "IPAddressDeny") == {
        "RestrictAddressFamilies=AF_UNIX",
        "PrivateNetwork=yes",
        "IPAddressDeny=any",
    }
    assert lines_of(settings, "tapdeck", "IPAddressDeny") == {"IPAddressDeny=any"}
    assert lines_of(settings, "tapdeck-deliver", "LoadCredential", "SetCredential") == set()
    assert ("-/mnt/usb" in " ".join(lines_of(settings, "tapdeck-deliver", "ReadWritePaths"))) == (USB in targets)


def test_a_target_in_the_network_opens_it_to_delivery_alone() -> None:
    settings = Settings(targets=(SMB, USB))
    kinds = ("RestrictAddressFamilies", "PrivateNetwork", "IPAddressDeny", "IPAddressAllow")
    assert lines_of(settings, "tapdeck-deliver", *kinds) == {"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"}
    assert lines_of(settings, "tapdeck", *kinds[1:]) == set()
    assert "PrivateNetwork=yes" in lines_of(settings, "tapdeck-seal", *kinds)
    assert "IPAddressDeny=any" in lines_of(settings, "tapdeck-metrics", *kinds)


def test_servers_that_are_named_by_their_addresses_are_the_only_ones() -> None:
    settings = VARIANTS["targets by address"]
    found = lines_of(settings, "tapdeck-deliver", "IPAddressDeny", "IPAddressAllow", "PrivateNetwork")
    assert found == {"IPAddressDeny=any", "IPAddressAllow=192.0.2.7 2001:db8::1"}


def test_systemd_hands_over_secrets() -> None:
    settings = Settings(targets=(SMB, SFTP))
    own = {"LoadCredential=tapdeck-nas-password", "LoadCredential=tapdeck-office-2-passphrase"}
    assert lines_of(settings, "tapdeck-deliver", "LoadCredential", "SetCredential") == {
        *own,
        "LoadCredential=tapdeck-office-2-password:/etc/tapdeck/50%% pass word",
        r"SetCredential=tapdeck-office-2-password:\n",
    }
    assert lines_of(settings, "tapdeck", "LoadCredential", "SetCredential") == own
    assert lines_of(settings, "tapdeck-seal", "LoadCredential", "SetCredential") == set()


def test_a_key_in_a_home_folder_can_be_read() -> None:
    assert lines_of(Settings(targets=(SFTP,)), "tapdeck-deliver", "ProtectHome") == {"ProtectHome=read-only"}
    assert lines_of(Settings(targets=(SFTP,)), "tapdeck-seal", "ProtectHome") == {"ProtectHome=yes"}


@pytest.mark.parametrize(
    ("signing", "open_to_the_network"),
    [
        (SigningSettings(), False),
        (SigningSettings(timestamp_url="http://tsa.example/"), True),
        (SigningSettings(enabled=False, timestamp_url="http://tsa.example/"), False),
    ],
)
def test_the_seal_stage_has_the_network_only_where_it_asks_for_time_stamps(
    signing: SigningSettings, open_to_the_network: bool
) -> None:
    made = units(Settings(signing=signing), "/bin/true")
    assert ("PrivateNetwork=yes" not in made["tapdeck-seal.service"].splitlines()) == open_to_the_network
    for name in ("tapdeck-seal.service", "tapdeck.service"):
        assert ("IPAddressDeny=any" not in made[name].splitlines()) == open_to_the_network
    for name in ("tapdeck-capture.service", "tapdeck-deliver.service", "tapdeck-metrics.service"):
        assert "IPAddressDeny=any" in made[name].splitlines()


def test_a_path_with_a_line_break_writes_no_unit_of_its_own() -> None:
    settings = Settings(storage=StorageSettings(recordings="/srv/x\nExecStartPre=/bin/evil"))
    with pytest.raises(ConfigError):
        units(settings, "/bin/true")


def test_a_staged_tree(tmp_path: Path) -> None:
    first = install("--root", str(tmp_path), "--python", "/usr/bin/python3")
    assert first.exit_code == 0
    tree = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(tree) == {
        *(f"etc/systemd/system/{name}" for name in NAMES),
        "usr/lib/sysusers.d/tapdeck.conf",
        "usr/lib/tmpfiles.d/tapdeck.conf",
    }
    assert 'u tapdeck-seal - "Tapdeck" /nonexistent /usr/sbin/nologin' in tree["usr/lib/sysusers.d/tapdeck.conf"]
    assert "d /var/lib/tapdeck/spool 2770 tapdeck-capture tapdeck-seal -" in tree["usr/lib/tmpfiles.d/tapdeck.conf"]
    assert install("--root", str(tmp_path), "--python", "/usr/bin/python3").stdout == "nothing to do\n"
    gone = install("--root", str(tmp_path), "--uninstall")
    assert gone.exit_code == 0
    assert "kept: /var/lib/tapdeck/recordings" in gone.stdout
    assert "/var/lib/tapdeck/keys" in gone.stdout
    assert not list(tmp_path.rglob("*.service"))
    assert "nothing to do" in install("--root", str(tmp_path), "--uninstall").stdout


@needs_systemd
@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="systemd-tmpfiles is not installed")
@needs_root
def test_systemd_understands_what_a_package_declares(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    folders = [f"--{name}=/var/lib/tap deck/{name}" for name in ("out", "spool", "state", "keys")]
    assert install("--root", str(tmp_path), "--python", "/usr/bin/python3", *folders).exit_code == 0
    for tool in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        done = subprocess.run([*tool, "--root", str(tmp_path), "tapdeck.conf"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    users = dict(line.split(":")[:3:2] for line in (tmp_path / "etc/passwd").read_text().splitlines())
    groups = dict(line.split(":")[:3:2] for line in (tmp_path / "etc/group").read_text().splitlines())
    about = (tmp_path / "var/lib/tap deck/spool/done").stat()
    owner = (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode))
    assert owner == (int(users["tapdeck-capture"]), int(groups["tapdeck-seal"]), 0o2770)


def test_a_dry_run_shows_and_changes_nothing(tmp_path: Path) -> None:
    done = install("--dry-run", "--root", str(tmp_path))
    assert done.exit_code == 0
    assert "ExecStart=" in done.stdout
    assert "would: file " in done.stdout
    assert not list(tmp_path.iterdir())


@needs_root
def test_only_root_installs() -> None:
    command = [python_for_all(), "-m", "tapdeck.cli", "install"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd="/", user="nobody")
    assert done.returncode == 77
    assert "needs root" in done.stderr


def test_a_python_that_the_service_could_not_read_is_refused(tmp_path: Path) -> None:
    python = tmp_path / "python3"  # pytest's folders are closed to others
    python.write_text("")
    done = install("--root", str(tmp_path / "tree"), "--python", str(python))
    assert done.exit_code == 0
    assert f"warning: the users of the service cannot read {python}" in done.stderr
    if os.geteuid() == 0:
        refused = install("--python", str(python), "--group=games", "--capture-user=daemon")
        assert refused.exit_code == 78
        assert "/opt" in refused.stderr


@pytest.fixture
def machine(open_folder: Path) -> Iterator[Machine]:
    with machine_in(open_folder) as here:
        yield here


@needs_namespaces("nsenter", "unshare", "useradd")
def test_a_machine_is_set_up_once_and_cleared_without_a_loss(machine: Machine) -> None:
    first = machine.tapdeck("install")
    assert first.returncode == 0, first.stderr
    shown = machine.run("getent", "passwd", "tapdeck-capture").stdout.split(":")
    assert shown[5:] == ["/nonexistent", "/usr/sbin/nologin\n"]
    assert int(shown[2]) < 1000
    assert "tapdeck" in machine.run("id", "-Gn", "tapdeck-seal").stdout.split()
    groups = machine.run("id", "-Gn", "tapdeck-deliver").stdout.split()
    assert sorted(groups) == ["tapdeck", "tapdeck-deliver"]

    def owner(name: str) -> str:
        return machine.run("stat", "-c", "%U:%G %a", str(machine.folder / name)).stdout.strip()

    assert owner("recordings") == "tapdeck-seal:tapdeck-deliver 2770"
    assert owner("spool") == owner("spool/done") == "tapdeck-capture:tapdeck-seal 2770"
    assert owner("keys") == "tapdeck-seal:root 700"
    assert owner("state") == owner("state/log") == "root:tapdeck 3770"
    assert owner("tapdeck.toml") == "root:tapdeck 640"
    assert sorted(path.name for path in machine.etc.glob("systemd/system/tapdeck*")) == sorted(NAMES)

    again = machine.tapdeck("install")
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "nothing to do")

    (machine.folder / "recordings/call.wav").write_text("sound")
    gone = machine.tapdeck("install", "--uninstall")
    assert gone.returncode == 0, gone.stderr
    assert not list(machine.etc.glob("systemd/system/tapdeck*"))
    assert (machine.folder / "recordings/call.wav").exists()
    assert machine.config.exists()
    assert machine.run("id", "tapdeck-seal").returncode == 0


PROBE = """
import ctypes, errno, json, mmap, os, socket
def attempt(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
libc = ctypes.CDLL(None, use_errno=True)
def unshare():
    if libc.unshare(0x20000000):
        raise OSError(ctypes.get_errno(), "")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "write": attempt(lambda: open(PUBLIC, "a")),
    "own": attempt(lambda: open(OWN + "/probe", "w")),
    "other": attempt(lambda: open(OTHER + "/probe", "w")),
    "internet": attempt(lambda: socket.socket(socket.AF_INET)),
    "packets": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "unix": attempt(lambda: socket.socket(socket.AF_UNIX)),
    "code": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "setgid": attempt(lambda: os.chmod(OWN, 0o2770)),
    "unshare": attempt(unshare),
    "init": attempt(lambda: open("/proc/1/status")),
    "memory": attempt(lambda: open("/proc/meminfo")),
    "rights": status["CapEff"].split(), "gain": status["NoNewPrivs"].split(),
}))
"""


@needs_systemd
@needs_namespaces("nsenter", "unshare", "useradd")
def test_the_services_of_the_next_test_are_as_confined_as_their_units_say(machine: Machine) -> None:
    assert machine.tapdeck("install").returncode == 0
    own, other = machine.folder / "spool", machine.folder / "recordings"
    public, probe = machine.folder / "public", machine.folder / "probe.py"
    public.touch()
    public.chmod(0o666)
    probe.write_text(f"OWN, OTHER, PUBLIC = {str(own)!r}, {str(other)!r}, {str(public)!r}\n{PROBE}")
    told = {}
    for stage in ("capture", "seal"):
        unit = machine.etc / f"systemd/system/tapdeck-{stage}.service"
        text = re.sub(r"ExecStart=.*", f"ExecStart={python_for_all()} {probe}", unit.read_text())
        unit.with_name(f"probe-{stage}.service").write_text(text)
        assert machine.start(f"probe-{stage}.service").wait(30) == 0, machine.logs()
        told[stage] = json.loads((machine.folder / f"probe-{stage}.service.log").read_text())
    refused = {"write": "EROFS", "code": "EACCES", "setgid": "EPERM", "unshare": "EPERM", "init": "ENOENT"}
    for found in told.values():
        assert {key: found[key] for key in refused} == refused
        assert (found["own"], found["unix"], found["gain"]) == ("done", "done", ["1"])
    assert told["capture"]["rights"] == [f"{1 << 13:016x}"]
    assert told["seal"]["rights"] == [f"{0:016x}"]
    assert (told["capture"]["packets"], told["capture"]["other"]) == ("done", "EACCES")
    assert (told["seal"]["packets"], told["seal"]["other"]) == ("EAFNOSUPPORT", "done")
    assert (told["capture"]["memory"], told["seal"]["memory"]) == ("done", "ENOENT")
    assert told["seal"]["internet"] == "EAFNOSUPPORT"


@needs_systemd
@needs_namespaces("nsenter", "unshare", "useradd")
@pytest.mark.parametrize(
    "names", [["tapdeck.service"], [f"tapdeck-{stage}.service" for stage in ("capture", "seal", "deliver")]]
)
def test_a_call_is_recorded_by_services_that_may_do_nothing_else(machine: Machine, names: list[str]) -> None:
    done = machine.tapdeck("install")
    assert done.returncode == 0, done.stderr
    services = [machine.start(name) for name in names]
    try:
        wait_for("the box", lambda: machine.healthy() or any(one.poll() is not None for one in services), 40)
        assert [one.poll() for one in services] == [None] * len(services), machine.logs()
        scene = plain_call(seed=9, duration_ms=500)
        wire = machine.wire
        replay(wire.sender, wire.interface, files.write(machine.folder, files.pcap(scene.packets())))
        recordings = machine.folder / "recordings"
        wait_for("the recording", lambda: list(recordings.rglob("*.wav")), 30)
        wait_for("the hand-over", lambda: not list((machine.folder / "state/handover").iterdir()), 30)
        assert machine.healthy(), machine.logs()
        for one in services:
            one.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: "configuration reloaded" in machine.logs(), 20)
        assert machine.healthy(), machine.logs()
    finally:
        for one in services:
            one.send_signal(signal.SIGTERM)
        codes = [one.wait(60) for one in services]
    assert codes == [0] * len(services), machine.logs()
    assert (state.read(machine.folder / "state", "capture") or {})["clean"] is True
