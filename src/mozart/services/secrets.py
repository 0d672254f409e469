"""The stack's own secrets: made at random into `.env` on first use, and files that only their owner reads."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

STACK_SECRETS = (
    "MOZART_POSTGRES_PASSWORD",
    "MOZART_VALKEY_PASSWORD",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
)

_HEADER = "# Settings and secrets of this checkout; .env.example explains each. Never commit this file.\n"


def ensure_secrets(root: Path, names: Sequence[str] = STACK_SECRETS) -> list[str]:
    """Give each of `names` that `.env` leaves out or empty a random value; returns the names that were given one.

    Keeps every other line. The file is replaced whole, with mode 0600, under a lock: two callers agree on the values.
    """
    file = root / ".env"
    state = root / ".mozart"
    state.mkdir(parents=True, exist_ok=True)
    with (state / "env.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = file.read_text() if file.is_file() else _HEADER
        given: list[str] = []
        for name in names:
            if not re.search(rf"(?m)^\s*(?:export\s+)?{name}\s*=[ \t]*[^\s#]", text):
                text = _set(text, name, secrets.token_urlsafe(24))
                given.append(name)
        if given:
            write_private(file, text)
        elif file.stat().st_mode & 0o077:
            file.chmod(0o600)
    return given


def write_private(path: Path, text: str) -> None:
    """Write `path` whole, readable by its owner alone from the first moment."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def _set(text: str, name: str, value: str) -> str:
    empty_line = re.compile(rf"(?m)^(\s*(?:export\s+)?{name}\s*=).*$")
    if empty_line.search(text):
        return empty_line.sub(lambda match: f"{match.group(1)}{value}", text, count=1)
    return f"{text}{'' if text.endswith(chr(10)) else chr(10)}{name}={value}\n"
