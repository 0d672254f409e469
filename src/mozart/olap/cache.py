"""The cache in front of the views: a view's generation is part of every key, so a refresh invalidates by counting up.

The generation lives in PostgreSQL, with the view's state, and rises in the refresh's own transaction. Redis holds a
copy. Always in this order: commit, then `bump`. A process that dies in between leaves an old copy, which the sweep
repairs (`repair`); until then, and at the longest for the entries' time to live, readers see the view as it was.

The right way to read is `read_through`: take the generation first, then ask the database. A value is then never kept
under a generation newer than itself. Without Redis it just asks the database: the cache saves time, and fails nobody.

Pitfall: `load` must ask the primary, or a replica that has what was committed before; a lagging replica's old rows
would be kept under the new generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mozart.errors import MozartError
from mozart.olap.database import Connection
from mozart.olap.redis_server import RedisServer, answering
from mozart.olap.state import read_states

TTL_SECONDS = 3600
_SCAN = 500

# A copy only rises: of two refreshes whose bumps arrive in the wrong order, the later generation stays.
_RAISE = """
local current = tonumber(redis.call('GET', KEYS[1]))
if current and current >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
_REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class ViewCache:
    """Answers of views, kept in Redis under the view's generation."""

    def __init__(self, server: RedisServer, *, prefix: str = "mozart:view", ttl_seconds: int = TTL_SECONDS) -> None:
        self.server = server
        self.prefix = prefix
        self.ttl_seconds = ttl_seconds
        self._redis: Any = server.client()

    def close(self) -> None:
        """Give the connection back."""
        self._redis.close()

    # -- readers ------------------------------------------------------------------------------------------------

    def read_through(self, view: str, question: str, load: Callable[[], str]) -> str:
        """The answer to `question` (a statement with its values, any text) about `view`: kept, or loaded and kept."""
        try:
            generation = self.generation(view)
            key = "" if generation is None else self._entry_key(view, generation, question)
            with answering(self.server):
                kept = self._redis.get(key) if key else None
        except MozartError:
            return load()
        if kept is not None:
            return kept
        answer = load()
        if key:
            self._keep(key, answer)
        return answer

    def generation(self, view: str) -> int | None:
        """The copy of the view's generation; None when Redis has none, and then nothing may be kept."""
        with answering(self.server):
            copy = self._redis.get(self._generation_key(view))
        return int(copy) if copy is not None else None

    def _keep(self, key: str, answer: str) -> None:
        try:
            with answering(self.server):
                self._redis.set(key, answer, ex=self.ttl_seconds)
        except MozartError:
            return

    # -- after a refresh ----------------------------------------------------------------------------------------

    def bump(self, view: str, generation: int) -> bool:
        """Tell readers of a committed generation, never of one to come; False when they knew it or a later one."""
        with answering(self.server):
            return bool(self._redis.eval(_RAISE, 1, self._generation_key(view), generation))

    def clean(self, view: str, generation: int) -> int:
        """Unlink the view's entries of other generations; how many. Space only: no reader asks for them any more."""
        current = self._entry_prefix(view, generation)
        removed = 0
        with answering(self.server):
            batch: list[str] = []
            for key in self._redis.scan_iter(match=f"{self._view_prefix(view)}*", count=_SCAN):
                if not key.startswith(current):
                    batch.append(key)
                if len(batch) >= _SCAN:
                    removed += self._redis.unlink(*batch)
                    batch.clear()
            return removed + (self._redis.unlink(*batch) if batch else 0)

    # -- the sweep ----------------------------------------------------------------------------------------------

    def copies(self, views: Iterable[str]) -> dict[str, int | None]:
        """The copies as they are now. Read them *before* PostgreSQL's generations, and hand both to `repair`."""
        names = list(views)
        if not names:
            return {}
        with answering(self.server):
            values = self._redis.mget([self._generation_key(view) for view in names])
        return {view: None if value is None else int(value) for view, value in zip(names, values, strict=True)}

    def repair(self, copies: Mapping[str, int | None], generations: Mapping[str, int]) -> list[str]:
        """Make the copies what PostgreSQL says; the views whose copy was wrong.

        A copy ahead of a generation read after it can only come from a database that was put back to an earlier time:
        then the view's entries go too, for their generations will be counted again.
        """
        repaired: list[str] = []
        for view, generation in generations.items():
            copy = copies.get(view)
            if copy is None or copy < generation:
                is_repaired = self.bump(view, generation)
            elif copy > generation:
                is_repaired = self._put_back(view, copy, generation)
            else:
                continue
            if is_repaired:
                repaired.append(view)
        return repaired

    def _put_back(self, view: str, copy: int, generation: int) -> bool:
        with answering(self.server):
            is_put_back = bool(self._redis.eval(_REPLACE, 1, self._generation_key(view), copy, generation))
            keys = list(self._redis.scan_iter(match=f"{self._view_prefix(view)}*", count=_SCAN))
            if keys:
                self._redis.unlink(*keys)
        return is_put_back

    # -- names --------------------------------------------------------------------------------------------------

    def _generation_key(self, view: str) -> str:
        return f"{self.prefix}-generation:{view}"

    def _view_prefix(self, view: str) -> str:
        return f"{self.prefix}:{view}:"

    def _entry_prefix(self, view: str, generation: int) -> str:
        return f"{self._view_prefix(view)}{generation}:"

    def _entry_key(self, view: str, generation: int, question: str) -> str:
        return f"{self._entry_prefix(view, generation)}{hashlib.sha256(question.encode()).hexdigest()}"


def invalidate(cache: ViewCache, connection: Connection) -> list[str]:
    """After a commit: every copy becomes what PostgreSQL says, old entries go; the views whose copy changed.

    Looks at all views, for a refresh may have refreshed the dimensions before it. TransientError without Redis; nothing
    is lost then, the next call and every sweep do the same work.
    """
    names = [state.name for state in read_states(connection) if state.installed]
    copies = cache.copies(names)
    generations = {state.name: state.generation for state in read_states(connection) if state.name in copies}
    changed = cache.repair(copies, generations)
    for view in changed:
        cache.clean(view, generations[view])
    return changed
