"""What may be done to sealed recordings, and what verification must then say."""

import base64
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import sealed
from tests.support.sealed import SIG, Box, Key, change, part, remove, rename, swap

IDS = tuple(f"abcdefgh{number:02d}" for number in range(6))


@dataclass(frozen=True, slots=True)
class Scene:
    """Six recordings of one day and their checkpoint, and a key that is not the recorder's."""

    root: Path
    stems: tuple[Path, ...]
    key: Key
    stranger: Key

    def copy(self, root: Path) -> "Scene":
        shutil.copytree(self.root, root)
        return Scene(root, tuple(root / stem.relative_to(self.root) for stem in self.stems), self.key, self.stranger)

    @property
    def folder(self) -> Path:
        return self.stems[0].parent


def scene(folder: Path) -> Scene:
    box = Box(folder / "archive", sealed.key(folder, "box"))
    stems = tuple(box.seal(identity) for identity in IDS)
    box.checkpoint()
    return Scene(box.root, stems, box.key, sealed.key(folder, "stranger"))


@dataclass(frozen=True, slots=True)
class Damage:
    """Something done to a scene; for each recording that suffers, by its id: the verdict, and words of the reason."""

    name: str
    do: Callable[[Scene], object]
    expected: dict[str, tuple[str, str]]
    by_hand: bool = False
    """Whether `openssl` and `sha256sum -c` on the recording alone see nothing: it is the others that tell."""


def _altered(number: int, words: str) -> dict[str, tuple[str, str]]:
    return {IDS[number]: ("altered", words)}


def _cut(ending: str) -> Callable[[Scene], object]:
    return lambda scene: change(part(scene.stems[2], ending), lambda content: content[: len(content) // 2])


def _resign(scene: Scene, certificate: bool = False) -> None:
    """Edit the info file, make the hashes anew, and sign with another key."""
    stem = scene.stems[2]
    content = {ending: part(stem, ending).read_bytes() for ending in sealed.ENDINGS[:3]}
    content["_info.txt"] = content["_info.txt"].replace(b"+31201234567", b"+31209999999")
    content["_info.txt"] = content["_info.txt"].replace(
        scene.key.fingerprint.encode(), scene.stranger.fingerprint.encode()
    )
    sealed.write(stem.parent, stem.name, content, scene.stranger)
    if certificate:
        pem = scene.folder / "tapdeck-certificate.pem"
        pem.write_bytes(pem.read_bytes() + scene.stranger.certificate.read_bytes())


def _resign_first(scene: Scene) -> None:
    """Sign with another key, and put its certificate before the recorder's."""
    _resign(scene)
    pem = scene.folder / "tapdeck-certificate.pem"
    pem.write_bytes(scene.stranger.certificate.read_bytes() + pem.read_bytes())


def copy_under_another_name(scene: Scene) -> Path:
    """Add a copy of a recording under another name, and have its hash file name its files."""
    stem, copy = scene.stems[2], scene.stems[2].with_name("copied_" + IDS[2])
    for ending in sealed.ENDINGS:
        part(copy, ending).write_bytes(part(stem, ending).read_bytes())
    change(part(copy, "_hash.txt"), lambda text: text.replace(stem.name.encode(), copy.name.encode()))
    return copy


def _link_to_nothing(ending: str) -> Callable[[Scene], None]:
    def link(scene: Scene) -> None:
        part(scene.stems[2], ending).unlink()
        part(scene.stems[2], ending).symlink_to("nothing")

    return link


def _folder_in_place_of_sound(scene: Scene) -> None:
    part(scene.stems[2], ".wav").unlink()
    part(scene.stems[2], ".wav").mkdir()


def _insert(scene: Scene) -> None:
    """Add a recording that names a true one before it, signed with another key."""
    before = base64.b64encode(part(scene.stems[2], SIG).read_bytes()).decode()
    info = f"RecordingId: inserted00\nPreviousRecording: {IDS[2]}\nPreviousSignature: {before}\n"
    stem = scene.stems[2].name[: -len(IDS[2])] + "inserted00"
    sealed.write(scene.folder, stem, {".wav": b"RIFF", "_info.txt": info.encode()}, scene.stranger)


def _reorder(scene: Scene) -> None:
    """Exchange the names of two recordings."""
    one, other = scene.stems[1], scene.stems[2]
    for ending in sealed.ENDINGS:
        swap(part(one, ending), part(other, ending))


def _relink(scene: Scene) -> None:
    """Take out a recording, and mend the chain over the gap."""
    after = part(scene.stems[3], "_info.txt")
    remove(scene.stems[2])
    after.write_text(after.read_text().replace(IDS[2], IDS[1]))


DAMAGES = (
    Damage("cut sound", _cut(".wav"), _altered(2, ".wav")),
    Damage("cut packets", _cut("_packets.pcapng"), _altered(2, "_packets.pcapng was changed")),
    Damage("cut info", _cut("_info.txt"), _altered(2, "_info.txt was changed")),
    Damage("cut hashes", _cut("_hash.txt"), _altered(2, "_hash.txt was changed; the files that it vouches for are as")),
    Damage("cut signature", _cut(SIG), _altered(2, SIG)),
    Damage("empty sound", lambda s: part(s.stems[2], ".wav").write_bytes(b""), _altered(2, ".wav")),
    Damage(
        "edited info",
        lambda s: change(part(s.stems[2], "_info.txt"), lambda text: text.replace(b"+31201234567", b"+31201234568")),
        _altered(2, "_info.txt was changed"),
    ),
    Damage(
        "swapped signatures",
        lambda s: swap(part(s.stems[1], SIG), part(s.stems[2], SIG)),
        _altered(1, f"{IDS[1]}{SIG} is the signature of") | _altered(2, f"{IDS[2]}{SIG} is the signature of"),
    ),
    Damage(
        "swapped sounds",
        lambda s: swap(part(s.stems[1], ".wav"), part(s.stems[2], ".wav")),
        _altered(1, f"{IDS[1]}.wav was changed") | _altered(2, f"{IDS[2]}.wav was changed"),
    ),
    Damage("reordered", _reorder, _altered(1, "it was renamed") | _altered(2, "it was renamed")),
    Damage("renamed", lambda s: rename(s.stems[2], "renamed"), _altered(2, "it was renamed")),
    Damage(
        "renamed sound",
        lambda s: os.rename(part(s.stems[2], ".wav"), s.folder / "renamed.wav"),
        _altered(2, f"{IDS[2]}.wav is not there"),
    ),
    Damage("removed sound", lambda s: remove(s.stems[2], (".wav",)), _altered(2, ".wav is not there")),
    Damage("removed info", lambda s: remove(s.stems[2], ("_info.txt",)), _altered(2, "_info.txt is not there")),
    Damage("removed hashes", lambda s: remove(s.stems[2], ("_hash.txt",)), _altered(2, "_hash.txt is not there, but")),
    Damage("removed signature", lambda s: remove(s.stems[2], (SIG,)), _altered(2, "removed")),
    Damage("removed seal", lambda s: remove(s.stems[2], ("_hash.txt", SIG)), _altered(2, "removed")),
    Damage("removed", lambda s: remove(s.stems[2]), {IDS[2]: ("missing", "the gap is between")}),
    Damage(
        "removed at the end", lambda s: remove(s.stems[5]), {IDS[5]: ("missing", "tapdeck-day-2026-11-24.txt names")}
    ),
    Damage(
        "removed and mended", _relink, {IDS[2]: ("missing", "names it"), IDS[3]: ("altered", "_info.txt was changed")}
    ),
    Damage(
        "added file",
        lambda s: part(s.stems[2], ".pcapng").write_bytes(b"x"),
        _altered(2, ".pcapng was added"),
        by_hand=True,
    ),
    Damage("inserted", _insert, {"inserted00": ("altered", f"inserted00{SIG} is no signature by a key whose")}),
    Damage("signed with another key", _resign, _altered(2, "made with another key")),
    Damage("other key and certificate", lambda s: _resign(s, True), _altered(2, "signed with another key")),
    Damage("other key, its certificate first", _resign_first, _altered(2, "signed with another key")),
    Damage(
        "longer signature",
        lambda s: change(part(s.stems[2], SIG), lambda text: text + b"x"),
        _altered(2, "385 bytes and should have 384"),
        by_hand=True,
    ),
    Damage("link to nothing", _link_to_nothing(".wav"), _altered(2, ".wav is not there")),
    Damage("hash file that leads nowhere", _link_to_nothing("_hash.txt"), _altered(2, "_hash.txt is not there, but")),
    Damage("folder in place of sound", _folder_in_place_of_sound, _altered(2, ".wav is not there")),
)
