"""However a phone writes its SIP (RFC 3261, 7.3), the call is found and its parties are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import files
from tests.support.record import assert_sound, record
from tests.support.scene import plain_call

COMPACT = {
    b"Via": b"v",
    b"From": b"f",
    b"To": b"t",
    b"Call-ID": b"i",
    b"Contact": b"m",
    b"Content-Type": b"c",
    b"Content-Length": b"l",
}


def compact(head: bytes) -> bytes:
    for name, letter in COMPACT.items():
        head = head.replace(b"\r\n" + name + b":", b"\r\n" + letter + b" :")
    return head


def odd_case(head: bytes) -> bytes:
    first, *lines = head.split(b"\r\n")
    names = (line.partition(b":") for line in lines)
    return b"\r\n".join([first, *(name.swapcase() + colon + value.strip() for name, colon, value in names)])


def folded(head: bytes) -> bytes:
    return head.replace(b";tag=", b"\r\n \t;tag=").replace(b"CSeq: ", b"CSeq:\r\n  ")


def without_length(head: bytes) -> bytes:
    return re.sub(rb"\r\nContent-Length: \d+", b"", head)


def bare_addresses(head: bytes) -> bytes:
    """From and To without name and brackets: what follows the semicolon belongs to the header."""
    return re.sub(rb'(From|To): ".*?" <(.*?)>', rb"\1: \2", head)


def with_much(head: bytes) -> bytes:
    """Headers nobody knows, empty ones, and a long one; the message still fits a datagram."""
    return head + b"\r\nX-Empty:\r\nX-Long: " + b"z" * 4000 + b'\r\nX-Strange: \xe4\xff:;,"\r\nSubject: a\r\n b'


DRESS: dict[str, Callable[[bytes], bytes]] = {
    "compact names": compact,
    "odd case": odd_case,
    "folded lines": folded,
    "no length": without_length,
    "bare addresses": bare_addresses,
    "much more": with_much,
}


@pytest.mark.parametrize("dress", DRESS)
def test_a_message_in_every_dress(dress: str, tmp_path: Path) -> None:
    scene = plain_call()

    def dressed(text: bytes) -> bytes:
        head, _, body = text.partition(b"\r\n\r\n")
        return DRESS[dress](head) + b"\r\n\r\n" + body

    scene = replace(scene, signals=tuple(replace(one, text=dressed(one.text)) for one in scene.signals))
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(scene.packets())))
    assert_sound(result.only(), *scene.channels())
    info = result.only().info
    assert (info["Caller"], info["Callee"]) == ("101", "2001")


NAMES = {
    "UTF-8": ("Jörg Müller".encode(), "Jörg Müller"),
    "Latin-1": ("Jörg Müller".encode("latin-1"), "Jörg Müller"),
    "quotes": (rb"Anna \"Nan\" Z", 'Anna "Nan" Z'),
    "comma and semicolon": (b"Doe, J.; Sales <1>", "Doe, J.; Sales <1>"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_as_they_are_written(kind: str, tmp_path: Path) -> None:
    wire, expected = NAMES[kind]
    scene = plain_call()
    signals = tuple(replace(one, text=one.text.replace(b"Caller 1", wire)) for one in scene.signals)
    result = record(tmp_path / "out", files.write(tmp_path, files.pcap(replace(scene, signals=signals).packets())))
    assert result.only().info["CallerName"] == expected


HOSTILE = [b"../../../etc/cron.d/x", b"a/b\\c:d*e?f|g", b"\x1b[31mred\x07\x00", b"con", b"x" * 900, b"%2e%2e%2f", b""]


@pytest.mark.parametrize("number", HOSTILE)
def test_no_number_leaves_the_folder_or_the_line(number: bytes, tmp_path: Path) -> None:
    scene = plain_call()
    signals = tuple(
        replace(one, text=one.text.replace(b"sip:101@", b"sip:" + number + b"@").replace(b"Caller 1", number))
        for one in scene.signals
    )
    capture = files.write(tmp_path, files.pcap(replace(scene, signals=signals).packets()))
    result = record(tmp_path / "out", capture)
    recording = result.only()
    assert_sound(recording, *scene.channels())
    assert {path.name for path in tmp_path.iterdir()} == {"out", capture.name}
    assert recording.path.parent.relative_to(result.out).as_posix() == "2026/03/02"
    assert not set(recording.path.name) & set('<>:"/\\|?*')
    assert len(recording.path.name.encode()) < 250 - len("_hash.SHA256withRSA.sig")
    text = recording.path.with_name(recording.path.stem + "_info.txt").read_bytes()
    printed = text + recording.path.name.encode() + result.stdout.encode() + result.stderr.encode()
    assert not set(printed) & ({*range(32), 127} - {10, 13, 9})
