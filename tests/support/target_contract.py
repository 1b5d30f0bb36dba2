"""What every target keeps to. A test module for a new target is a class with this as its base and a `place`.

A faulty target passes it too: whatever a target does, a recording counts as delivered only when it is there, whole, and
once; nothing of others is touched; and nothing half-written has a recording's name at any moment.
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

import pytest

from tapdeck.storage.delivery import Delivered, Manner, Vanished, deliver
from tapdeck.storage.parcel import Parcel
from tapdeck.storage.targets import NameTaken, Target, WillPass, part_name

from . import parcels

TRIES = 200


class Place(Protocol):
    """A target, and a way to look at and into it that is not its own."""

    @property
    def target(self) -> Target:
        """The target under test."""

    def another(self) -> Target:
        """Return a second instance of the same target, as another courier of it has."""

    def files(self) -> dict[str, bytes]:
        """Return what lies there, the target's own mark left out, temporary files not."""

    def put(self, path: str, content: bytes) -> None:
        """Have somebody else write a file there, and the folders above it."""


class Bench:
    """Delivers to a place as a courier does, and looks after each attempt whether it is as it must be."""

    def __init__(self, place: Place, root: Path) -> None:
        self.place, self.target, self.root = place, place.target, root
        self.attempts = 0
        self.manner = Manner()

    def deliver(self, parcel: Parcel) -> Delivered:
        """Deliver, again and again where the target fails for a while."""
        before = self.place.files()
        whole = {(self.root / file).read_bytes() for file in parcel.files if (self.root / file).exists()}
        for _ in range(TRIES):
            self.attempts += 1
            try:
                self.target.check(known=self.attempts > 1)
                done = deliver(parcel, self.root, self.target, lambda size: None, manner=self.manner)
            except WillPass:
                self._nothing_is_wrong(before, whole)
                continue
            self._nothing_is_wrong(before, whole)
            return done
        raise AssertionError(f"not delivered in {TRIES} attempts")

    def _nothing_is_wrong(self, before: dict[str, bytes], whole: set[bytes]) -> None:
        now = self.place.files()
        assert {path: now.get(path) for path in before if not _unfinished(path)} == {
            path: content for path, content in before.items() if not _unfinished(path)
        }
        for path in set(now) - set(before):
            assert now[path] in whole or _unfinished(path), path


class TargetContract:
    """The suite. A target that is not `honest` fails now and then, or lies: of it less is asked."""

    honest = True

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
        with pytest.raises(Vanished, match="gone from this machine"):
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

    def test_a_long_one_goes_on_where_it_was_broken_off(self, bench: Bench) -> None:
        content = parcels.noise((3 << 20) + 1)
        break_off(bench.target, LONG, content, 2 << 20)
        left = {path for path in bench.place.files() if _unfinished(path)}
        assert left <= {str(LONG.with_name(part_name(LONG.name, digest_of(content))))}
        kept = finish(bench.target, LONG, content)
        if self.honest:
            assert kept == 2 << 20
        assert bench.place.files() == {str(LONG): content}

    def test_a_broken_connection_loses_no_more_than_what_was_under_way(self, bench: Bench) -> None:
        content = parcels.noise((3 << 20) + 1)
        break_off(bench.target, LONG, content, 1 << 20)
        bench.target.close()
        break_off(bench.target, LONG, content, 2 << 20)
        bench.target.close()
        kept = finish(bench.place.another(), LONG, content)
        if self.honest:
            assert kept == 2 << 20
        assert bench.place.files() == {str(LONG): content}

    def test_nothing_is_kept_of_another_content(self, bench: Bench) -> None:
        content, other = parcels.noise((1 << 20) + 1), parcels.noise((1 << 20) + 1)
        break_off(bench.target, LONG, content, 1 << 20)
        assert finish(bench.target, LONG, other) == 0 or not self.honest
        assert bench.place.files() == {str(LONG): other}

    def test_what_is_discarded_is_not_used_again(self, bench: Bench) -> None:
        content = parcels.noise((1 << 20) + 1)
        for _ in range(TRIES):
            try:
                bench.target.check(known=False)
                with bench.target.upload(LONG, len(content), digest_of(content)) as upload:
                    upload.write(b"wrong")
                    upload.discard()
                    raise _Cut
            except WillPass:
                continue
            except _Cut:
                break
        assert finish(bench.target, LONG, content) == 0 or not self.honest
        assert bench.place.files() == {str(LONG): content}

    def test_more_than_the_whole_file_is_not_gone_on_with(self, bench: Bench) -> None:
        content = parcels.noise(1000)
        part = str(LONG.with_name(part_name(LONG.name, digest_of(content))))
        bench.place.put(part, content + b"more")
        assert finish(bench.target, LONG, content) == 0 or not self.honest
        assert bench.place.files() == {str(LONG): content}

    def test_wrong_bytes_that_were_kept_are_found_out(self, bench: Bench) -> None:
        """The target has lost its power: what it had taken is there in length only."""
        recording = parcels.record(bench.root, "abcdefghij", parcels.noise(2 << 20))
        bench.manner = Manner(read_back=not self.honest, long=1 << 20)
        sound = PurePosixPath(recording.files[0])
        name = part_name(sound.name, digest_of((bench.root / sound).read_bytes()))
        bench.place.put(str(sound.with_name(name)), bytes(1 << 20))
        bench.deliver(recording)
        if self.honest:
            assert bench.attempts == 2
        assert bench.place.files() == parcels.everything(bench.root)

    def test_a_long_recording_that_is_gone_on_with_is_delivered_once(self, bench: Bench) -> None:
        recording = parcels.record(bench.root, "abcdefghij", parcels.noise((3 << 20) + 1))
        bench.manner, moved = Manner(long=1 << 20), 0

        def beat(size: int) -> None:
            nonlocal moved
            moved += size
            if moved > 1 << 20:
                raise _Cut

        for _ in range(TRIES):
            try:
                bench.target.check(known=False)
                deliver(recording, bench.root, bench.target, beat, manner=bench.manner)
            except WillPass:
                continue
            except _Cut:
                break
        done = bench.deliver(recording)
        if self.honest:
            assert done.sent == sum((bench.root / file).stat().st_size for file in recording.files) - (2 << 20)
        assert bench.place.files() == parcels.everything(bench.root)

    def test_after_closing_it_connects_anew(self, bench: Bench) -> None:
        first, second = parcels.record(bench.root, "abcdefghij"), parcels.record(bench.root, "bbcdefghij")
        bench.deliver(first)
        bench.target.close()
        bench.target.close()
        bench.deliver(second)
        assert bench.place.files() == parcels.everything(bench.root)

    def test_it_tells_of_itself_without_a_secret(self, bench: Bench) -> None:
        bench.deliver(parcels.record(bench.root, "abcdefghij"))
        about = bench.target.about()
        assert all(isinstance(text, str) and text for pair in about.items() for text in pair)
        assert "password" not in repr(about).lower()

    def test_two_of_one_target_work_side_by_side(self, bench: Bench) -> None:
        other = Bench(bench.place, bench.root)
        other.target = bench.place.another()
        recordings = [
            parcels.record(bench.root, f"abcdefgh{n:02}", parcels.noise(1 << 16), folder=f"2026/11/{n % 2 + 1:02}/x/y")
            for n in range(20)
        ]
        with ThreadPoolExecutor(2) as pool:
            works = [
                pool.submit(_deliver_all, one.target, bench.root, recordings[n::2])
                for n, one in enumerate((bench, other))
            ]
            for work in works:
                work.result()
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


LONG = PurePosixPath(parcels.DAY, "20261124-100000.000_+31201234567_2002_abcdefghij.wav")


class _Cut(Exception):
    """The sender breaks off."""


def digest_of(content: bytes) -> str:
    """Return what an upload is told of a long file."""
    return hashlib.sha256(content).hexdigest()


def break_off(target: Target, path: PurePosixPath, content: bytes, until: int) -> None:
    """Send a long file up to a byte, in blocks, and break off there."""
    for _ in range(TRIES):
        try:
            target.check(known=False)
            with target.upload(path, len(content), digest_of(content)) as upload:
                assert upload.kept <= until
                for start in range(upload.kept, until, 1 << 18):
                    upload.write(content[start : min(start + (1 << 18), until)])
                raise _Cut
        except WillPass:
            continue
        except _Cut:
            return
    raise AssertionError(f"not sent in {TRIES} attempts")


def finish(target: Target, path: PurePosixPath, content: bytes, digest: str | None = None) -> int:
    """Send a long file, going on with what is there; return how much that was at the first attempt."""
    first: int | None = None
    for _ in range(TRIES):
        try:
            target.check(known=False)
            with target.upload(path, len(content), digest_of(content) if digest is None else digest) as upload:
                first = upload.kept if first is None else first
                for start in range(upload.kept, len(content), 1 << 18):
                    upload.write(content[start : start + (1 << 18)])
                if b"".join(upload.read_back()) != content:
                    upload.discard()
                    raise WillPass("it is not as it was written")
            if target.size(path) == len(content):
                return first
        except WillPass:
            continue
    raise AssertionError(f"not sent in {TRIES} attempts")


def _unfinished(path: str) -> bool:
    """Whether this is a long file that was broken off."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.part", PurePosixPath(path).name) is not None


def _deliver_all(target: Target, root: Path, recordings: list[Parcel]) -> None:
    """Deliver as a courier does, while another does the same."""
    for recording in recordings:
        for _ in range(TRIES):
            try:
                target.check(known=False)
                deliver(recording, root, target, lambda size: None)
                break
            except WillPass:
                continue
        else:
            raise AssertionError(f"not delivered in {TRIES} attempts")


def _read(target: Target, path: PurePosixPath) -> bytes:
    """Read a file from a target that may fail for a while."""
    for _ in range(TRIES):
        try:
            return b"".join(target.read(path))
        except WillPass:
            continue
    raise AssertionError(f"not read in {TRIES} attempts")
