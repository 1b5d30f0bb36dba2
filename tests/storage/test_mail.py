"""Mails to a real server on loopback: what is refused, what arrives, and that nothing in them adds a header."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.mail import MailError, MailServer, message, send
from tapdeck.storage.outbox import Letter
from tapdeck.storage.secret import Secret
from tests.support.mailbox import PASSWORD, USER, Mailbox, free_port, make_certificates

TO = ("clerk@example.com",)
LETTER = Letter(TO, "[tapdeck box] DELIVER_FAILED (nas)", "What:  a target is gone\n  Müller & Söhne", 1_700_000_000.0)


def server_of(box: Mailbox, security: str = "starttls") -> MailServer:
    return MailServer(
        "127.0.0.1", "tapdeck@example.com", box.port, security, USER, Secret(PASSWORD), box.ca_file, patience_s=5
    )


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Mailbox]:
    with Mailbox(tmp_path) as found:
        yield found


def test_a_mail_arrives_by_starttls_with_login(box: Mailbox) -> None:
    assert send(server_of(box), LETTER) == {}
    [mail] = box.mails
    assert box.envelopes == [("tapdeck@example.com", list(TO))]
    assert (mail["Subject"], mail["To"], mail["From"]) == (LETTER.subject, TO[0], "tapdeck@example.com")
    assert mail["Message-ID"] == f"<{LETTER.id}@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime.timestamp() == LETTER.made
    assert mail.get_content().splitlines() == LETTER.body.split("\n")


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # aiosmtpd knows of STARTTLS only
def test_a_mail_arrives_by_smtps(tmp_path: Path) -> None:
    with Mailbox(tmp_path, tls="smtps") as box:
        assert send(server_of(box, "smtps"), LETTER) == {}
        assert box.subjects() == [LETTER.subject]


def test_a_mail_in_the_clear_only_where_that_is_asked_for(tmp_path: Path) -> None:
    with Mailbox(tmp_path, tls="none", login=False) as box:
        with pytest.raises(MailError, match="offers no STARTTLS, and nothing is sent in the clear"):
            send(server_of(box), LETTER)
        assert not box.mails
        assert send(replace(server_of(box, "none"), user="", password=None), LETTER) == {}
        assert box.subjects() == [LETTER.subject]


def test_an_unknown_authority_is_refused(box: Mailbox, tmp_path: Path) -> None:
    make_certificates(tmp_path / "other", "127.0.0.1")
    for trusted in ("", str(tmp_path / "other" / "ca.pem")):
        with pytest.raises(MailError, match=r"its certificate is refused .*alarms\.ca_file") as caught:
            send(replace(server_of(box), ca_file=trusted), LETTER)
        assert caught.value.all_mail
    assert not box.mails


def test_the_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    with Mailbox(tmp_path, name="mail.example.org") as box:
        with pytest.raises(MailError, match=r"alarms\.server must be the name in the certificate"):
            send(server_of(box), LETTER)
        assert not box.mails


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_smtps_checks_the_certificate_too(tmp_path: Path) -> None:
    with Mailbox(tmp_path, tls="smtps") as box:
        with pytest.raises(MailError, match="its certificate is refused"):
            send(replace(server_of(box, "smtps"), ca_file=""), LETTER)
        assert not box.mails


def test_a_wrong_password_is_not_repeated_in_the_message(box: Mailbox) -> None:
    with pytest.raises(MailError, match="refuses user and password") as caught:
        send(replace(server_of(box), password=Secret("quite another one")), LETTER)
    assert caught.value.all_mail
    assert "quite another" not in str(caught.value)
    assert "quite another" not in repr(replace(server_of(box), password=Secret("quite another one")))


def test_a_server_that_repeats_the_password_does_not_get_it_into_a_message(box: Mailbox) -> None:
    box.broken = f"554 5.6.0 what is {PASSWORD}?"
    with pytest.raises(MailError, match="what is \\*\\*\\*") as caught:
        send(server_of(box), LETTER)
    assert not caught.value.all_mail, "another mail may well be taken"


def test_some_recipients_refused(box: Mailbox) -> None:
    box.answers = {"gone@example.com": "550 no such user", "slow@example.com": "451 try again later"}
    letter = replace(LETTER, to=(*TO, "gone@example.com", "slow@example.com"))
    refused = send(server_of(box), letter)
    assert refused == {"gone@example.com": "550 no such user", "slow@example.com": "451 try again later"}
    assert box.envelopes[0][1] == list(TO)


def test_all_recipients_refused_is_a_matter_of_this_mail(box: Mailbox) -> None:
    box.answers = {TO[0]: "550 no such user"}
    with pytest.raises(MailError, match=r"refuses every recipient.*550 no such user") as caught:
        send(server_of(box), LETTER)
    assert not caught.value.all_mail


def test_a_server_that_is_off_and_one_that_is_silent(box: Mailbox) -> None:
    with pytest.raises(MailError, match="takes no connection: is it on"):
        send(replace(server_of(box), port=free_port()), LETTER)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = replace(server_of(box), port=silent.getsockname()[1], patience_s=0.3)
        with pytest.raises(MailError, match="does not answer"):
            send(server, LETTER)


def test_certificates_that_are_none_are_said_to_be(box: Mailbox, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    with pytest.raises(MailError, match=r"alarms\.ca_file"):
        send(replace(server_of(box), ca_file=str(tmp_path / "none.pem")), LETTER)


HOSTILE = (
    "+49 1\r\nBcc: thief@example.com\r\n\r\nbody",
    "nas\nSubject: another",
    "a\x00b\x1b[2J\u202e\u2028X-Evil: 1",
    "\udcff\ud800",
    "\r\n.\r\nMAIL FROM:<x@example.com>\r\n",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_number_adds_nothing_on_the_wire(box: Mailbox, text: str) -> None:
    letter = replace(LETTER, subject=f"[tapdeck box] NAME_TAKEN ({text})", body=f"  What: {text}\nend")
    assert send(server_of(box), letter) == {}
    [mail] = box.mails
    assert box.envelopes == [("tapdeck@example.com", list(TO))]
    check_headers(mail.keys())
    assert mail.get_content().splitlines()[-1] == "end"


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_adds_a_header(subject: str, body: str) -> None:
    server = MailServer("mail.example.com", "tapdeck@example.com")
    content = message(server, replace(LETTER, subject=subject, body=body)).as_bytes()
    mail = message_from_bytes(content, policy=policy.default)
    check_headers(mail.keys())
    assert content.isascii()
    assert all(len(line) <= 998 for line in content.split(b"\r\n")), "RFC 5322 section 2.1.1"
    # Lines of the body are ours: only "\n" parts them.
    assert len(content.partition(b"\r\n\r\n")[2]) > 0 or not body


def check_headers(found: list[str]) -> None:
    expected = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
    more = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
    assert sorted(found) == sorted(expected + more)
