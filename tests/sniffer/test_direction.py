"""In, out, inside or unknown, by the customer's own numbers and networks."""

from __future__ import annotations

import ipaddress

import pytest

from tapdeck.sniffer.direction import Own, direction

OURS = Own(("+4930123*", "2???"), (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")), "49")


@pytest.mark.parametrize(
    ("caller", "callee", "way"),
    [
        ("+4930123456", "+31201234567", "out"),
        ("+31201234567", "+4930123456", "in"),
        ("2001", "2002", "internal"),
        ("0049301299", "004930129", "unknown"),
        ("004930123 4", "+31 20", "out"),
        ("030/123-45", "+31 20", "out"),
        ("(030) 123.45", "2001", "internal"),
        ("alice", "bob", "unknown"),
        ("", "", "unknown"),
        ("20011", "200", "unknown"),
    ],
)
def test_by_number_in_whatever_way_it_is_written(caller: str, callee: str, way: str) -> None:
    assert direction(OURS, caller, callee) == way


@pytest.mark.parametrize(
    ("source", "target", "way"),
    [
        ("10.1.2.3", "192.0.2.1", "out"),
        ("192.0.2.1", "2001:db8::5", "in"),
        ("10.1.2.3", "2001:db8::5", "internal"),
        ("not an address", "", "unknown"),
    ],
)
def test_by_address_where_no_number_is_ours(source: str, target: str, way: str) -> None:
    assert direction(OURS, "alice", "bob", source, target) == way


def test_a_number_that_is_ours_outweighs_all_addresses() -> None:
    assert direction(OURS, "2001", "bob", "192.0.2.1", "10.0.0.1") == "out"


def test_letters_are_patterns_as_they_stand() -> None:
    own = Own(("sales*", "[ab]x"))
    assert own.number("sales-berlin")
    assert own.number("bx")
    assert not own.number("Sales")
    assert not Own().number("2001")
