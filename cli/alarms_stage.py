"""The loop of the alarms stage: events and reports in, the book of alarms, mails and hooks out.

What is in the book and who is still to be told of it are one file, which is written before anybody is told. So nothing
is forgotten whenever the process is killed; at most somebody is told twice.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..storage import alarm_acks, alarm_desk, mail, state
from ..storage.advice import routes
from ..storage.alarm_book import Change, Seen, iso
from ..storage.alarm_words import Scene, alive_letter, day_of, letters
from ..storage.atomic import make_folder
from ..storage.event_cursor import at_end, follow
from . import alarms_hooks, box
from .alarms_heartbeat import Heartbeat
from .alarms_hooks import ALARM_HOOK, RECORDING_HOOK, AlarmHook, Program, RecordingHook
from .alarms_mail import Password, Post, Sender, everybody, people, reread_password, server
from .logs import log
from .settings import Settings, time_of_day

GRACE_S = 8.0
"""Seconds that a mail or a program which is under way gets when the stage ends."""
START_S = 30.0
"""Seconds after the start in which other stages may still be starting too."""
SAVE_S = 30.0

_EVENTS = 20_000
_FOLDER_MODE, _ACKS_MODE = 0o2750, 0o3770


class AlarmsStage:
    """Everything that the stage does; `tick` once a second. `now` is in seconds since the epoch."""

    def __init__(self, settings: Settings, password: Password, now: float, send: Sender = mail.send) -> None:
        self._settings, self._password, self._began = settings, password, now
        self._folder = Path(settings.storage.state)
        self._alarms = state.Alarms(self._folder, "alarms")
        self._alarms.take_over()
        make_folders(self._folder)
        self._desk = alarm_desk.load(self._folder, self._complain)
        self._desk.book.hold_s = settings.alarms.hold_s
        self._post, self._hook = Post(self._folder, self._alarms, send), AlarmHook(self._folder)
        self._heartbeat = Heartbeat(self._alarms)
        self._recordings: RecordingHook | None = None
        self._saved: dict[str, Any] = {}
        self._saved_at = 0.0
        if self._desk.cursor is None:
            self._desk.cursor = at_end(self._folder)
            self._save(now)

    def begin(self) -> None:
        """Start what has a thread of its own."""
        state.append(self._folder, "alarms started")
        self._employ()

    def reload(self, settings: Settings, now: float) -> None:
        """Take new settings, and the password anew. What has failed may be mended: it is tried at once."""
        if self._recordings is not None:
            self._recordings.stop()
        same = _password_of(settings) == _password_of(self._settings)
        self._password = reread_password(settings, self._password, same)
        self._settings, self._desk.book.hold_s = settings, settings.alarms.hold_s
        self._alarms.clear("MAIL_FAILED")
        self._desk.outbox.try_again()
        self._hook.try_again()
        self._employ()
        state.append(self._folder, "alarms reloaded")
        self.tick(now)

    def tick(self, now: float) -> None:
        """One round."""
        self._collect(now)
        reports = replace(box.read(self._folder), now=now)
        self._look_for_dead_stages(reports, now)
        changes = [*self._events(), *self._reports(reports, now)]
        acks = list(alarm_acks.waiting(self._folder))
        changes += self._acknowledge(acks, now)
        changes += self._desk.book.settle(now)
        self._take(changes)
        self._write_mails(reports, now)
        self._heartbeat.step(self._settings.heartbeat, reports, self._instance, self._desk.outbox, now)
        saved = self._save(now)
        for path, _ in acks if saved else ():
            alarm_acks.taken(path)
        self._tell(now)
        self._say(now)

    def end(self) -> None:
        """Wait a moment for what is under way, and write down what has come of it."""
        if self._recordings is not None:
            self._recordings.stop()
        deadline = time.monotonic() + GRACE_S
        for work in (self._post, self._hook):
            work.wait(max(deadline - time.monotonic(), 0.0))
        now = time.time()
        self._collect(now)
        self._save(now)
        state.append(self._folder, "alarms stopped")

    def _collect(self, now: float) -> None:
        """Take what has come of the mail and the program that were under way. This is written down before the next one
        sets out: so a kill repeats at most one of each.
        """
        self._post.collect(self._desk.outbox, now)
        self._hook.collect(self._desk, self._program(ALARM_HOOK), now)

    # -- what goes in --------------------------------------------------------------------------------------------------

    def _events(self) -> list[Change]:
        """Take what is new in the event log."""
        changes: list[Change] = []
        assert self._desk.cursor is not None
        try:
            for count, (event, cursor) in enumerate(follow(self._folder, self._desk.cursor), 1):
                changes += self._desk.book.event(event)
                self._desk.cursor = cursor
                if count >= _EVENTS:
                    break
        except OSError as error:
            log().error("the event log cannot be read", reason=str(error))
        return changes

    def _reports(self, reports: box.Reports, now: float) -> list[Change]:
        """Take what the stages say. Those that are silent, but should not be, keep their alarms."""
        seen = {"alarms": Seen(now, tuple(self._alarms.active))}
        for stage, report in reports.of.items():
            if stage == "alarms":
                continue
            if stage in reports.alive or stage not in (*box.STAGES, "run"):
                seen[stage] = Seen(box.number(report, "updated"), tuple(box.entries(report, "alarms")))
            elif not box.is_expected(reports, stage) and stage != "run":
                seen[stage] = Seen(now)
        return self._desk.book.reports(seen)

    def _look_for_dead_stages(self, reports: box.Reports, now: float) -> None:
        """Without a supervisor nobody else says that a stage does not run."""
        alone = "run" not in reports.alive and not 0 <= now - self._began < START_S
        down = {stage for stage in box.missing(reports) if alone and stage != "alarms"}
        for stage in box.STAGES:
            if stage in down:
                age = max(now - box.number(reports.of[stage], "updated"), 0.0)
                text = f"{stage} does not run, or says nothing; last heard of {age:.0f} s ago"
                self._alarms.raise_("STAGE_DOWN", text, "critical" if stage == "capture" else "warning", stage)
            else:
                self._alarms.clear("STAGE_DOWN", stage)

    def _acknowledge(self, acks: Iterable[tuple[Path, alarm_acks.Ack | None]], now: float) -> list[Change]:
        changes: list[Change] = []
        for path, ack in acks:
            if ack is None:
                self._complain(f"{path.name} is no acknowledgement of an alarm")
                continue
            changes += self._desk.book.acknowledge(ack.code, ack.about, ack.by, ack.note, now)
        for change in changes:
            facts = {"code": change.entry.code, "about": change.entry.about, "by": change.entry.by}
            state.append(self._folder, "alarm acknowledged", **facts, note=change.entry.note)
        return changes

    # -- what goes out -------------------------------------------------------------------------------------------------

    def _take(self, changes: Sequence[Change]) -> None:
        """Put changes into the queues of those who are to be told. The alarm hook is not told that it fails itself: it
        would fail for that too, for ever.
        """
        alarms = self._settings.alarms
        for change in changes:
            log().info("alarm", change=change.kind, code=change.entry.code, about=change.entry.about)
            itself = change.entry.code == "HOOK_FAILED" and change.entry.about == ALARM_HOOK
            self._desk.take(change, mail=bool(alarms.server), hook=bool(alarms.hook) and not itself)

    def _write_mails(self, reports: box.Reports, now: float) -> None:
        alarms, outbox = self._settings.alarms, self._desk.outbox
        changes = outbox.gather(now, alarms.gather_s, alarms.mails_an_hour)
        if changes:
            scene = self._scene(reports)
            for letter in letters(changes, people(alarms), routes(alarms.routes), scene, now):
                outbox.post(letter)
        self._say_alive(reports, now)

    def _say_alive(self, reports: box.Reports, now: float) -> None:
        """The mail of the day, if its time has come, or is over for less than a day because the box was off."""
        alarms, local = self._settings.alarms, self._settings.zone().local(round(now * 1e9))
        at, today = time_of_day(alarms.alive_at, "alarms.alive_at"), local.date().isoformat()
        if at is None or not alarms.server:
            self._desk.alive = ""
            return
        if not self._desk.alive:
            self._desk.alive = today if local.time() >= at else (local.date() - timedelta(days=1)).isoformat()
        if self._desk.alive >= today or local.time() < at:
            return
        self._desk.alive = today
        readers = people(alarms)["admin"] or everybody(alarms)
        if readers:
            day = day_of(*self._yesterday(local), box.mapping(reports.of.get("deliver", {}), "disk"))
            self._desk.outbox.post(alive_letter(readers, day, self._scene(reports), now))

    def _yesterday(self, local: datetime) -> tuple[str, list[dict[str, Any]]]:
        date = local.date() - timedelta(days=1)
        zone = self._settings.zone()
        first, last = zone.end_of(date - timedelta(days=1)), zone.end_of(date)
        since = state.events(self._folder, zone.local(first))
        return date.isoformat(), [event for event in since if _ns(event["time"]) < last]

    def _tell(self, now: float) -> None:
        """Go on with mails and hooks."""
        alarms = self._settings.alarms
        trouble = self._password.trouble
        if not alarms.server and (everybody(alarms) or self._settings.heartbeat.mail):
            trouble = "alarms.server is empty: no mail can be sent to the addresses that are set"
        if alarms.server or trouble:
            self._post.step(self._desk.outbox, server(alarms, self._password), trouble, now)
        else:
            self._alarms.clear("MAIL_FAILED")
        self._hook.step(self._desk, self._program(ALARM_HOOK), now)
        self._hook_alarm(ALARM_HOOK, self._hook, now)
        self._hook_alarm(RECORDING_HOOK, self._recordings, now)

    def _hook_alarm(self, setting: str, hook: AlarmHook | RecordingHook | None, now: float) -> None:
        if hook is not None and hook.trouble and 0 <= now - hook.failed < alarms_hooks.FORGET_S:
            self._alarms.raise_("HOOK_FAILED", hook.trouble, about=setting)
        else:
            self._alarms.clear("HOOK_FAILED", setting)

    def _employ(self) -> None:
        program = self._program(RECORDING_HOOK)
        self._recordings = None
        if not program.command:
            alarms_hooks.forget_cursor(self._folder)
            return
        self._recordings = RecordingHook(self._folder, Path(self._settings.storage.recordings), program)
        self._recordings.start()

    def _program(self, setting: str) -> Program:
        alarms = self._settings.alarms
        command = alarms.hook if setting == ALARM_HOOK else alarms.recording_hook
        return Program(setting, command, alarms.hook_limit_s, alarms.hook_tries)

    # -- what is said --------------------------------------------------------------------------------------------------

    def _scene(self, reports: box.Reports) -> Scene:
        targets = box.entries(reports.of.get("deliver", {}), "targets")
        waiting = tuple((str(one.get("name", "?")), int(box.number(one, "waiting"))) for one in targets)
        raised = tuple(entry for entry in self._desk.book.active.values() if entry.over is None)
        unsealed = int(box.number(reports.of.get("seal", {}), "waiting"))
        outbox = self._desk.outbox
        return Scene(self._instance, waiting, unsealed, raised, outbox.waited, outbox.lost)

    @property
    def _instance(self) -> str:
        return self._settings.recording.instance or os.uname().nodename

    def _say(self, now: float) -> None:
        looked_after = [
            {"stage": one.stage, "code": one.code, "about": one.about, "by": one.by, "note": one.note}
            | {"at": iso(one.acknowledged)}
            for one in self._desk.book.active.values()
            if one.acknowledged is not None and one.over is None
        ]
        report = {
            "mails": {"sent": self._post.sent, "waiting": len(self._desk.outbox.letters)},
            "hook_waiting": len(self._desk.calls),
            "recordings_told": 0 if self._recordings is None else self._recordings.told,
            "heartbeats": self._heartbeat.sent,
            "acknowledged": looked_after,
            "alarms": self._alarms.active,
        }
        state.write(self._folder, "alarms", report)

    def _save(self, now: float) -> bool:
        """Write down what has changed; False if that was not possible. Places in the log and texts can wait: what is
        behind a place is nothing that the book would not take again.
        """
        content = self._desk.as_json()
        essence = {**content, "cursor": None, "book": _without_texts(content["book"])}
        if essence == self._saved and 0 <= now - self._saved_at < SAVE_S:
            return True
        try:
            alarm_desk.save(self._folder, self._desk)
        except OSError as error:
            log().error("the book of alarms cannot be written", reason=str(error))
            return False
        self._saved, self._saved_at = essence, now
        return True

    def _complain(self, text: str) -> None:
        state.append(self._folder, "complaint", stage="alarms", text=text)
        log().error("complaint", text=text)


def make_folders(folder: Path) -> None:
    """Make the folders of this stage where `tapdeck install` has not. Raises OSError."""
    own, acks = folder / alarm_desk.FOLDER, folder / alarm_desk.FOLDER / alarm_acks.ACKS
    for path, mode in ((own, _FOLDER_MODE), (acks, _ACKS_MODE)):
        if not path.is_dir():
            make_folder(path)
            path.chmod(mode)


def _password_of(settings: Settings) -> tuple[str, str, str]:
    alarms = settings.alarms
    return alarms.server, alarms.user, alarms.password_file


def _ns(when: str) -> float:
    return datetime.fromisoformat(when).timestamp() * 1e9


def _without_texts(book: dict[str, Any]) -> dict[str, Any]:
    return {**book, "alarms": [{**one, "text": ""} for one in book["alarms"]]}
