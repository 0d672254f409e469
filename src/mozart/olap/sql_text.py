"""What can be said about a view's SQL by its text alone: no database, no parser.

`blank` removes comments and the insides of quoted text, so that words found in the rest are words of SQL. The second,
exact look is at the database's own parse tree when the view is installed (`mozart.olap.inspect`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_QUIET = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<tag>\$\w*\$).*?(?P=tag)|'(?:[^']|'')*'|" + r'"(?:[^"]|"")*"',
    re.DOTALL,
)
# What gives another answer tomorrow, or in another session, on the same data.
_UNSTABLE_WORDS = (
    *("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"),
    *("current_user", "session_user", "current_role", "user", "current_catalog", "current_schema"),
)
_UNSTABLE_CALLS = (
    *("now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "random"),
    *("random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "currval", "lastval", "setval"),
    *("current_setting", "set_config", "txid_current", "pg_current_xact_id", "pg_current_snapshot", "pg_sleep"),
    *("pg_backend_pid", "inet_client_addr"),
)
_UNSTABLE = re.compile(rf"\b(?:(?:{'|'.join(_UNSTABLE_CALLS)})\s*\(|(?:{'|'.join(_UNSTABLE_WORDS)})\b(?!\s*\())", re.I)
_DATE_WORDS = re.compile(r"'\s*(?:now|today|tomorrow|yesterday)\s*'", re.I)
_ACROSS_ROWS = (
    (re.compile(r"\bover\s*\(|\bover\s+\w+|\bwindow\s+\w+\s+as\s*\(", re.I), "window functions"),
    (re.compile(r"\blimit\b|\boffset\b|\bfetch\s+(?:first|next)\b", re.I), "limit, offset or fetch"),
    (re.compile(r"\btablesample\b", re.I), "tablesample"),
    (re.compile(r"\bwith\s+recursive\b", re.I), "recursion"),
    (re.compile(r"::\s*(?:float[48]?|real|double\s+precision)\b|\bas\s+(?:float[48]?|real|double\s+precision)\b", re.I),
     "floating point numbers (their sums depend on the order)"),
)  # fmt: skip


def blank(sql: str) -> str:
    """The SQL without comments and quoted text; each becomes a space, quoted text a pair of quotes."""
    return _QUIET.sub(lambda match: "''" if match.group().startswith(("'", "$")) else " ", sql)


def unstable_words(sql: str) -> list[str]:
    """Functions and words in it whose answer does not follow from the data alone."""
    found = [match.group().rstrip("( \t\n").lower() for match in _UNSTABLE.finditer(blank(sql))]
    without_comments = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    found += [match.group() for match in _DATE_WORDS.finditer(without_comments)]
    return list(dict.fromkeys(found))


def beyond_one_key(sql: str) -> Iterator[str]:
    """What the incremental strategy cannot follow, by name."""
    text = blank(sql)
    yield from (what for pattern, what in _ACROSS_ROWS if pattern.search(text))


def statement_count(sql: str) -> int:
    """How many statements the text holds; a view is exactly one."""
    return sum(1 for part in blank(sql).split(";") if part.strip())
