"""The Redis stream between the outbox and the listeners, as a small interface over one consumer group.

Delivery is at least once: an entry is kept until it is acknowledged, and what a dead listener held is claimed by
another one. The stream is bounded by its readers' pace: `backlog` tells how much nobody has taken care of yet, and the
relay waits when that comes near the bound, so trimming takes entries only that were acknowledged.

Does not decide what an event means (`mozart.olap.listener`), nor read the outbox (`mozart.olap.relay`).

Pitfall: Redis may lose what it acknowledged (a restart, a failover, FLUSHALL). `identity` changes when that may have
happened; the listener then takes every view for changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from mozart.olap.redis_server import RedisServer, answering

STREAM = "mozart:events"
GROUP = "olap"
LONGEST = 100_000
"""How many entries the stream keeps, some 25 MB; the outbox in PostgreSQL holds what does not fit."""

# One command of many values: as a thousand commands, the client would spend its time on writing them.
_PUBLISH = """
for i = 2, #ARGV, 4 do
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
        'topic', ARGV[i], 'payload', ARGV[i + 1], 'outbox_id', ARGV[i + 2], 'created_at', ARGV[i + 3])
end
"""
_DEAD_LETTERS = 10_000
_FORGOTTEN_SECONDS = 3600.0


@dataclass(frozen=True)
class OutboxEvent:
    """One row of the outbox. `payload` is JSON text, `created_at` an ISO time."""

    id: int
    topic: str
    payload: str
    created_at: str


@dataclass(frozen=True)
class Entry:
    """One entry of the stream. `deliveries` counts how often a listener was given it, this time included."""

    id: str
    fields: Mapping[str, str]
    deliveries: int = 1


@dataclass(frozen=True)
class StreamStatus:
    """Entries in the stream, not yet given to a listener, given but not acknowledged, and dead letters."""

    length: int
    undelivered: int
    pending: int
    dead_letters: int

    @property
    def backlog(self) -> int:
        return self.undelivered + self.pending


class EventStream:
    """The stream `name`, its group of listeners and its dead letters. Not for use by several threads at once."""

    def __init__(self, server: RedisServer, *, name: str = STREAM, group: str = GROUP, longest: int = LONGEST) -> None:
        self.server = server
        self.name = name
        self.group = group
        self.longest = longest
        self._redis = server.client()

    @property
    def dead_letter_stream(self) -> str:
        return f"{self.name}:dead"

    @property
    def _epoch_key(self) -> str:
        return f"{self.name}:epoch"

    def close(self) -> None:
        """Give the connection back."""
        self._redis.close()

    def ensure(self) -> None:
        """Make the stream and its group unless they are there. A group reads from the stream's first entry."""
        with answering(self.server):
            self._redis.set(self._epoch_key, secrets.token_hex(8), nx=True)
            try:
                self._redis.xgroup_create(self.name, self.group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def identity(self) -> str:
        """What stays the same as long as the server cannot have lost entries: its process and the stream's making."""
        with answering(self.server):
            run_id = self._redis.info("server").get("run_id", "")
            return f"{run_id}/{self._redis.get(self._epoch_key) or ''}"

    # -- writing ------------------------------------------------------------------------------------------------

    def publish(self, events: Sequence[OutboxEvent]) -> None:
        """Append the events in one round trip, all or none. TransientError when it is not known that they arrived."""
        with answering(self.server):
            values = [value for event in events for value in (event.topic, event.payload, event.id, event.created_at)]
            self._redis.eval(_PUBLISH, 1, self.name, self.longest, *values)

    def backlog(self) -> int:
        """Entries that a group has not acknowledged; of several groups, the slowest one's."""
        with answering(self.server):
            try:
                groups = self._redis.xinfo_groups(self.name)
            except redis.ResponseError as error:  # no such key: lost, and made again by the next `ensure`
                if "no such key" in str(error):
                    return 0
                raise
            return max((self._unhandled(group) for group in groups), default=0)

    def _unhandled(self, group: Mapping[str, Any]) -> int:
        """A group's lag is unknown to the server after entries were deleted by hand: then it may be everything."""
        lag = group.get("lag")
        return int(group["pending"]) + int(self._redis.xlen(self.name) if lag is None else lag)

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, consumer: str, count: int, block_seconds: float) -> list[Entry]:
        """New entries, waiting up to `block_seconds` for the first. NoGroupError when the group is gone."""
        with answering(self.server):
            try:
                found = self._redis.xreadgroup(
                    self.group, consumer, {self.name: ">"}, count=count, block=max(1, int(block_seconds * 1000))
                )
            except redis.ResponseError as error:
                if "NOGROUP" in str(error):
                    return self._made_again()
                raise
        return [Entry(entry_id, fields or {}) for _, entries in found or () for entry_id, fields in entries]

    def _made_again(self) -> list[Entry]:
        self.ensure()
        return []

    def reclaim(self, consumer: str, idle_seconds: float, count: int) -> list[Entry]:
        """Entries that another listener was given at least `idle_seconds` ago and did not acknowledge."""
        with answering(self.server):
            idle = int(idle_seconds * 1000)
            answer = self._redis.xautoclaim(self.name, self.group, consumer, min_idle_time=idle, count=count)
            claimed = [(entry_id, fields) for entry_id, fields in answer[1] if fields is not None]
            if not claimed:
                return []
            ids = [entry_id for entry_id, _ in claimed]
            pending = self._redis.xpending_range(
                self.name, self.group, min=ids[0], max=ids[-1], count=len(ids) + count, consumername=consumer
            )
        deliveries = {item["message_id"]: int(item["times_delivered"]) for item in pending}
        return [Entry(entry_id, fields, deliveries.get(entry_id, 1)) for entry_id, fields in claimed]

    def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Say that these entries are taken care of; they are never given out again."""
        if not entries:
            return
        with answering(self.server):
            self._redis.xack(self.name, self.group, *(entry.id for entry in entries))

    def dead_letter(self, entry: Entry, reason: str) -> None:
        """Put the entry aside with the reason, and acknowledge it, both or neither."""
        with answering(self.server):
            pipeline = self._redis.pipeline(transaction=True)
            fields = {**entry.fields, "reason": reason, "entry": entry.id, "deliveries": entry.deliveries}
            pipeline.xadd(self.dead_letter_stream, fields, maxlen=_DEAD_LETTERS, approximate=True)
            pipeline.xack(self.name, self.group, entry.id)
            pipeline.execute()

    def dead_letters(self, count: int = 100) -> list[Entry]:
        """The newest dead letters, newest first; their field `reason` says why."""
        with answering(self.server):
            return [Entry(key, fields) for key, fields in self._redis.xrevrange(self.dead_letter_stream, count=count)]

    def retire(self, consumer: str) -> None:
        """Forget this listener if it holds nothing, and others that hold nothing and were not seen for an hour."""
        with answering(self.server):
            for item in self._redis.xinfo_consumers(self.name, self.group):
                is_gone = item["name"] == consumer or item["idle"] > _FORGOTTEN_SECONDS * 1000
                if is_gone and not item["pending"]:
                    self._redis.xgroup_delconsumer(self.name, self.group, item["name"])

    # -- several listeners --------------------------------------------------------------------------------------

    def claim_turn(self, view: str, seconds: float) -> bool:
        """Whether this listener is the one to announce `view` within the next `seconds`."""
        with answering(self.server):
            return bool(self._redis.set(f"{self.name}:turn:{view}", "1", nx=True, px=int(seconds * 1000)))

    def status(self) -> StreamStatus:
        """How far the listeners are, in entries."""
        with answering(self.server):
            length = int(self._redis.xlen(self.name))
            dead = int(self._redis.xlen(self.dead_letter_stream))
            groups = [item for item in self._redis.xinfo_groups(self.name) if item["name"] == self.group]
        group: Mapping[str, Any] = groups[0] if groups else {"lag": length, "pending": 0}
        lag = group.get("lag")
        return StreamStatus(length, length if lag is None else int(lag), int(group["pending"]), dead)
