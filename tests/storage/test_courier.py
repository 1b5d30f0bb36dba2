"""What a courier does when something goes wrong: outages, poisonous recordings, liars, mistakes, on a clock of ours."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapdeck.storage.courier import Courier, Report, Stopped
from tapdeck.storage.dispatch import Dispatch, Terms
from tapdeck.storage.localtime import Zone
from tapdeck.storage.pace import Bandwidth, hours
from tapdeck.storage.parcel import Parcel
from tapdeck.storage.queue import Queue
from tapdeck.storage.targets import ForGood, WillPass
from tests.support.faulty import FaultyTarget, Lies
from tests.support.parcels import everything, noise, record

NOW = 1_795_000_000.0
HOUR = 3600.0


class Desk:
    """A queue, a target with a switch, and a clock that is moved by hand."""

    def __init__(self, folder: Path, name: str = "disk") -> None:
        self.root = folder / "recordings"
        self.queue = Queue(folder / "queue.sqlite")
        self.now = NOW
        self.fault: Callable[[str, bytes], bytes | None] = lambda step, content: content
        self.steps: list[str] = []
        self.target = FaultyTarget(self._fault, name)
        self.queue.want([name], again=False)
        self.terms = Terms()
        self.slept = 0.0
        self.restart()

    def restart(self) -> None:
        """Have the next process take over."""
        self.dispatch = Dispatch(self.target.name, self.queue, self.root, self.terms, lambda: self.now)
        self.courier = self.new_courier()

    def _fault(self, step: str, content: bytes) -> bytes | None:
        self.steps.append(step)
        return self.fault(step, content)

    def new_courier(self) -> Courier:
        return Courier(self.target, self.dispatch, self._sleep, lambda: self.now)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def add(self, *identities: str, sound: bytes = b"sound") -> list[Parcel]:
        parcels = [record(self.root, name, sound, ended=NOW - 1000 + n) for n, name in enumerate(identities)]
        self.queue.add(parcels, [self.target.name])
        return parcels

    def work(self) -> list[Report]:
        """Step until nothing is due."""
        reports = []
        while report := self.courier.step():
            reports.append(report)
            assert len(reports) < 1000
        return reports

    def wait(self, seconds: float) -> list[Report]:
        self.now += seconds
        return self.work()

    def arrived(self) -> list[str]:
        """The ids of the recordings in the order of their arrival."""
        return [path.removesuffix("_info.txt")[-10:] for path in self.target.order if path.endswith("_info.txt")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def out(step: str, content: bytes) -> bytes:
    raise WillPass("the disk is not there")


def well(step: str, content: bytes) -> bytes:
    return content


def test_without_work_the_target_is_left_alone(desk: Desk) -> None:
    assert desk.work() == []
    assert desk.steps == []


def test_what_is_delivered_is_reported_once(desk: Desk) -> None:
    (parcel,) = desk.add("abcdefghij")
    (report,) = desk.work()
    assert (report.outcome, report.id, report.stem, report.files) == ("delivered", parcel.id, parcel.stem, 2)
    assert (report.bytes, report.folder, report.beside) == (parcel.bytes, "2026/11/24", False)
    assert desk.wait(HOUR) == []
    assert desk.target.files() == everything(desk.root)


def test_an_outage_tries_the_target_and_no_recording_until_it_is_over(desk: Desk) -> None:
    parcels = desk.add("abcdefghij", "bbcdefghij", "cbcdefghij")
    desk.fault = out
    assert [report.outcome for report in desk.work()] == ["outage"]
    tried = 0
    for _ in range(86_400 * 3 // 60):
        tried += len(desk.wait(60))
    assert 60 < tried < 90  # first quickly, then hourly
    assert set(desk.steps) == {"check"}
    state, totals = desk.queue.target("disk"), desk.queue.totals("disk", desk.now)
    assert (state.failing_since, state.error) == (NOW, "the disk is not there")
    assert (totals.waiting, totals.failing) == (3, 0)
    desk.fault = well
    reports = desk.wait(HOUR)
    assert [report.id for report in reports] == [parcel.id for parcel in parcels]
    assert [report.recovered for report in reports] == [True, False, False]
    assert desk.queue.target("disk").failing_since is None


@settings(max_examples=30)
@given(outages=st.lists(st.integers(1, 40), min_size=1, max_size=4), late=st.integers(0, 5))
def test_after_outages_everything_comes_oldest_first(
    tmp_path_factory: pytest.TempPathFactory, outages: list[int], late: int
) -> None:
    """Outages begin at any step, also in the middle of a file, and end by themselves."""
    desk = Desk(tmp_path_factory.mktemp("outage"))
    desk.add(*(f"{letter}bcdefghij" for letter in "bcdef"))
    left = list(outages)
    count = 0

    def fault(step: str, content: bytes) -> bytes:
        nonlocal count
        count += 1
        if left and count > left[0]:
            if step == "check" and count > left[0] + 3:
                left.pop(0)
                count = 0
                return content
            raise WillPass("out")
        return content

    desk.fault = fault
    reports = [report for _ in range(60) for report in desk.wait(HOUR)]
    assert [report.outcome for report in reports].count("delivered") == 5
    assert "refused" not in [report.outcome for report in reports]
    assert desk.arrived() == [f"{letter}bcdefghij" for letter in "bcdef"]
    assert desk.target.files() == everything(desk.root)
    desk.queue.close()


def test_the_outage_is_remembered_by_the_next_process(desk: Desk) -> None:
    desk.add("abcdefghij")
    desk.fault = out
    desk.work()
    desk.now += 500
    desk.restart()
    desk.queue.want(["disk"], again=True)  # as every start does: it is tried at once
    assert [report.outcome for report in desk.work()] == ["outage"]
    assert desk.queue.target("disk").failing_since == NOW
    desk.fault = well
    assert [report.recovered for report in desk.wait(HOUR)] == [True]


def poison(identity: str, error: Exception) -> Callable[[Desk], Callable[[str, bytes], bytes]]:
    def make(desk: Desk) -> Callable[[str, bytes], bytes]:
        def fault(step: str, content: bytes) -> bytes:
            if step == "write" and identity.encode() in content:
                raise error
            return content

        return fault

    return make


@pytest.mark.parametrize("error", [WillPass("no"), ForGood("name too long"), ValueError("a mistake")])
def test_a_poisonous_recording_holds_up_no_other(desk: Desk, error: Exception) -> None:
    desk.add("abcdefghij", "bbcdefghij", "cbcdefghij")
    desk.fault = poison("abcdefghij", error)(desk)
    reports = desk.work()
    assert [(report.outcome, report.id[0]) for report in reports] == [
        ("refused", "a"),
        ("delivered", "b"),
        ("delivered", "c"),
    ]
    assert desk.queue.target("disk").failing_since is None
    totals = desk.queue.totals("disk", desk.now)
    assert (totals.waiting, totals.failing, totals.failing_since) == (1, 1, NOW)
    assert str(error) in totals.error
    for _ in range(40):
        desk.wait(HOUR)
    tries = desk.steps.count("write")
    for _ in range(24):
        assert [report.outcome for report in desk.wait(HOUR)] == ["refused"]
    assert desk.steps.count("write") == tries + 24  # hourly for ever, and only the file that failed
    late = desk.add("dbcdefghij")
    assert [report.id for report in desk.work()] == [late[0].id]
    desk.fault = well
    assert [report.id[0] for report in desk.wait(HOUR)] == ["a"]
    assert desk.target.files() == everything(desk.root)


def test_what_is_for_good_is_tried_hourly_only(desk: Desk) -> None:
    desk.add("abcdefghij")
    desk.fault = poison("abcdefghij", ForGood("name too long"))(desk)
    assert [report.pause for report in desk.work()] == [HOUR]
    assert desk.wait(HOUR - 1) == []


def test_a_recording_that_has_vanished_is_lost_and_not_tried_again(desk: Desk) -> None:
    parcels = desk.add("abcdefghij", "bbcdefghij")
    sound = desk.root / parcels[0].files[0]
    content = sound.read_bytes()
    sound.unlink()
    reports = desk.work()
    assert [report.outcome for report in reports] == ["lost", "delivered"]
    assert str(sound) in reports[0].error
    assert desk.wait(48 * HOUR) == []
    totals = desk.queue.totals("disk", desk.now)
    assert (totals.waiting, totals.failing, totals.lost) == (0, 0, 1)
    (lost,) = desk.queue.lost(["disk"])
    assert lost.parcel == parcels[0]
    sound.write_bytes(content)
    desk.queue.found([lost])
    assert [report.outcome for report in desk.work()] == ["delivered"]
    assert desk.queue.totals("disk", desk.now).lost == 0


@pytest.mark.parametrize("step", ["write", "publish", "read_back"])
def test_a_lie_is_found_out_and_the_recording_comes_again(desk: Desk, step: str) -> None:
    desk.add("abcdefghij", "bbcdefghij")
    desk.fault = Lies(step, times=1, how=lambda content: None)
    assert [report.outcome for report in desk.work()] == ["refused", "delivered"]
    assert [report.id[0] for report in desk.wait(2)] == ["a"]
    assert desk.target.files() == everything(desk.root)


def test_a_name_that_is_taken_is_told(desk: Desk) -> None:
    (parcel,) = desk.add("abcdefghij")
    desk.target.put(parcel.files[0], b"another")
    (report,) = desk.work()
    assert report.beside
    assert report.folder.startswith(f"{parcel.stem}_other-")
    assert desk.queue.totals("disk", desk.now).beside == 1


def test_a_target_that_hangs_is_seen_and_holds_up_nobody_else(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    other = Courier(FaultyTarget(well, "nas"), Dispatch("nas", desk.queue, desk.root, None, lambda: desk.now))
    parcels = desk.add("abcdefghij", "bbcdefghij")
    desk.queue.want(["nas"], again=False)
    hangs, go_on = threading.Event(), threading.Event()

    def hang(step: str, content: bytes) -> bytes:
        if step == "write":
            hangs.set()
            assert go_on.wait(30)
        return content

    desk.fault = hang
    assert desk.courier.silent_for() == 0
    reports: list[Report | None] = []
    thread = threading.Thread(target=lambda: reports.append(desk.courier.step()))
    thread.start()
    assert hangs.wait(30)
    time.sleep(0.05)
    assert desk.courier.silent_for() >= 0.05
    assert [report.id for report in (other.step(), other.step()) if report] == [parcel.id for parcel in parcels]
    go_on.set()
    thread.join()
    assert [report.outcome for report in reports if report] == ["delivered"]
    assert desk.courier.silent_for() == 0


def test_a_courier_that_is_stopped_leaves_the_recording_in_the_queue(desk: Desk) -> None:
    desk.add("abcdefghij", sound=noise(4 << 20))

    def stop(step: str, content: bytes) -> bytes:
        if step == "write":
            desk.courier.stop()
        return content

    desk.fault = stop
    with pytest.raises(Stopped):
        desk.courier.step()
    assert desk.target.files() == {}
    desk.fault = well
    desk.courier = desk.new_courier()
    assert [report.outcome for report in desk.work()] == ["delivered"]
    assert desk.queue.totals("disk", desk.now).failing == 0


def test_an_outage_of_hours_is_tried_at_growing_distance_and_then_hourly(desk: Desk) -> None:
    parcels = desk.add("abcdefghij", "bbcdefghij")
    desk.fault = out
    tries: list[float] = []
    for _ in range(6 * 3600):
        tries += [desk.now - NOW for _ in desk.work()]
        desk.now += 1
    assert tries == [0, 2, 6, 14, 30, 62, 126, 254, 510, 1022, 2046, 4094, 7694, 11294, 14894, 18494]
    desk.fault = well
    assert [report.id for report in desk.wait(HOUR)] == [parcel.id for parcel in parcels]


def test_outside_its_hours_a_target_is_left_alone(desk: Desk) -> None:
    night = hours("22:00-06:00", Zone("UTC"))
    assert night is not None
    desk.now = opens = night.opens(NOW - NOW % 86_400 + 12 * HOUR)
    desk.now -= 2 * HOUR
    desk.terms = Terms(hours=night)
    desk.restart()
    desk.add("abcdefghij", "bbcdefghij")
    assert desk.work() == []
    assert desk.steps == []
    assert desk.dispatch.opens() == opens
    desk.now = opens
    assert [report.outcome for report in desk.work()] == ["delivered", "delivered"]
    assert desk.dispatch.opens() is None


def test_a_recording_is_broken_off_when_the_hours_are_over_and_goes_on_the_next_day(desk: Desk) -> None:
    night = hours("22:00-06:00", Zone("UTC"))
    desk.now = NOW - NOW % 86_400 + 6 * HOUR - 5  # five seconds are left
    limit = Bandwidth(1e6, lambda: desk.now)
    desk.terms = Terms(hours=night, bandwidth=limit)
    desk.restart()
    desk.add("abcdefghij", sound=noise(16 << 20))
    assert desk.work() == []
    assert desk.queue.target("disk").failing_since is None
    assert desk.queue.totals("disk", desk.now).failing == 0
    assert night is not None
    (kept,) = (len(content) for path, content in desk.target.files().items() if path.endswith(".part"))
    assert 4_000_000 < kept < 7_000_000
    desk.now = night.opens(desk.now)
    start = desk.now
    assert [report.outcome for report in desk.work()] == ["delivered"]
    assert desk.now - start == pytest.approx((2 * (16 << 20) - kept) / 1e6, abs=2)  # both ways
    assert desk.target.files() == everything(desk.root)


@pytest.mark.parametrize("read_back", [True, False])
def test_bandwidth_counts_what_is_sent_and_what_is_read_back(desk: Desk, read_back: bool) -> None:
    desk.terms = Terms(bandwidth=Bandwidth(100_000.0, lambda: desk.now), read_back=read_back)
    desk.restart()
    desk.add("abcdefghij", "bbcdefghij", sound=noise(1_000_000))
    start = desk.now
    assert [report.outcome for report in desk.work()] == ["delivered", "delivered"]
    assert desk.now - start == pytest.approx(40 if read_back else 20, abs=1.5)
    assert ("read_back" in desk.steps) == read_back


def test_a_courier_that_waits_for_its_turn_stops_at_once(desk: Desk) -> None:
    desk.terms = Terms(bandwidth=Bandwidth(1000.0))
    desk.restart()
    desk.add("abcdefghij", sound=noise(1_000_000))
    courier = Courier(desk.target, desk.dispatch)
    stopped = threading.Event()

    def run() -> None:
        with pytest.raises(Stopped):
            courier.step()
        stopped.set()

    thread = threading.Thread(target=run)
    thread.start()
    while "write" not in desk.steps:
        time.sleep(0.01)
    courier.stop()
    assert stopped.wait(10)  # and not 1000 s
    thread.join()


def test_while_one_tries_a_failing_target_the_others_wait(desk: Desk) -> None:
    desk.add("abcdefghij", "bbcdefghij")
    desk.fault = out
    assert [report.outcome for report in desk.work()] == ["outage"]
    desk.now += 10
    first = desk.dispatch.take()
    assert first is not None
    assert desk.dispatch.take() is None
    desk.dispatch.answers(first.job)
    second = desk.dispatch.take()
    assert second is not None
    assert second.job.parcel.id == "bbcdefghij"
    assert desk.dispatch.outage("out", first.failures) == 4
    assert desk.dispatch.outage("out", second.failures) is None  # it is one outage
    assert desk.queue.target("disk").failures == 2
