"""What every target keeps to. A test module for a new target is a class with this as its base and a `place`.

A faulty target passes it too: whatever a target does, a recording counts as delivered only when it is there, whole, and
once; nothing of others is touched; and nothing half-written has a recording's name at any moment.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Protocol

import pytest

from tapdeck.storage.delivery import Delivered, deliver
from tapdeck.storage.parcel import Parcel
from tapdeck.storage.targets import ForGood, NameTaken, Target, WillPass

from . import parcels

TRIES = 200


class Place(Protocol):
    """A target, and a way to look at and into it that is not its own."""

    @property
    def target(self) -> Target:
        """The target under test."""

    def files(self) -> dict[str, bytes]:
        """Return what lies there, the target's own mark left out, temporary files not."""

    def put(self, path: str, content: bytes) -> None:
        """Have somebody else write a file there, and the folders above it."""


class Bench:
    """Delivers to a place as a courier does, and looks after each attempt whether it is as it must be."""

    def __init__(self, place: Place, root: Path) -> None:
        self.place, self.target, self.root = place, place.target, root
        self.attempts = 0

    def deliver(self, parcel: Parcel) -> Delivered:
        """Deliver, again and again where the target fails for a while."""
        before = self.place.files()
        whole = {(self.root / file).read_bytes() for file in parcel.files if (self.root / file).exists()}
        for _ in range(TRIES):
            self.attempts += 1
            try:
                self.target.check(known=self.attempts > 1)
                done = deliver(parcel, self.root, self.target, lambda size: None)
            except WillPass:
                self._nothing_is_wrong(before, whole)
                continue
            self._nothing_is_wrong(before, whole)
            return done
        raise AssertionError(f"not delivered in {TRIES} attempts")

    def _nothing_is_wrong(self, before: dict[str, bytes], whole: set[bytes]) -> None:
        now = self.place.files()
        assert {path: now.get(path) for path in before} == before
        for path in set(now) - set(before):
            assert now[path] in whole, path


class TargetContract:
    """The suite."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        raise NotImplementedError

    @pytest.fixture
    def bench(self, place: Place, tmp_path: Path) -> Bench:
        return Bench(place, tmp_path / "recordings")

    def test_a_recording_arrives_byte_for_byte(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij", endings=parcels.ALL_ENDINGS)
        done = bench.deliver(recording)
        assert bench.place.files() == parcels.everything(bench.root)
        assert (done.folder, done.beside) == (parcels.DAY, False)

    def test_a_long_one_arrives_too(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij", parcels.noise((5 << 20) + 1))
        bench.deliver(recording)
        assert bench.place.files() == parcels.everything(bench.root)

    def test_again_sends_nothing(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij")
        bench.deliver(recording)
        assert bench.deliver(recording).sent == 0
        assert bench.place.files() == parcels.everything(bench.root)

    def test_what_is_there_already_is_left_and_the_rest_is_added(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij", b"the sound")
        bench.place.put(recording.files[0], b"the sound")
        done = bench.deliver(recording)
        assert done.sent == len((bench.root / recording.files[1]).read_bytes())
        assert bench.place.files() == parcels.everything(bench.root)

    @pytest.mark.parametrize("taken", [0, 1])
    @pytest.mark.parametrize("other", [b"another sound", b"Riff and the rest"])
    def test_other_content_is_not_touched_and_the_recording_lies_beside_it(
        self, bench: Bench, taken: int, other: bytes
    ) -> None:
        recording = parcels.record(bench.root, "abcdefghij", b"RIFF and the rest")
        bench.place.put(recording.files[taken], other)
        done = bench.deliver(recording)
        whole = hashlib.sha256()
        for file in recording.files:
            content = (bench.root / file).read_bytes()
            whole.update(f"{hashlib.sha256(content).hexdigest()}  {PurePosixPath(file).name}\n".encode())
        assert done.beside
        assert done.folder == f"{recording.stem}_other-{whole.hexdigest()[:8]}"
        names = {PurePosixPath(file).name: (bench.root / file).read_bytes() for file in recording.files}
        beside = {f"{done.folder}/{name}": content for name, content in names.items()}
        assert bench.place.files() == {recording.files[taken]: other, **beside}
        assert bench.deliver(recording) == Delivered(done.folder, True, 0)

    def test_other_content_beside_too_is_refused(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij")
        bench.place.put(recording.files[0], b"another")
        done = bench.deliver(recording)
        bench.place.put(f"{done.folder}/{PurePosixPath(recording.files[0]).name}", b"a third")
        before = bench.place.files()
        with pytest.raises(NameTaken):
            bench.deliver(recording)
        assert bench.place.files() == before

    @pytest.mark.parametrize(
        "name", ["a b", "Zoë_Müller", "x" * 190, "+31-star-21-star", "日本語", "a'b&c;$(d)", "~tilde"]
    )
    def test_names_stay_as_they_are(self, bench: Bench, name: str) -> None:
        recording = parcels.record(bench.root, "abcdefghij", name=name)
        bench.deliver(recording)
        assert bench.place.files() == parcels.everything(bench.root)

    def test_many_recordings_do_not_get_into_each_others_way(self, bench: Bench) -> None:
        for number in range(20):
            bench.deliver(
                parcels.record(bench.root, f"abcdefghi{chr(97 + number)}", folder=f"2026/11/{number % 3 + 1:02}")
            )
        assert bench.place.files() == parcels.everything(bench.root)

    def test_a_recording_that_has_vanished_here_is_nobody_elses_fault(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij")
        (bench.root / recording.files[1]).unlink()
        with pytest.raises(ForGood, match="cannot be read"):
            bench.deliver(recording)
        assert bench.place.files() == {}

    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_recording_that_changes_while_it_is_copied_is_not_delivered(self, bench: Bench, change: int) -> None:
        recording = parcels.record(bench.root, "abcdefghij", parcels.noise(3 << 20))
        source = bench.root / recording.files[0]

        def beat(size: int) -> None:
            with source.open("r+b") as file:
                file.truncate((3 << 20) + change * size)

        with pytest.raises(WillPass):  # noqa: PT012
            bench.target.check(known=False)
            deliver(recording, bench.root, bench.target, beat)
        assert bench.place.files() == {}

    def test_breaking_off_leaves_nothing(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij", parcels.noise(3 << 20))
        moved = 0

        def beat(size: int) -> None:
            nonlocal moved
            moved += size
            if moved > 1 << 20:
                raise KeyboardInterrupt

        for _ in range(TRIES):
            try:
                bench.target.check(known=False)
                deliver(recording, bench.root, bench.target, beat)
            except WillPass:
                continue
            except KeyboardInterrupt:
                break
        assert moved > 1 << 20
        assert bench.place.files() == {}
        bench.deliver(recording)
        assert bench.place.files() == parcels.everything(bench.root)

    def test_a_trial_takes_a_recording_and_leaves_nothing(self, bench: Bench) -> None:
        kept, tried = parcels.record(bench.root, "abcdefghij"), parcels.record(bench.root, "bbcdefghij")
        bench.deliver(kept)
        before = bench.place.files()
        with bench.target.trial(".trial", known=True) as inner:
            for _ in range(TRIES):
                try:
                    inner.check(known=False)
                    done = deliver(tried, bench.root, inner, lambda size: None)
                    break
                except WillPass:
                    continue
            assert (inner.name, done.beside) == (bench.target.name, False)
            for file in tried.files:
                assert _read(inner, PurePosixPath(file)) == (bench.root / file).read_bytes()
        assert bench.place.files() == before

    def test_a_trial_that_breaks_off_leaves_nothing_either(self, bench: Bench) -> None:
        tried = parcels.record(bench.root, "abcdefghij")

        def beat(size: int) -> None:
            raise KeyboardInterrupt

        def attempt() -> None:
            with bench.target.trial(".trial", known=False) as inner:
                inner.check(known=False)
                deliver(tried, bench.root, inner, beat)

        with pytest.raises((KeyboardInterrupt, WillPass)):
            attempt()
        assert bench.place.files() == {}


def _read(target: Target, path: PurePosixPath) -> bytes:
    """Read a file from a target that may fail for a while."""
    for _ in range(TRIES):
        try:
            return b"".join(target.read(path))
        except WillPass:
            continue
    raise AssertionError(f"not read in {TRIES} attempts")
