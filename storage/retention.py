"""How long recordings stay on this machine: the words of storage.keep_local. Pure."""

import re

DAY_S = 86_400.0
_UNITS = {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S, "m": 31 * DAY_S, "y": 366 * DAY_S}
_AGE = re.compile(r"(\d{1,5}) ?(h|hours?|d|days?|w|weeks?|months?|y|years?)")


class RetentionError(ValueError):
    """This is no such time; the message says what one looks like."""


def keep_local(text: str) -> float | None:
    """Return the seconds that a delivered recording stays here, None for an empty text: until the disk runs short. A
    month has 31 days, a year 366. Raises RetentionError.
    """
    text = text.strip()
    if not text:
        return None
    if text == "0":
        return 0.0
    found = _AGE.fullmatch(text)
    if found is None:
        raise RetentionError(f"{text!r} is no time like 30d, 6 months, 1 year or 0")
    return int(found[1]) * _UNITS[found[2][0]]
