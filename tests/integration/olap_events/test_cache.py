"""The cache: what a reader gets is never older than the last invalidated refresh, and no crash makes it so for long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from mozart.olap.cache import ViewCache, invalidate
from mozart.olap.database import OlapDatabase
from mozart.olap.redis_server import RedisServer
from mozart.olap.refresh import refresh_view
from mozart.olap.registry import ViewRegistry
from mozart.olap.sweep import Sweep
from mozart.services.valkey import Valkey
from tests.integration.olap_events.conftest import change, state_of

VIEW = "mv_cashflow_fact"
QUESTION = "SELECT sum(amount) FROM mv_cashflow_fact"


@pytest.fixture
def cache(redis_server: RedisServer) -> Iterator[ViewCache]:
    cache = ViewCache(redis_server)
    yield cache
    cache.close()


class Loads:
    """Counts how often the database was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return self.answers[min(self.count, len(self.answers)) - 1]


def test_an_answer_is_loaded_once_a_generation(cache: ViewCache) -> None:
    cache.bump(VIEW, 7)
    load = Loads("old", "new")
    assert [cache.read_through(VIEW, QUESTION, load) for _ in range(3)] == ["old"] * 3
    assert cache.read_through(VIEW, f"{QUESTION} LIMIT 1", lambda: "other") == "other"
    assert load.count == 1
    cache.bump(VIEW, 8)
    assert cache.read_through(VIEW, QUESTION, load) == "new" and load.count == 2


def test_an_answer_loaded_during_a_refresh_is_not_kept_for_the_next_generation(cache: ViewCache) -> None:
    """The reader asked before the commit and answers after the bump: the worst moment for it."""
    cache.bump(VIEW, 1)

    def load_while_a_refresh_commits() -> str:
        cache.bump(VIEW, 2)
        return "of generation 1"

    assert cache.read_through(VIEW, QUESTION, load_while_a_refresh_commits) == "of generation 1"
    assert cache.read_through(VIEW, QUESTION, lambda: "of generation 2") == "of generation 2"


def test_bumps_in_the_wrong_order_leave_the_later_generation(cache: ViewCache) -> None:
    assert cache.bump(VIEW, 5) and not cache.bump(VIEW, 4) and not cache.bump(VIEW, 5)
    assert cache.generation(VIEW) == 5


def test_without_a_generation_nothing_is_kept(cache: ViewCache, valkey: redis.Redis) -> None:
    load = Loads("a", "b")
    assert [cache.read_through(VIEW, QUESTION, load) for _ in range(2)] == ["a", "b"]
    assert valkey.dbsize() == 0


def test_cleaning_takes_the_entries_of_other_generations_and_views_stay(cache: ViewCache) -> None:
    for view in (VIEW, "mv_business_fact", f"{VIEW}_2"):
        cache.bump(view, 1)
        cache.read_through(view, QUESTION, lambda: "x")
    cache.bump(VIEW, 2)
    cache.read_through(VIEW, QUESTION, lambda: "y")
    assert cache.clean(VIEW, 2) == 1
    for view, answer in ((VIEW, "y"), ("mv_business_fact", "x"), (f"{VIEW}_2", "x")):
        assert cache.read_through(view, QUESTION, lambda: "loaded again") == answer


def test_entries_end_by_themselves(redis_server: RedisServer, valkey: redis.Redis) -> None:
    cache = ViewCache(redis_server, ttl_seconds=100)
    cache.bump(VIEW, 1)
    cache.read_through(VIEW, QUESTION, lambda: "x")
    (key,) = valkey.scan_iter(match=f"mozart:view:{VIEW}:*")
    assert 0 < int(valkey.ttl(key)) <= 100  # type: ignore[arg-type]


@pytest.mark.faults
def test_without_redis_readers_get_the_databases_answer(own_valkey: Valkey, own_redis: RedisServer) -> None:
    cache = ViewCache(own_redis)
    cache.bump(VIEW, 1)
    assert cache.read_through(VIEW, QUESTION, lambda: "kept") == "kept"
    own_valkey.stop()
    assert cache.read_through(VIEW, QUESTION, lambda: "asked") == "asked"


@pytest.mark.faults
def test_a_crash_between_commit_and_invalidation_is_repaired(
    olap: OlapDatabase, all_views: ViewRegistry, cache: ViewCache
) -> None:
    sweep = Sweep(olap, all_views, cache)
    assert set(sweep.run_once().repaired_copies) == {view.name for view in all_views.views}
    assert cache.read_through(VIEW, QUESTION, lambda: "before") == "before"
    change(olap, seed=3)
    refresh_view(olap, all_views, VIEW, kind="incremental")  # and the process dies before it invalidates
    assert cache.read_through(VIEW, QUESTION, lambda: "after") == "before", "the copy is behind"
    assert sweep.run_once().repaired_copies == (VIEW,)
    assert cache.read_through(VIEW, QUESTION, lambda: "after") == "after"
    assert sweep.run_once().repaired_copies == ()


@pytest.mark.faults
def test_a_lost_redis_gets_every_generation_again(
    olap: OlapDatabase, all_views: ViewRegistry, cache: ViewCache, valkey: redis.Redis
) -> None:
    Sweep(olap, all_views, cache).run_once()
    valkey.flushall()
    assert len(Sweep(olap, all_views, cache).run_once().repaired_copies) == len(all_views.views)
    assert cache.generation(VIEW) == state_of(olap, VIEW).generation


def test_a_database_put_back_in_time_takes_the_copies_with_it(
    olap: OlapDatabase, all_views: ViewRegistry, cache: ViewCache
) -> None:
    """Its generations will be counted again, for other data: what was kept under them must not be found."""
    Sweep(olap, all_views, cache).run_once()
    generation = state_of(olap, VIEW).generation
    cache.bump(VIEW, generation + 1)
    assert cache.read_through(VIEW, QUESTION, lambda: "of a future that was undone") == "of a future that was undone"
    with olap.connect() as connection:
        assert invalidate(cache, connection) == [VIEW]
    assert cache.generation(VIEW) == generation
    cache.bump(VIEW, generation + 1)
    assert cache.read_through(VIEW, QUESTION, lambda: "of today") == "of today"
