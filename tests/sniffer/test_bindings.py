"""What calls may name is bounded: a flood of them must cost neither memory nor time without end."""

from typing import Any

import numpy as np
import pytest

from tapdeck.sip import sdp
from tapdeck.sip.dialog import Party
from tapdeck.sniffer import bindings
from tapdeck.sniffer.bindings import Binding, Bindings, Source
from tapdeck.sniffer.datagrams import NO_RTP, RTP_FIELDS, RtpColumns

HEAD = b"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\ns=-\r\nc=IN IP4 1.1.1.1\r\nt=0 0\r\n"
FAX = sdp.parse(HEAD + b"m=image 1000 udptl t38\r\n").media[0]


class Call:
    """As much of a call as bindings know."""

    def __init__(self) -> None:
        self.endpoints: list[tuple[int, int]] = []


def bind(table: Bindings, call: Any, *ends: tuple[int, int]) -> int:
    return sum(table.add(end, Binding(call, Party.CALLER, "", 0, "x", Source.OWN, FAX)) for end in ends)


def towards(*ends: tuple[int, int]) -> RtpColumns:
    fields = {name: np.zeros(len(ends), dtype=getattr(NO_RTP, name).dtype) for name in RTP_FIELDS}
    fields["destination"] = np.array([end[0] for end in ends], dtype=np.uint64)
    fields["ports"] = np.array([end[1] for end in ends], dtype=np.uint32)
    return RtpColumns(**fields)


def test_the_newest_ends_of_faxes_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "MAX_BESIDE", 100)
    table, calls = Bindings(), [Call() for _ in range(30)]
    for number, call in enumerate(calls):
        bind(table, call, *((number, port) for port in range(10)))
    ends = [(number, port) for number in range(31) for port in range(10)]
    assert table.beside(towards(*ends)).tolist() == [20 <= end[0] < 30 for end in ends]
    for call in calls:
        table.remove(call)  # type: ignore[arg-type]
    assert not table.any_beside
    assert len(table) == 0


def test_where_many_ends_are_known_a_call_may_name_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "CROWDED", 500)
    table = Bindings()
    named = [bind(table, Call(), *((number, port) for port in range(64))) for number in range(100)]
    assert named[:7] == [64] * 7
    assert set(named[8:]) == {bindings.FEW}
    assert len(table) == sum(named)
