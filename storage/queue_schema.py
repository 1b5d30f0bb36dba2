"""The tables of the delivery queue, their versions, and how a queue is opened.

The version is SQLite's `user_version`. A queue of an older version is brought up to date when it is opened, in one
transaction; one of a newer version is refused.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

VERSION = 1

WAITING, CONFIRMED = "waiting", "confirmed"
UNWANTED = "unwanted"
"""The target's selection leaves the recording out."""
LOST = "lost"
"""A file of the recording is gone from this machine, and the target did not have it."""
DROPPED = "dropped"
"""It was lost, and somebody has taken note of that."""

SETTLED = (CONFIRMED, UNWANTED, DROPPED)
"""What needs no more of the recording here."""

_BUSY_S = 60
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

tables = sa.MetaData()
recordings = sa.Table(
    "recordings",
    tables,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("stem", sa.Text, nullable=False, unique=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("files", sa.Text, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("ended", sa.Float, nullable=False),
    sa.Column("going", sa.Float),  # when its removal from this machine's disk began
    sa.Column("removed", sa.Float),
    sa.Index("recordings_by_id", "id"),
    sa.Index("recordings_by_end", "ended", "bytes"),
)
sa.Index("recordings_on_disk", recordings.c.ended, recordings.c.bytes, sqlite_where=recordings.c.removed.is_(None))
sa.Index("recordings_going", recordings.c.going, sqlite_where=recordings.c.going.is_not(None))

jobs = sa.Table(
    "jobs",
    tables,
    sa.Column("recording", sa.ForeignKey("recordings.number", ondelete="CASCADE"), primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("ended", sa.Float, nullable=False),  # the recording's, to find the oldest without a join
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try", sa.Float, nullable=False),
    sa.Column("failing_since", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("place", sa.Text),  # the folder on the target
    sa.Column("beside", sa.Boolean, nullable=False),
    sa.Column("confirmed", sa.Float),
    sa.Column("bytes", sa.Integer, nullable=False, server_default="0"),  # the recording's
)
# Only what is not done: a queue that has delivered for years is as quick as a new one.
_open = jobs.c.state.in_((sa.literal_column(f"'{WAITING}'"), sa.literal_column(f"'{LOST}'")))
sa.Index(
    "jobs_open",
    *(jobs.c[name] for name in ("target", "state", "ended", "recording", "next_try", "failing_since", "bytes")),
    sqlite_where=_open,
)
sa.Index("jobs_beside", jobs.c.target, jobs.c.confirmed, sqlite_where=sa.text("beside = 1"))

targets = sa.Table(
    "targets",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("known", sa.Boolean, nullable=False),  # something was delivered to it
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("next_try", sa.Float, nullable=False),
    sa.Column("failing_since", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("selection", sa.Text, nullable=False, server_default=""),  # by which jobs were made
    sa.Column("confirmed", sa.Integer, nullable=False, server_default="0"),  # jobs
)

_TO_1 = (
    "ALTER TABLE jobs ADD COLUMN bytes INTEGER DEFAULT 0 NOT NULL",
    "ALTER TABLE targets ADD COLUMN selection TEXT DEFAULT '' NOT NULL",
    "ALTER TABLE targets ADD COLUMN confirmed INTEGER DEFAULT 0 NOT NULL",
    "UPDATE jobs SET bytes = (SELECT bytes FROM recordings WHERE number = jobs.recording)",
    "UPDATE targets SET confirmed = (SELECT count(*) FROM jobs WHERE target = targets.name AND state = 'confirmed')",
    "DROP INDEX IF EXISTS jobs_next",
    "DROP INDEX IF EXISTS recordings_here",
)
_MIGRATIONS = {0: _TO_1}
"""What leads from each version to the next one."""


class QueueError(OSError):
    """The queue cannot be read or written: its disk is full or fails, or it is of a newer version."""


class Damaged(Exception):
    """The file is no sound database."""


def open_engine(path: Path) -> sa.Engine:
    """Open a queue, or make it. Raises QueueError, Damaged."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # names of files hold numbers of people
    engine = connect(path)
    try:
        with engine.connect() as connection:
            if connection.exec_driver_sql("PRAGMA quick_check").scalars().all() != ["ok"]:
                raise Damaged
        bring_up_to_date(engine)
    except BaseException as error:
        engine.dispose()
        if isinstance(error, DatabaseError):
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            raise Damaged() if code in _DAMAGE else queue_error(error) from error
        raise
    return engine


def connect(path: Path) -> sa.Engine:
    """Return an engine for a file, which is not yet looked at."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_S, "check_same_thread": False})
    sa.event.listen(engine, "connect", _configure)
    return engine


def bring_up_to_date(engine: sa.Engine) -> None:
    """Make the tables, or change those of an older version. Raises QueueError, SQLAlchemyError."""
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if version > VERSION:
            raise QueueError(f"the delivery queue was written by a newer Tapdeck (version {version}): use that one")
        if version == VERSION:
            return
        if sa.inspect(connection).has_table(recordings.name):
            for step in range(version, VERSION):
                for statement in _MIGRATIONS[step]:
                    connection.exec_driver_sql(statement)
        tables.create_all(connection)
        for table in tables.tables.values():
            for index in table.indexes:
                index.create(connection, checkfirst=True)
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")


def queue_error(error: SQLAlchemyError) -> QueueError:
    """Return the error in words."""
    return QueueError(f"the delivery queue: {getattr(error, 'orig', None) or error}")


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us: sqlite3 would begin them late
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
