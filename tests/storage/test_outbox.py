"""The queue of mails, by a clock that is handed in."""

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.alarm_book import Book, Change, Entry, Seen
from tapdeck.storage.alarm_words import Scene, letters
from tapdeck.storage.outbox import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_CHANGES,
    MOST_LETTERS,
    MOST_REFUSALS,
    Letter,
    Outbox,
    pause,
)

NOW = 1_700_000_000.0
GATHER_S = 10.0
PEOPLE = {"it": ("it@example.com",), "admin": ("admin@example.com",), "installer": ()}


def change(code: str = "DELIVER_FAILED", at: float = NOW, about: str = "nas", kind: str = "raised") -> Change:
    over = at if kind == "over" else None
    entry = Entry("deliver", code, about, "warning", "the server is off", NOW, at, over=over)
    return Change("over" if kind == "over" else "raised", entry, at)


def write(outbox: Outbox, now: float, an_hour: int = 12) -> list[Letter]:
    """What the stage does once a second."""
    found = outbox.gather(now, GATHER_S, an_hour)
    made = letters(found, PEOPLE, {}, Scene("box", waited=outbox.waited, lost=outbox.lost), now) if found else []
    for letter in made:
        outbox.post(letter)
    return made


def letter(made: float = NOW, **more: str) -> Letter:
    return Letter(
        ("it@example.com",), more.get("subject", "s"), "b", made, kind="alive" if "alive" in more else "alarm"
    )


def seconds(first: float, last: float, step: float = 1.0) -> Iterator[float]:
    while first < last:
        yield first
        first += step


def test_an_outage_of_hours_of_the_mail_server_is_one_mail_and_one_on_recovery() -> None:
    """A target fails at 0:00 and flaps; the mail server is off from 0:00 to 7:00; the target is back at 5:00."""
    book, outbox, sent, tries = Book(hold_s=600), Outbox(), list[Letter](), 0
    for now in seconds(NOW, NOW + 10 * 3600, 5):
        after = now - NOW
        down = after < 5 * 3600 and not 3600 <= after < 3600 + 300  # five minutes in between it seems to be back
        alarms = ({"code": "DELIVER_FAILED", "about": "nas", "text": f"no answer, {after:.0f}"},) if down else ()
        for one in [*book.reports({"deliver": Seen(now, alarms)}), *book.settle(now)]:
            outbox.note(one)
        write(outbox, now)
        if (found := outbox.next(now)) is not None:
            tries += 1
            if after < 7 * 3600:
                outbox.unreachable(now)
            else:
                sent.append(found)
                outbox.sent(found)
    assert [one.subject for one in sent] == [
        "[tapdeck box] DELIVER_FAILED (nas)",
        "[tapdeck box] over: DELIVER_FAILED (nas)",
    ]
    assert sent[0].to == ("it@example.com", "admin@example.com")
    assert "It came and went 2 times." in sent[1].body
    assert 7 * 3600 / LONGEST_PAUSE_S <= tries < 7 * 3600 / LONGEST_PAUSE_S + 15, "tried later and later, but for ever"
    assert not outbox.letters
    assert not outbox.changes


def test_what_happens_together_goes_into_one_mail() -> None:
    outbox = Outbox()
    outbox.note(change("DELIVER_FAILED"))
    outbox.note(change("DISK_LOW", NOW + 5, ""))
    assert not write(outbox, NOW + GATHER_S - 1)
    [one] = [made for made in write(outbox, NOW + GATHER_S) if "admin@example.com" in made.to]
    assert one.subject.endswith("DELIVER_FAILED (nas), DISK_LOW")
    assert not write(outbox, NOW + 2 * GATHER_S), "once"


def test_what_is_over_before_it_was_told_is_one_mail() -> None:
    outbox = Outbox()
    outbox.note(change())
    outbox.note(change(at=NOW + 5, kind="over"))
    [one] = write(outbox, NOW + GATHER_S)
    assert one.subject == "[tapdeck box] over: DELIVER_FAILED (nas)"


def test_no_more_mails_an_hour_than_are_allowed_and_nothing_is_left_out() -> None:
    outbox, made = Outbox(), list[Letter]()
    for minute in range(120):
        now = NOW + minute * 60
        outbox.note(change(at=now, about=f"target {minute}"))
        made += write(outbox, now + GATHER_S, an_hour=3)
        outbox.letters.clear()
        assert len([one for one in made if now + GATHER_S - 3600 < one.made]) <= 3
    made += write(outbox, NOW + 4 * 3600, an_hour=3)
    text = "\n".join(one.body for one in made)
    assert all(f"(target {minute})" in text for minute in range(120))
    assert any("had to wait for this mail" in one.body for one in made)


def test_the_limit_is_that_of_each_reader() -> None:
    """Roles that get different mails do not use up each other's."""
    outbox = Outbox()
    for code in ("DELIVER_FAILED", "DISK_LOW", "TIMESTAMP_FAILED", "NAME_TAKEN"):
        outbox.note(change(code))
    assert len(write(outbox, NOW + GATHER_S, an_hour=2)) == 2
    outbox.note(change("DISK_FULL", NOW + 60))
    assert len(write(outbox, NOW + 60 + GATHER_S, an_hour=2)) == 1
    outbox.note(change("DISK_FULL", NOW + 90, "another"))
    assert not write(outbox, NOW + 90 + GATHER_S, an_hour=2)


def test_a_clock_that_is_set_back_holds_up_nothing() -> None:
    outbox = Outbox()
    for _ in range(9):
        outbox.unreachable(NOW)
    outbox.post(letter())
    outbox.note(change())
    assert outbox.next(NOW + 1) is None
    assert outbox.next(NOW - 86_400) is not None
    assert write(outbox, NOW - 86_400)


def test_a_mail_that_is_refused_holds_up_no_other_and_is_given_up() -> None:
    outbox, bad, good = Outbox(), letter(subject="bad"), letter(subject="good")
    outbox.post(bad)
    outbox.post(good)
    assert not outbox.refused(bad, NOW)
    assert outbox.next(NOW) == good
    outbox.sent(good)
    assert outbox.next(NOW) is None
    now, tries = NOW, 1
    while True:
        now += 1
        found = outbox.next(now)
        if found is None:
            continue
        tries += 1
        if outbox.refused(found, now):
            break
    assert tries == MOST_REFUSALS
    assert 3600 <= now - NOW <= 4 * 3600, "greylisting is over by then"
    assert not outbox.letters


def test_one_that_is_refused_for_some_goes_to_those_again() -> None:
    outbox, one = Outbox(), Letter(("a@example.com", "b@example.com"), "s", "b", NOW)
    outbox.post(one)
    outbox.refused(Letter(("b@example.com",), "s", "b", NOW, id=one.id), NOW)
    found = outbox.next(NOW + 3600)
    assert found is not None
    assert (found.to, found.id) == (("b@example.com",), one.id)


def test_only_the_last_sign_of_life_waits() -> None:
    outbox = Outbox()
    for day in range(30):
        outbox.post(letter(NOW + day, alive="yes"))
    outbox.post(letter())
    assert [one.kind for one in outbox.letters] == ["alive", "alarm"]
    assert outbox.letters[0].made == NOW + 29


def test_something_has_changed() -> None:
    outbox, bad, good = Outbox(), letter(subject="bad"), letter(subject="good")
    outbox.post(bad)
    outbox.refused(bad, NOW)
    outbox.post(good)
    outbox.unreachable(NOW)
    assert outbox.next(NOW + 1) is None
    outbox.try_again()
    assert outbox.next(NOW + 1) is not None


def test_pauses() -> None:
    assert [pause(n) for n in (1, 2, 3)] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pause(10_000) == LONGEST_PAUSE_S


@given(st.lists(st.tuples(st.sampled_from(("note", "step", "off", "refuse")), st.integers(0, 4000)), max_size=200))
def test_whatever_happens_it_is_bounded_and_outlives_a_restart(steps: list[tuple[str, int]]) -> None:
    outbox, now = Outbox(), NOW
    for number, (what, more) in enumerate(steps):
        now += more if what == "step" else 1
        if what == "note":
            for part in range(more % 40):
                outbox.note(change(at=now, about=f"{number}.{part}"))
        found = outbox.next(now)
        if found is not None and what == "off":
            outbox.unreachable(now)
        elif found is not None and what == "refuse":
            outbox.refused(found, now)
        write(outbox, now)
        assert len(outbox.changes) <= MOST_CHANGES
        assert len(outbox.letters) <= MOST_LETTERS + 8, "one more writing"
        assert len({one.id for one in outbox.letters}) == len(outbox.letters)
        again = Outbox.of(json.loads(json.dumps(outbox.as_json())))
        assert again == outbox
