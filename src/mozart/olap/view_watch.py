"""The registry of a daemon that outlives changes of `views/`: read again when a file there differs.

A broken file changes nothing: the last good registry stays, and the mistake is told once. A view whose file is there
but that is not installed yet is known and left alone until `mozart olap install` was run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from mozart.errors import ConfigurationError
from mozart.olap.registry import ViewRegistry, read_views

Signature = frozenset[tuple[str, int, int]]


class ViewWatch:
    """Calling it gives the present registry. Safe to use from threads; looks at the files' times, reads on a change."""

    def __init__(self, root: Path, registry: ViewRegistry, default_schema: str, log: Callable[[str], None]) -> None:
        self._root = root
        self._registry = registry
        self._default_schema = default_schema
        self._log = log
        self._lock = threading.Lock()
        self._signature = self._look()

    def __call__(self) -> ViewRegistry:
        """The registry; the last good one while a file is broken."""
        with self._lock:
            signature = self._look()
            if signature != self._signature:
                self._signature = signature
                self._read()
            return self._registry

    def _read(self) -> None:
        try:
            self._registry = read_views(self._root, default_schema=self._default_schema)
        except ConfigurationError as error:
            self._log(f"views/ changed and cannot be read, the views before the change stay: {error}")
        else:
            self._log(f"views/ changed: {', '.join(view.name for view in self._registry.views)}")

    def _look(self) -> Signature:
        found: set[tuple[str, int, int]] = set()
        for path in (self._root / "views").glob("**/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.add((str(path), status.st_mtime_ns, status.st_size))
        return frozenset(found)
