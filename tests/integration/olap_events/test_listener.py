"""The listener: every event that touches a view leads to a refresh, a burst to one, and no death loses any."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis

from mozart.errors import TransientError
from mozart.olap.database import OlapDatabase
from mozart.olap.event_stream import EventStream
from mozart.olap.listener import Announcement, EventListener
from mozart.olap.redis_server import RedisServer
from mozart.olap.refresh import refresh_view
from mozart.olap.registry import ViewRegistry
from mozart.olap.sweep import Handover, Sweep
from mozart.services.valkey import Valkey
from tests.integration.olap_events.conftest import (
    FACTS,
    LONGEST,
    QUIET,
    Announced,
    as_input,
    change,
    completed,
    emit,
    kill_connections,
    listening,
    relay_all,
    running,
    state_of,
    wait_until,
)
from tests.projects import PROJECT

STREAM = "mozart:events"

KILLED_BEFORE_ACKNOWLEDGING = """
import os, signal, sys
from pathlib import Path
from mozart.olap.database import OlapDatabase
from mozart.olap.event_stream import EventStream
from mozart.olap.listener import EventListener
from mozart.olap.redis_server import RedisServer
from mozart.olap.registry import read_views
import threading

class Killed(EventStream):
    def acknowledge(self, entries):
        os.kill(os.getpid(), signal.SIGKILL)

database = OlapDatabase.model_validate_json(sys.stdin.readline())
stream = Killed(RedisServer.model_validate_json(sys.stdin.readline()))
EventListener(database, read_views(Path(sys.argv[1])), stream, lambda _: None).run(threading.Event(), print)
"""


@dataclass
class Refreshing:
    """Announcements answered as production's automation does: with a refresh."""

    database: OlapDatabase
    registry: ViewRegistry

    def __post_init__(self) -> None:
        self.announced = Announced()

    def __call__(self, announcement: Announcement) -> None:
        self.announced(announcement)
        refresh_view(self.database, self.registry, announcement.view, kind="event")


@pytest.fixture
def stream(redis_server: RedisServer) -> EventStream:
    return EventStream(redis_server)


def fresh(database: OlapDatabase, *views: str) -> Callable[[], bool]:
    return lambda: not any(state_of(database, view).is_stale for view in views)


def test_a_burst_of_ten_thousand_events_is_one_refresh_a_view(
    olap: OlapDatabase, all_views: ViewRegistry, redis_server: RedisServer
) -> None:
    before = {view: completed(olap, view) for view in FACTS}
    listener = EventListener(olap, all_views, EventStream(redis_server), Refreshing(olap, all_views))
    emit(olap, 10_000, "performance_recorded")
    relay_all(olap, EventStream(redis_server))
    change(olap, seed=1)
    relay_all(olap, EventStream(redis_server))
    with running(listening(listener)):
        wait_until(lambda: listener.handled >= 10_000, "all events are handled")
        wait_until(fresh(olap, *FACTS), "the views are fresh")
    assert {view: completed(olap, view) - before[view] for view in FACTS} == dict.fromkeys(FACTS, 1)
    status = EventStream(redis_server).status()
    assert status.backlog == 0 and status.dead_letters == 0


def test_a_window_is_counted_from_the_event_but_hardly_shortened_by_an_old_one(
    olap: OlapDatabase, all_views: ViewRegistry, redis_server: RedisServer
) -> None:
    quiet = {"debounce_seconds": 1000.0, "debounce_max_wait_seconds": 2000.0}
    registry = replace(all_views, views=tuple(view.model_copy(update=quiet) for view in all_views.views))
    listener = EventListener(olap, registry, EventStream(redis_server), Announced())
    with olap.connect() as connection:
        for topic, age in (("stakeholder_admitted", 3600), ("cash_flow_entry_created", 20)):
            connection.execute(
                "INSERT INTO event_outbox (topic, payload, created_at)"
                " VALUES (%s, '{}', clock_timestamp() - make_interval(secs => %s))",
                (topic, age),
            )
    relay_all(olap, EventStream(redis_server))
    before = time.monotonic()
    with running(listening(listener)):
        wait_until(lambda: len(listener.debouncer.windows) == 2, "both windows are open")
        after = time.monotonic()
        windows = dict(listener.debouncer.windows)
    assert before - 50 <= windows["mv_business_fact"].last <= after - 50
    assert before - 50 < windows["mv_cashflow_fact"].last <= after - 20


def test_each_event_touches_its_own_views(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    announced = Announced()
    emit(olap, 1, "cash_flow_entry_created")
    relay_all(olap, EventStream(redis_server))
    with running(listening(EventListener(olap, all_views, stream, announced))):
        wait_until(lambda: bool(announced.all), "an announcement")
        emit(olap, 1, "stakeholder_admitted")
        relay_all(olap, EventStream(redis_server))
        wait_until(lambda: len(announced.all) > 1, "another announcement")
    assert [each.view for _, each in announced.all] == ["mv_cashflow_fact", "mv_business_fact"]


def test_duplicates_and_any_order_end_fresh(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    change(olap, seed=2, inserts=40, updates=40)
    relay_all(olap, EventStream(redis_server))
    client = redis_server.client()
    for _, fields in reversed(client.xrange(STREAM)):
        client.xadd(STREAM, fields)
    with running(listening(EventListener(olap, all_views, stream, Refreshing(olap, all_views)))):
        wait_until(lambda: stream_is_empty(redis_server), "all entries are acknowledged")
        wait_until(fresh(olap, *FACTS), "the views are fresh")


def stream_is_empty(server: RedisServer) -> bool:
    return EventStream(server).status().backlog == 0


def test_what_cannot_be_understood_is_put_aside_with_the_reason(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    client = redis_server.client()
    broken: list[dict[bytes | str, bytes | str]] = [
        {"topic": "case_exploded", "payload": "{}"},
        {"payload": "{}"},
        {"topic": "case_created", "payload": "{"},
        {"topic": "case_created", "payload": "[1]"},
        {"topic": b"\xff\xfe", "payload": "{}"},
        {"topic": "case_created"},
    ]
    for fields in broken:
        client.xadd(STREAM, fields)
    emit(olap, 1, "case_created")
    relay_all(olap, EventStream(redis_server))
    announced = Announced()
    with running(listening(EventListener(olap, all_views, stream, announced))):
        wait_until(lambda: bool(announced.all), "the good event behind them is announced")
    assert stream_is_empty(redis_server)
    letters = [entry.fields for entry in reversed(EventStream(redis_server).dead_letters())]
    assert len(letters) == len(broken)
    assert "unknown topic 'case_exploded'" in letters[0]["reason"] and letters[0]["topic"] == "case_exploded"
    assert "no topic" in letters[1]["reason"]
    assert all("malformed" in letter["reason"] for letter in (letters[2], letters[3], letters[5]))
    assert "unknown topic" in letters[4]["reason"]


@pytest.mark.faults
def test_a_listener_killed_before_acknowledging_loses_nothing(
    olap: OlapDatabase, all_views: ViewRegistry, redis_server: RedisServer
) -> None:
    emit(olap, 30, "performance_recorded")
    relay_all(olap, EventStream(redis_server))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_ACKNOWLEDGING, str(PROJECT)],
        input=as_input(olap, redis_server),
        text=True,
        check=False,
        timeout=60,
        cwd=Path.cwd(),
        env=dict(os.environ),
    )
    assert done.returncode == -signal.SIGKILL
    assert EventStream(redis_server).status().pending == 30, "the killed listener held the entries"
    assert state_of(olap, "mv_business_fact").dirty_since is not None, "and had marked the views before"
    announced = Refreshing(olap, all_views)
    next_one = EventListener(olap, all_views, EventStream(redis_server), announced, reclaim_idle_seconds=0.2)
    with running(listening(next_one)):
        wait_until(lambda: stream_is_empty(redis_server), "the entries are reclaimed")
        wait_until(fresh(olap, *FACTS), "the views are fresh")
    assert {each.view for _, each in announced.announced.all} == set(FACTS)


def test_an_entry_that_keeps_coming_back_is_marked_and_put_aside(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    stream.ensure()
    emit(olap, 1)
    relay_all(olap, EventStream(redis_server))
    (entry,) = stream.read("gone", 10, 0.01)
    for _ in range(5):
        redis_server.client().xclaim(STREAM, stream.group, "gone", 0, [entry.id])
    announced = Announced()
    with running(listening(EventListener(olap, all_views, stream, announced, reclaim_idle_seconds=0.1))):
        wait_until(lambda: EventStream(redis_server).status().dead_letters == 1, "it is put aside")
        wait_until(lambda: bool(announced.of("mv_cashflow_fact")), "its view is announced all the same")
    (letter,) = EventStream(redis_server).dead_letters()
    assert "never acknowledged" in letter.fields["reason"] and int(letter.fields["deliveries"]) > 5


def test_a_steady_stream_is_announced_after_the_longest_wait(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    announced = Announced()
    stream.ensure()
    began = time.monotonic()
    with running(listening(EventListener(olap, all_views, stream, announced))):
        while len(announced.of("mv_cashflow_fact")) < 2:
            assert time.monotonic() < began + 60, "a steady stream starved the view"
            emit(olap, 1)
            relay_all(olap, EventStream(redis_server))
            time.sleep(QUIET / 8)
    times = [at - began for at, each in announced.all if each.view == "mv_cashflow_fact"]
    print(f"a steady stream was announced after {times} s; the longest wait is {LONGEST} s")
    assert times[0] >= LONGEST, "quiet never came"


def test_events_wait_for_the_minimum_interval(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    interval = 2.5
    views = tuple(view.model_copy(update={"min_interval_seconds": interval}) for view in all_views.views)
    registry = replace(all_views, views=views)
    refresh_view(olap, registry, "mv_cashflow_fact", kind="incremental", force=True)
    refreshed = state_of(olap, "mv_cashflow_fact").last_refreshed_at
    assert refreshed is not None
    change(olap, seed=5)
    relay_all(olap, EventStream(redis_server))
    announced = Refreshing(olap, registry)
    with running(listening(EventListener(olap, registry, stream, announced))):
        wait_until(fresh(olap, "mv_cashflow_fact"), "the view is fresh")
    again = state_of(olap, "mv_cashflow_fact").last_refreshed_at
    assert again is not None and (again - refreshed).total_seconds() >= interval
    assert len(announced.announced.of("mv_cashflow_fact")) == 1, "it waited, and was not skipped"


def test_two_listeners_announce_a_burst_once(
    olap: OlapDatabase, all_views: ViewRegistry, redis_server: RedisServer
) -> None:
    announced = Refreshing(olap, all_views)
    listeners = [
        EventListener(olap, all_views, EventStream(redis_server), announced, consumer=f"listener-{number}")
        for number in range(2)
    ]
    before = completed(olap, "mv_cashflow_fact")
    with running(*(listening(listener) for listener in listeners)):
        for _ in range(8):
            emit(olap, 300)
            relay_all(olap, EventStream(redis_server))
        wait_until(lambda: sum(listener.handled for listener in listeners) == 2400, "all events are handled")
        wait_until(fresh(olap, "mv_cashflow_fact"), "the view is fresh")
    assert completed(olap, "mv_cashflow_fact") - before == 1


@pytest.mark.faults
def test_a_lost_and_emptied_redis_takes_every_view_for_changed(
    olap: OlapDatabase, all_views: ViewRegistry, own_valkey: Valkey, own_redis: RedisServer
) -> None:
    announced = Announced()
    listener = EventListener(olap, all_views, EventStream(own_redis), announced)
    with running(listening(listener)):
        emit(olap, 1)
        relay_all(olap, EventStream(own_redis))
        wait_until(lambda: bool(announced.of("mv_cashflow_fact")), "the first event is announced")
        refresh_view(olap, all_views, "mv_cashflow_fact", kind="event")
        emit(olap, 1)
        relay_all(olap, EventStream(own_redis))
        own_valkey.stop()
        for file in own_valkey.folder.rglob("*"):
            if file.is_file() and file.suffix != ".conf":
                file.unlink()
        own_valkey.start()
        wait_until(lambda: bool(announced.of("mv_business_fact")), "a view without events is taken for changed")
        wait_until(lambda: len(announced.of("mv_cashflow_fact")) == 2, "and the one whose event was lost")


def test_an_emptied_redis_is_noticed_by_a_listener_that_starts_later(
    olap: OlapDatabase, all_views: ViewRegistry, redis_server: RedisServer, valkey: redis.Redis
) -> None:
    with running(listening(EventListener(olap, all_views, EventStream(redis_server), Announced()))):
        wait_until(lambda: bool(EventStream(redis_server).identity().split("/")[1]), "the stream is made")
        wait_until(lambda: seen_identity(olap), "and seen")
    emit(olap, 1)
    relay_all(olap, EventStream(redis_server))
    valkey.flushall()
    relay_all(olap, EventStream(redis_server))
    announced = Announced()
    with running(listening(EventListener(olap, all_views, EventStream(redis_server), announced))):
        wait_until(lambda: {each.view for _, each in announced.all} >= set(FACTS), "every view is announced")


def seen_identity(database: OlapDatabase) -> bool:
    with database.connect() as connection:
        row = connection.execute("SELECT to_regclass('mozart.event_stream')").fetchone()
        return bool(row and row[0] and connection.execute("SELECT 1 FROM mozart.event_stream").fetchone())


@pytest.mark.faults
def test_a_lost_database_is_waited_for(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    announced = Announced()
    listener = EventListener(olap, all_views, stream, announced)
    with running(listening(listener)):
        emit(olap, 1)
        relay_all(olap, EventStream(redis_server))
        wait_until(lambda: len(announced.all) == 1, "the first event is announced")
        kill_connections(olap)
        emit(olap, 1)
        relay_all(olap, EventStream(redis_server))
        wait_until(lambda: len(announced.all) == 2, "the second event is announced")
    assert stream_is_empty(redis_server)


def test_a_fresh_view_is_not_announced(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    announced = Announced()
    listener = EventListener(olap, all_views, stream, announced)
    emit(olap, 1)
    relay_all(olap, EventStream(redis_server))
    with running(listening(listener)):
        wait_until(lambda: state_of(olap, "mv_cashflow_fact").dirty_since is not None, "the view is marked")
        refresh_view(olap, all_views, "mv_cashflow_fact", kind="incremental")
        wait_until(lambda: not listener.debouncer.windows, "the window ends")
    assert not announced.all


@pytest.mark.parametrize("failure", ["not announced", "announced and no run came"])
def test_the_sweep_does_what_no_run_did(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer, failure: str
) -> None:
    def announce(_announcement: Announcement) -> None:
        if failure == "not announced":
            raise TransientError("the Prefect API does not answer")

    handover = Handover()
    listener = EventListener(olap, all_views, stream, announce, handover=handover, grace_seconds=0.5)
    sweep = Sweep(olap, all_views, handover=handover, grace_seconds=0.5)
    before = completed(olap, "mv_cashflow_fact")
    change(olap, seed=7)
    relay_all(olap, EventStream(redis_server))
    with running(listening(listener), lambda stop: sweep.run(stop, print, seconds=0.2)):
        wait_until(lambda: listener.handled > 0, "the events are handled")
        wait_until(fresh(olap, *FACTS), "the views are fresh")
    assert completed(olap, "mv_cashflow_fact") - before == 1


def test_the_sweep_is_not_starved_by_events_when_no_run_comes(
    olap: OlapDatabase, all_views: ViewRegistry, stream: EventStream, redis_server: RedisServer
) -> None:
    """New events open new windows; a broken promise is swept all the same."""
    handover = Handover()
    listener = EventListener(olap, all_views, stream, Announced(), handover=handover, grace_seconds=0.5)
    sweep = Sweep(olap, all_views, handover=handover, grace_seconds=0.5)
    stream.ensure()
    before, end = completed(olap, "mv_cashflow_fact"), time.monotonic() + 30
    with running(listening(listener), lambda stop: sweep.run(stop, print, seconds=0.2)):
        while completed(olap, "mv_cashflow_fact") == before:
            assert time.monotonic() < end, "a steady stream starved the sweep"
            emit(olap, 1)
            relay_all(olap, EventStream(redis_server))
            time.sleep(QUIET / 4)
