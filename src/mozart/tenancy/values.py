"""What a resolved value may be, by its key. The same rules hold for values in the file and after resolution.

A check answers with the mistake or None, and never repeats the value.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping

from mozart.tenancy.names import identifier_mistake, namespace_mistake

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_.=-]+(?:/[A-Za-z0-9_.=-]+)*/?")
_PREFIX_LENGTH = 512


def value_mistake(key: str, value: str) -> str | None:
    """What is wrong with `value` under the dotted `key` (`source.port`, `storage.bucket`, …), or None."""
    if not value.strip():
        return "is empty"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        return "holds a line break or another control character"
    check = _CHECKS.get(key)
    return check(value) if check else None


def _port_mistake(value: str) -> str | None:
    if re.fullmatch(r"[0-9]{1,5}", value) and 0 < int(value) < 65536:
        return None
    return "must be a port number between 1 and 65535"


def _bucket_mistake(value: str) -> str | None:
    if _BUCKET.fullmatch(value) and ".." not in value:
        return None
    return "must be a bucket's name: 3 to 63 lower case letters, digits, dots and dashes"


def _prefix_mistake(value: str) -> str | None:
    parts = value.rstrip("/").split("/")
    if _PREFIX.fullmatch(value) and len(value) <= _PREFIX_LENGTH and not {".", ".."} & set(parts):
        return None
    return "must be a path like raw/acme: letters, digits, _ . = - between slashes, none in front, no '..'"


def _host_mistake(value: str) -> str | None:
    if re.search(r"[\s@?#']", value) or "://" in value:
        return "must be a host's name or address alone, without scheme, login or blanks"
    return None


_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "source.host": _host_mistake,
    "source.port": _port_mistake,
    "storage.bucket": _bucket_mistake,
    "storage.prefix": _prefix_mistake,
    "iceberg.catalog": identifier_mistake,
    "iceberg.schema": namespace_mistake,
}
