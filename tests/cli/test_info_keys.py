"""docs/info-file.md and what is written agree: every key of a real recording is documented, in that order."""

import re
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from tapdeck.cli.main import cli
from tapdeck.storage.info import parse
from tests.support import encoded, files, rtcp, shapes

ROOT = Path(__file__).parents[2]


def test_every_key_is_documented_in_its_order(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "info-file.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([A-Za-z-]+)` \|", text, re.MULTILINE)
    captures = sorted(map(str, (ROOT / "fixtures" / "lab").glob("*.pcap")))
    assert len(captures) >= 7
    voices = encoded.l16_stereo(encoded.tune(16000), encoded.tune(16000, 2)), encoded.l16(8000)
    scene = encoded.call(*voices, (1, 2), encoded.PICTURES)
    scene = replace(scene, right=scene.right[:5] + scene.right[7:])
    captures.append(str(files.write(tmp_path, files.pcap(scene.packets()))))
    captures.append(str(files.write(tmp_path, files.pcap(rtcp.all_said().packets()), "rtcp.pcap")))
    captures += [
        str(files.write(tmp_path, files.pcap(shapes.packets(shape)), f"shape{number}.pcap"))
        for number, shape in enumerate(shapes.every_kind())
    ]
    config = tmp_path / "tapdeck.toml"
    config.write_text(f'[signing]\nkeys = "{tmp_path / "keys"}"\n')
    words = ["record", *captures, "--out", str(tmp_path / "out"), "--sign", "--config", str(config)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    seen: set[str] = set()
    for path in tmp_path.rglob("*_info.txt"):
        keys = list(dict.fromkeys(key for key, _ in parse(path.read_bytes())))
        assert keys == [key for key in documented if key in keys]
        seen |= set(keys)
    # Those that none of our captures gives rise to: one of SIP, and what only befalls live ones (test_sealing.py).
    srtp = {"Encrypted", "Caller-Srtp", "Callee-Srtp"}  # (test_srtp.py)
    live = {"ContinuationOf", "Truncated", "CaptureLoss", "ClockStep", "SealedLate"}
    sound = {"SoundFault", "DigitsMasked"}  # (test_sound_checks.py, test_keys.py)
    assert set(documented) - seen <= {"Asserted"} | live | srtp | sound


def test_the_readme_shows_what_is_written(tmp_path: Path) -> None:
    """Each line of the info file that the README quotes is in the recording of the capture that its demo records."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    capture = ROOT / "fixtures" / "lab" / "n_impaired.pcap"
    options = ["--out", str(tmp_path), "--timezone", "Europe/Amsterdam"]
    done = CliRunner().invoke(cli, ["record", str(capture), *options])
    info = next(tmp_path.rglob("*_info.txt"))
    assert info.name.removesuffix("_info.txt") + ".wav" in readme
    quoted = re.findall(r"^    ([A-Z][A-Za-z-]+: .*)$", readme, re.MULTILINE)
    assert len(quoted) >= 10
    assert set(quoted) <= set(info.read_text(encoding="utf-8").splitlines())
    for line in done.stdout.splitlines():
        assert line.strip() in readme
