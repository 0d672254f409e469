"""What this stack has started: one JSON file, written whole, and the lock that lets one command work at a time."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from mozart.errors import TransientError
from mozart.services.process import ProcessRecord


class Ledger:
    """The records of `state/stack.json`, by service. Safe to use from threads; between processes, hold `lock()`."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.file = self.state / "stack.json"
        self._guard = threading.Lock()

    def get(self, service: str) -> ProcessRecord | None:
        return self.read().get(service)

    def read(self) -> dict[str, ProcessRecord]:
        """All records; none when the file is missing or was cut short (then `down` still finds marked processes)."""
        try:
            content = cast(dict[str, Any], json.loads(self.file.read_text()))
            return {name: ProcessRecord(**fields) for name, fields in content.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    def put(self, service: str, record: ProcessRecord) -> None:
        with self._guard:
            self._write({**self.read(), service: record})

    def remove(self, service: str) -> None:
        with self._guard:
            records = self.read()
            if records.pop(service, None):
                self._write(records)

    def _write(self, records: dict[str, ProcessRecord]) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps({name: asdict(record) for name, record in records.items()}, indent=1))
        partial.replace(self.file)

    @contextmanager
    def lock(self) -> Generator[None]:
        """Hold the stack for one `up` or `down`; raises TransientError at once when another one holds it.

        The kernel frees the lock when its process dies, so a killed `up` leaves none behind.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "stack.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise TransientError(
                    f"another `mozart up` or `mozart down` (pid {holder}) is at work on {self.state}; wait for it"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
