"""The exit codes of `tapdeck`, after sysexits.h where it has a fitting one. docs/exit-codes.md explains them to
users.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell gets. When several apply, the one furthest down this list wins, save that errors end a run at
    once.
    """

    OK = 0
    """All input was read to its end, and every call found with media was recorded."""
    NO_CALL = 1
    """The input was read to its end and holds no call."""
    USAGE = 64
    """The command line is wrong."""
    DAMAGED_CAPTURE = 65
    """A capture is damaged or cut; it was processed up to there."""
    UNREADABLE_INPUT = 66
    """An input does not exist, may not be read, or is no capture."""
    SOFTWARE = 70
    """A mistake of Tapdeck's own."""
    CANNOT_WRITE = 73
    """A recording could not be written."""
    ALREADY_RUNNING = 75
    """Another Tapdeck is at work with the same state folder."""
    NO_PERMISSION = 77
    """Only root may do that."""
    CONFIG = 78
    """The configuration is wrong."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C."""


class Health(IntEnum):
    """The exit codes of commands that judge how things stand, as monitoring systems want them."""

    GREEN = 0
    """All is well."""
    AMBER = 1
    """Something should be looked after."""
    RED = 2
    """Calls are not recorded as they should be."""


class Verdict(IntEnum):
    """The exit codes of the self-test."""

    PASSED = 0
    """The synthetic call came through every step."""
    FAILED = 1
    """A step failed; the report says which, and what to do."""
