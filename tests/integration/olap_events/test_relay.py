"""The relay: every committed event reaches the stream, whatever dies; the stream stays bounded without losing any."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis

from mozart.olap.database import OlapDatabase
from mozart.olap.event_stream import EventStream
from mozart.olap.redis_server import RedisServer
from mozart.olap.relay import OutboxRelay
from mozart.services.valkey import Valkey
from tests.integration.olap_events.conftest import (
    as_input,
    emit,
    kill_connections,
    relay_all,
    relaying,
    running,
    unpublished,
    wait_until,
)

KILLED_BEFORE_COMMIT = """
import os, signal, sys
from mozart.olap.database import OlapDatabase
from mozart.olap.event_stream import EventStream
from mozart.olap.redis_server import RedisServer
from mozart.olap.relay import OutboxRelay

class Killed(EventStream):
    def publish(self, events):
        super().publish(events)
        os.kill(os.getpid(), signal.SIGKILL)

database = OlapDatabase.model_validate_json(sys.stdin.readline())
stream = Killed(RedisServer.model_validate_json(sys.stdin.readline()))
stream.ensure()
with database.connect() as connection:
    OutboxRelay(database, stream, batch=100).relay_batch(connection)
"""


def published(server: RedisServer) -> Counter[int]:
    """How often each event of the outbox stands in the stream."""
    entries = server.client().xrange("mozart:events")
    return Counter(int(fields["outbox_id"]) for _, fields in entries)


def test_every_event_is_published_once_and_marked(olap: OlapDatabase, redis_server: RedisServer) -> None:
    emit(olap, 2500)
    assert relay_all(olap, EventStream(redis_server)) == 2500
    assert unpublished(olap) == 0
    found = published(redis_server)
    assert len(found) == 2500 and set(found.values()) == {1}
    assert relay_all(olap, EventStream(redis_server)) == 0


def test_relays_side_by_side_publish_each_event_once(olap: OlapDatabase, redis_server: RedisServer) -> None:
    relays = [OutboxRelay(olap, EventStream(redis_server), batch=50, poll_seconds=0.02) for _ in range(3)]
    with running(*(relaying(relay) for relay in relays)):
        for _ in range(6):
            emit(olap, 200)
        wait_until(lambda: unpublished(olap) == 0, "all events are published")
    found = published(redis_server)
    assert len(found) == 1200 and set(found.values()) == {1}
    assert sum(relay.published for relay in relays) == 1200


@pytest.mark.faults
def test_a_relay_killed_before_its_commit_loses_nothing(olap: OlapDatabase, redis_server: RedisServer) -> None:
    emit(olap, 250)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_COMMIT],
        input=as_input(olap, redis_server),
        text=True,
        check=False,
        timeout=60,
        cwd=Path.cwd(),
        env=dict(os.environ),
    )
    assert done.returncode == -signal.SIGKILL
    assert sum(published(redis_server).values()) == 100, "the killed relay had published its batch"
    # Its transaction ends when the server notices; until then its rows are skipped.
    wait_until(lambda: relay_all(olap, EventStream(redis_server)) >= 0 and unpublished(olap) == 0, "all are published")
    found = published(redis_server)
    assert len(found) == 250 and min(found.values()) == 1, "nothing is lost"
    assert sum(found.values()) == 350, "what the killed relay had published came again"


@pytest.mark.faults
def test_a_lost_redis_is_waited_for(olap: OlapDatabase, own_valkey: Valkey, own_redis: RedisServer) -> None:
    relay = OutboxRelay(olap, EventStream(own_redis), poll_seconds=0.02)
    with running(relaying(relay)):
        emit(olap, 10)
        wait_until(lambda: unpublished(olap) == 0, "the first events are published")
        own_valkey.stop()
        emit(olap, 20)
        emit(olap, 5)
        assert unpublished(olap) == 25, "nothing is marked as published that Redis did not take"
        own_valkey.start()
        wait_until(lambda: unpublished(olap) == 0, "the relay went on")
    assert len(published(own_redis)) == 35


@pytest.mark.faults
def test_a_lost_database_is_waited_for(olap: OlapDatabase, redis_server: RedisServer) -> None:
    relay = OutboxRelay(olap, EventStream(redis_server), poll_seconds=0.02)
    with running(relaying(relay)):
        emit(olap, 10)
        wait_until(lambda: unpublished(olap) == 0, "the first events are published")
        kill_connections(olap)
        emit(olap, 10)
        wait_until(lambda: unpublished(olap) == 0, "the relay went on")
    assert len(published(redis_server)) == 20


def test_a_full_stream_leaves_the_rest_in_the_outbox(olap: OlapDatabase, redis_server: RedisServer) -> None:
    emit(olap, 3000)
    stream = EventStream(redis_server, longest=1000)
    with olap.connect() as connection:
        relay = OutboxRelay(olap, stream, batch=100)
        assert relay.drain(connection) == 900, "it stops before the bound"
        seen: set[int] = set()
        while entries := stream.read("reader", 500, 0.01):
            seen |= {int(entry.fields["outbox_id"]) for entry in entries}
            stream.acknowledge(entries)
            relay.drain(connection)
        assert relay.lag(connection).unpublished == 0
    assert len(seen) == 3000, "trimming took acknowledged entries only"
    assert stream.status().length < 1300, "the stream stays bounded"


def test_lag_is_the_age_of_the_oldest_event(olap: OlapDatabase, redis_server: RedisServer) -> None:
    relay = OutboxRelay(olap, EventStream(redis_server))
    with olap.connect() as connection:
        assert relay.lag(connection).unpublished == 0
        connection.execute(
            "INSERT INTO event_outbox (topic, payload, created_at)"
            " VALUES ('case_created', '{}', now() - interval '90 s')"
        )
        lag = relay.lag(connection)
    assert lag.unpublished == 1 and 90 <= lag.oldest_seconds < 300


def test_an_emptied_redis_gets_its_group_again(
    olap: OlapDatabase, redis_server: RedisServer, valkey: redis.Redis
) -> None:
    stream = EventStream(redis_server)
    emit(olap, 5)
    relay_all(olap, stream)
    before = stream.identity()
    valkey.flushall()
    emit(olap, 5)
    relay_all(olap, stream)
    assert len(stream.read("reader", 10, 0.01)) == 5
    assert stream.identity() != before, "the listener is told by the identity"
