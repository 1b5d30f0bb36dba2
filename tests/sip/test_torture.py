"""The 49 messages of RFC 4475, "SIP Torture Test Messages", as its appendix A publishes them.

What each must give is read off the RFC. A valid message must parse with the right fields. An invalid one must give what
the table says: an error where no dialog could be told from it, otherwise the message, as a lenient phone would take it:
a recorder that threw away what two phones accept would miss their call.
"""

from pathlib import Path
from typing import Any

import pytest

from tapdeck.sip.dialog import Dialogs, Started
from tapdeck.sip.message import Framer, Message, SipError, looks_like_sip, parse
from tapdeck.sip.sdp import session_description

MESSAGES = Path(__file__).parents[2] / "fixtures" / "rfc4475"

CALLER = ("192.0.2.1", 5060)
CALLEE = ("192.0.2.2", 5060)

ODD_USER = "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
ODD_METHOD = "!interesting-Method0123456789_*+`.%indeed'~"
CAME_OUT = "= 2**3 * 5**2 но сто девяносто девять - простое"
LONG_TAG = "12" + "982" * 50 + "424"
LONG_CALLER = "amazinglylongcallername" * 5

# name: (section, method or status, from user, from tag, to user, CSeq number, octets of body)
PARSED: dict[str, tuple[str, str | int, str, str, str, int, int]] = {
    # 3.1.1 valid messages
    "wsinv": ("3.1.1.1", "INVITE", "jdrosen", "98asjd8", "vivekg", 9, 150),
    "intmeth": ("3.1.1.2", ODD_METHOD, "mundane", "_token~1'+`*%!-.", ODD_USER, 139122385, 0),
    "esc01": ("3.1.1.3", "INVITE", "I have spaces", "938", "user", 234234, 150),
    "escnull": ("3.1.1.4", "REGISTER", "null-\0-null", "839923423", "null-\0-null", 14398234, 0),
    "esc02": ("3.1.1.5", "RE%47IST%45R", "resource", "f232jadfj23", "resource", 29344, 0),
    "lwsdisp": ("3.1.1.6", "OPTIONS", "caller", "323", "user", 60, 0),
    "longreq": ("3.1.1.7", "INVITE", LONG_CALLER, LONG_TAG, "user", 3882340, 150),
    "dblreq": ("3.1.1.8", "REGISTER", "j.user", "43251j3j324", "j.user", 8, 0),
    "semiuri": ("3.1.1.9", "OPTIONS", "caller", "33242", "j_user", 8, 0),
    "transports": ("3.1.1.10", "OPTIONS", "caller", "323", "user", 60, 0),
    "mpart01": ("3.1.1.11", "MESSAGE", "fluffy", "2fb0dcc9", "kumiko", 1, 553),
    "unreason": ("3.1.1.12", 200, "user", "11141343", "user", 35, 154),
    "noreason": ("3.1.1.13", 100, "user", "39ansfi3", "user", 35, 0),
    # 3.1.2 invalid messages that still say which dialog they belong to
    "badinv01": ("3.1.2.1", "INVITE", "caller", "134161461246", "j.user", 8, 152),
    "clerr": ("3.1.2.2", "INVITE", "caller", "93942939o2", "j.user", 8, 154),
    "ncl": ("3.1.2.3", "INVITE", "caller", "32394234", "j.user", 0, 152),
    "quotbal": ("3.1.2.6", "INVITE", "caller", "93334", "j.user", 8, 152),
    "ltgtruri": ("3.1.2.7", "INVITE", "caller", "39291", "user", 1, 159),
    "lwsruri": ("3.1.2.8", "INVITE", "caller", "231413434", "user", 2130706432, 159),
    "lwsstart": ("3.1.2.9", "INVITE", "caller", "8814", "user", 1893884, 150),
    "trws": ("3.1.2.10", "OPTIONS", "local-resource", "329429089", "remote-target", 238923, 0),
    "escruri": ("3.1.2.11", "INVITE", "caller", "341518", "user", 149209342, 150),
    "baddate": ("3.1.2.12", "INVITE", "caller", "2234923", "user", 1392934, 150),
    "regbadct": ("3.1.2.13", "REGISTER", "user", "998332", "user", 1, 0),
    "badaspec": ("3.1.2.14", "OPTIONS", "a.g.bell", "433423", "t.watson", 3923239, 0),
    "baddn": ("3.1.2.15", "OPTIONS", "a.g.bell", "43", "t.watson", 3923239, 0),
    "mismatch01": ("3.1.2.17", "OPTIONS", "caller", "34525", "j.user", 8, 0),
    "mismatch02": ("3.1.2.18", "NEWMETHOD", "caller", "34525", "j.user", 8, 138),
    # 3.2 transaction layer, 3.3 application layer, 3.4 backward compatibility: parsed, whatever a server would answer
    "badbranch": ("3.2.1", "OPTIONS", "caller", "33242", "user", 8, 0),
    "unkscm": ("3.3.2", "OPTIONS", "caller", "384", "user", 3923423, 0),
    "novelsc": ("3.3.3", "OPTIONS", "caller", "384", "user", 3923423, 0),
    "unksm2": ("3.3.4", "REGISTER", "", "3234233", "", 234902, 0),
    "bext01": ("3.3.5", "OPTIONS", "caller", "242etr", "j_user", 8, 0),
    "invut": ("3.3.6", "INVITE", "caller", "8392034", "j.user", 235448, 40),
    "regaut01": ("3.3.7", "REGISTER", "j.user", "87321hj23128", "j.user", 9338, 0),
    "multi01": ("3.3.8", "INVITE", "caller", "3413415", "user", 5, 154),
    "mcl01": ("3.3.9", "OPTIONS", "other", "3923942", "user", 15932, 13),
    "bcast": ("3.3.10", 200, "user", "11141343", "user", 35, 154),
    "zeromf": ("3.3.11", "OPTIONS", "caller", "3ghsd41", "user", 39234321, 0),
    "cparam01": ("3.3.12", "REGISTER", "watson", "DkfVgjkrtMwaerKKpe", "watson", 2, 0),
    "cparam02": ("3.3.13", "REGISTER", "watson", "838293", "watson", 3, 0),
    "regescrt": ("3.3.14", "REGISTER", "user", "8", "user", 14398234, 0),
    "sdp01": ("3.3.15", "INVITE", "caller", "234", "j_user", 8, 150),
    "inv2543": ("3.4.1", "INVITE", "+13035551111", "", "+16505552222", 56, -1),
}

# name: (section, kind of the error)
REFUSED = {
    "scalar02": ("3.1.2.4", "cseq"),
    "scalarlg": ("3.1.2.5", "cseq"),
    "badvers": ("3.1.2.16", "version"),
    "bigcode": ("3.1.2.19", "status"),
    "insuf": ("3.3.1", "call-id"),
}


def read(name: str) -> bytes:
    return (MESSAGES / f"{name}.dat").read_bytes()


def load(name: str) -> Message:
    return parse(read(name))


def test_every_message_of_the_rfc_has_its_row() -> None:
    assert {path.stem for path in MESSAGES.glob("*.dat")} == PARSED.keys() | REFUSED.keys()
    assert len(PARSED) + len(REFUSED) == 49


@pytest.mark.parametrize("name", PARSED)
def test_parsed(name: str) -> None:
    _, kind, from_user, from_tag, to_user, number, octets = PARSED[name]
    message = load(name)
    assert (message.method or message.status) == kind
    assert message.from_.user == from_user
    assert message.from_.tag == from_tag
    assert message.to.user == to_user
    assert message.cseq.number == number
    if octets >= 0:
        assert len(message.body) == octets


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(SipError) as caught:
        load(name)
    assert caught.value.kind == REFUSED[name][1]


@pytest.mark.parametrize("name", [*PARSED, *REFUSED])
def test_is_taken_for_sip(name: str) -> None:
    assert looks_like_sip(read(name))


@pytest.mark.parametrize("name", PARSED)
def test_passes_through_the_dialog_table(name: str) -> None:
    message = load(name)
    dialogs = Dialogs()
    events = [*dialogs.handle(message, 0, CALLER, CALLEE), *dialogs.finish()]
    starts = message.method == "INVITE" or (message.cseq.method == "INVITE" and message.status > 0)
    assert any(isinstance(event, Started) for event in events) == starts


def test_all_through_one_table_twice() -> None:
    dialogs = Dialogs()
    started = [
        event
        for time, name in enumerate([*PARSED, *PARSED])
        for event in dialogs.handle(load(name), time, CALLER, CALLEE)
        if isinstance(event, Started)
    ]
    calls = {load(name).call_id for name in PARSED if load(name).cseq.method == "INVITE"} - {
        load("mismatch01").call_id,  # OPTIONS and NEWMETHOD, though their CSeq says INVITE
        load("mismatch02").call_id,
    }
    assert {event.call.call_id for event in started} == calls
    assert len(started) == len(calls)


@pytest.mark.parametrize("name", [*PARSED, *REFUSED])
def test_framer_finds_the_next_message_after_any_of_them(name: str) -> None:
    """What follows a bad message on a stream is found again, unless it has been told to be the bad one's body."""
    framer = Framer()
    found = framer.feed(read(name) + b"\r\n\r\n" + read("lwsdisp"))
    followers = [item for item in found if isinstance(item, Message) and item.call_id == load("lwsdisp").call_id]
    assert len(followers) == (0 if name == "clerr" else 2 if name == "lwsdisp" else 1)


def header(name: str, field: str) -> list[str]:
    return load(name).values(field)


def test_white_space_everywhere() -> None:
    message = load("wsinv")
    assert message.call_id == "wsinv.ndaksdj@192.0.2.1"
    assert message.to.tag == "1918181833n"
    assert message.from_.display == 'J Rosenberg \\"'
    assert message.get("newfangledheader") == "newfangled value continued newfangled value"
    assert message.get("subject") == ""
    assert [(via.transport, via.host, via.branch) for via in message.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    sdp = session_description(message)
    assert sdp is not None
    assert [(media.kind, media.port, media.address) for media in sdp.media] == [
        ("audio", 49217, "192.0.2.4"),
        ("video", 3227, "192.0.2.4"),
    ]


def test_wide_range_of_characters() -> None:
    message = load("intmeth")
    assert message.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert message.from_.display == "token1~` token2'+_ token3*%!.-"
    assert message.from_.params["fromparam''~+*_!.-%"] == "работающий"
    assert message.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"
    assert message.get("extensionheader-!.%*+_`'~") == "\ufeff大停電"


def test_percent_escapes_in_the_request_uri() -> None:
    assert load("esc01").uri == "sip:sips%3Auser%40example.com@example.net"
    dialogs = Dialogs()
    (started, *_) = dialogs.handle(load("esc01"), 0, CALLER, CALLEE)
    assert started.call.dialled == "sips:user@example.com"


def test_brackets_around_the_request_uri() -> None:
    assert load("ltgtruri").uri == "sip:user@example.com"


def test_name_before_an_unquoted_comma() -> None:
    assert load("baddn").from_.display == "Bell, Alexander"
    assert load("baddn").to.display == "Watson, Thomas"


def test_semicolon_in_the_user_part() -> None:
    assert load("semiuri").uri == "sip:user;par=u%40example.net@example.com"


def test_transports() -> None:
    assert [via.transport for via in load("transports").vias] == ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]


@pytest.mark.parametrize(("name", "reason"), [("unreason", CAME_OUT), ("noreason", "")])
def test_reason(name: str, reason: str) -> None:
    assert load(name).reason == reason


def test_contacts_with_unknown_parameters() -> None:
    assert header("cparam01", "contact") == ["sip:+19725552222@gw1.example.net;unknownparam"]
    assert header("cparam02", "contact") == ["<sip:+19725552222@gw1.example.net;unknownparam>"]


def test_two_messages_in_a_stream() -> None:
    # The second one's Content-Length is 150, its body has three octets more.
    found = Framer().feed(read("dblreq"))
    assert [item.method if isinstance(item, Message) else item.kind for item in found] == [
        "REGISTER",
        "INVITE",
        "start line",
    ]


def test_stream_needs_its_content_length() -> None:
    errors: list[Any] = [item for item in Framer().feed(read("ncl")) if isinstance(item, SipError)]
    assert [error.kind for error in errors] == ["content length"]
