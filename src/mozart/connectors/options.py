"""The options under `source.options` of tenant.yaml: what each kind of source takes, and what a value may be.

Plain data, so that `mozart validate` can judge a tenant without importing a driver. A connector's constructor judges
the resolved values once more. Adding one: a line here, a line in `docs/guides/source-options.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, cast

Check = Callable[[str], str | None]
ChunkBy = Literal["auto", "key", "place", "none"]

_DURATION = re.compile(r"([1-9][0-9]{0,6})(ms|s|min|h|d)?", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class ReadLimits:
    """How much of a source one run may take at once.

    `max_connections`: connections that read at the same time, for all tables together; the one that holds the snapshot
    comes on top. `chunk_rows`: a table of more than twice as many rows is read in parts of about this size.
    `chunk_by`: `key` (ranges of a key), `place` (ranges of pages, PostgreSQL), `none` (one stream), `auto`.
    `snapshot_age`: after it the snapshot is let go, and tables begun later are read in a new one.
    """

    max_connections: int = 4
    chunk_rows: int = 1_000_000
    chunk_by: ChunkBy = "auto"
    snapshot_age: timedelta = timedelta(hours=2)

    @classmethod
    def of(cls, options: Mapping[str, str]) -> ReadLimits:
        """The limits that checked `options` give."""
        default = cls()
        age = options.get("snapshot_age")
        return cls(
            max_connections=int(options.get("max_connections", default.max_connections)),
            chunk_rows=int(options.get("chunk_rows", default.chunk_rows)),
            chunk_by=cast(ChunkBy, options.get("chunk_by", default.chunk_by)),
            snapshot_age=duration(age) if age else default.snapshot_age,
        )


def duration(text: str) -> timedelta:
    """`90`, `90s`, `15min`, `2h`, `1d` as a duration; without a unit it is seconds. ValueError for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"not a duration: {text!r}")
    return timedelta(seconds=int(found.group(1)) * _UNITS[found.group(2) or "s"])


def option_names(kind: str) -> frozenset[str]:
    """What a source of this kind takes; the common options alone for a kind nobody registered."""
    return frozenset({*COMMON, *_OWN.get(kind, {})})


def option_mistake(kind: str, name: str, value: str) -> str | None:
    """What is wrong with the value of a known option, or None; never repeats the value of one it does not know."""
    check = _OWN.get(kind, {}).get(name) or COMMON.get(name)
    return check(value) if check else None


def option_takes_null(kind: str, name: str) -> bool:
    """Whether the word `null` is one of the option's values, which YAML needs to be told."""
    return name in _OWN.get(kind, {}) and _OWN[kind][name]("null") is None and _OWN[kind][name]("?") is not None


def _whole(low: int, high: int) -> Check:
    def check(value: str) -> str | None:
        if re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) and low <= int(value) <= high:
            return None
        return f"is {value[:40]!r}; give a whole number from {low} to {high}"

    return check


def _one_of(*allowed: str) -> Check:
    def check(value: str) -> str | None:
        return None if value in allowed else f"is {value[:40]!r}; it takes {', '.join(allowed)}"

    return check


def _lasting(value: str) -> str | None:
    if _DURATION.fullmatch(value):
        return None
    return f"is {value[:40]!r}; give a duration such as 90s, 15min or 2h"


def _path(value: str) -> str | None:
    return None if value.strip() else "is empty; give the path of a file on the worker's machine"


COMMON: Mapping[str, Check] = {
    "max_connections": _whole(1, 64),
    "chunk_rows": _whole(1000, 1_000_000_000),
    "chunk_by": _one_of("auto", "key", "place", "none"),
    "snapshot_age": _lasting,
}
"""What every kind of source takes; see `ReadLimits`."""

_SECONDS = _whole(1, 7 * 86_400)

_OWN: Mapping[str, Mapping[str, Check]] = {
    "postgresql": {
        "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        "sslrootcert": _path,
        "sslcert": _path,
        "sslkey": _path,
        "statement_timeout": _lasting,
        "connect_timeout": _SECONDS,
    },
    "mysql": {
        "ssl_mode": _one_of("disabled", "preferred", "required", "verify_ca", "verify_identity"),
        "ssl_ca": _path,
        "ssl_cert": _path,
        "ssl_key": _path,
        "statement_timeout": _SECONDS,
        "connect_timeout": _SECONDS,
        "zero_dates": _one_of("fail", "null"),
    },
    "sqlite": {"busy_timeout": _whole(0, 3600), "copy_folder": _path},
    "sqlserver": {
        "encryption": _one_of("off", "request", "require"),
        "isolation": _one_of("snapshot", "read_committed"),
        "statement_timeout": _SECONDS,
        "connect_timeout": _SECONDS,
    },
    "oracle": {"statement_timeout": _SECONDS, "connect_timeout": _SECONDS},
}
