"""When a tenant's pipeline runs: five cron fields and a time zone, checked without a scheduler.

Accepts what every cron understands: numbers, names, ranges, lists and steps. Extensions (`@daily`, seconds, `L`, `#`,
`?`, random values) are refused, because schedulers disagree about them; so is a date that never comes (30 February).
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from dataclasses import dataclass

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")


@dataclass(frozen=True)
class _Field:
    title: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _DAYS),
)


def cron_mistake(expression: str) -> str | None:
    """What is wrong with a cron expression, or None."""
    parts = expression.split(" ")
    if len(parts) != len(_FIELDS) or not all(parts):
        return f"must have five fields separated by single blanks, like '0 */2 * * *'; {expression[:60]!r} does not"
    values: list[frozenset[int]] = []
    for field, part in zip(_FIELDS, parts, strict=True):
        found = _field_values(field, part)
        if found is None:
            return f"the {field.title} {part[:30]!r} is not a value, range, list or step in {field.low}-{field.high}"
        values.append(found)
    _, _, days, months, _ = values
    if parts[4] == "*" and all(min(days) > _LONGEST_MONTH.get(month, 31) for month in months):
        return f"never comes: no such month has a day {min(days)}"
    return None


def timezone_mistake(name: str) -> str | None:
    """What is wrong with a time zone's name, or None."""
    # Names that mean something else on every machine.
    if name not in ("localtime", "posixrules") and _ZONE.fullmatch(name):
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
        else:
            return None
    near = difflib.get_close_matches(name[:60], zoneinfo.available_timezones(), n=1)
    hint = f"; did you mean {near[0]}?" if near else "; write one like Europe/Berlin or UTC"
    return f"{name[:60]!r} is not a time zone{hint}"


def _field_values(field: _Field, text: str) -> frozenset[int] | None:
    values: set[int] = set()
    for term in text.split(","):
        found = _term_values(field, term)
        if found is None:
            return None
        values.update(found)
    return frozenset(values)


def _term_values(field: _Field, term: str) -> range | None:
    span, slash, step_text = term.partition("/")
    step = _number(step_text) if slash else 1
    if step is None or not 1 <= step <= field.high:
        return None
    if span == "*":
        return range(field.low, field.high + 1, step)
    first_text, dash, last_text = span.partition("-")
    first = _value(field, first_text)
    # `5/15` counts on from 5 to the end of the field.
    last = _value(field, last_text) if dash else (field.high if slash else first)
    if first is None or last is None or first > last:
        return None
    return range(first, last + 1, step)


def _value(field: _Field, text: str) -> int | None:
    lowered = text.lower()
    if lowered in field.names:
        return field.names.index(lowered) + field.low
    number = _number(text)
    return number if number is not None and field.low <= number <= field.high else None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) else None
