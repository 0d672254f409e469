"""What an entry of the stream means, what a sweep leaves to others, and where Redis is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mozart.errors import ConfigurationError, TransientError
from mozart.fleet.view_events import ViewEvents, view_events_from_settings
from mozart.olap.listener import Announcement, read_event
from mozart.olap.model import View
from mozart.olap.redis_server import RedisServer, redis_from_settings
from mozart.olap.registry import ViewRegistry
from mozart.olap.state import DueView, ViewState
from mozart.olap.sweep import Handover, is_left
from mozart.settings import Settings, load_settings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def view(name: str = "mv_sales", events: tuple[str, ...] = ("sold",)) -> View:
    return View(
        name=name,
        kind="fact",
        schema_name="s",
        description="d",
        strategy="incremental",
        unique_key=("k",),
        index_name="i",
        events=events,
        min_interval_seconds=0,
        lag_target_seconds=900,
        timeout_seconds=60,
        sql="SELECT 1",
    )


REGISTRY = ViewRegistry((view(), view("mv_stock", ("sold", "delivered")), view("mv_quiet", ())))


def state(*, dirty: float | None = None, reason: str | None = None, last: datetime | None = None) -> ViewState:
    """A view whose mark is `dirty` seconds old."""
    return ViewState(
        name="mv_sales",
        strategy="incremental",
        installed=True,
        paused=False,
        dirty_since=None if dirty is None else NOW - timedelta(seconds=dirty),
        dirty_reason=reason,
        generation=1,
        row_count=1,
        last_refreshed_at=last,
        last_duration_ms=1.0,
        lag_seconds=None,
        definition_hash="h",
    )


def due(seconds: float) -> DueView:
    return DueView("mv_sales", NOW - timedelta(seconds=seconds), "")


@pytest.mark.parametrize(
    ("fields", "views", "problem"),
    [
        ({"topic": "sold", "payload": "{}"}, ["mv_sales", "mv_stock"], None),
        ({"topic": "delivered", "payload": '{"n": 1}', "created_at": "nonsense"}, ["mv_stock"], None),
        ({"topic": "stolen", "payload": "{}"}, [], "unknown topic 'stolen'"),
        ({"payload": "{}"}, [], "no topic"),
        ({"topic": "sold", "payload": "{"}, [], "no JSON"),
        ({"topic": "sold", "payload": "1"}, [], "no JSON object"),
        ({"topic": "sold"}, [], "no JSON"),
    ],
)
def test_an_entry_touches_its_views_or_says_what_is_wrong(
    fields: dict[str, str], views: list[str], problem: str | None
) -> None:
    found, _, wrong = read_event(fields, REGISTRY)
    assert [each.name for each in found] == views
    assert (problem is None and wrong is None) or (problem is not None and wrong is not None and problem in wrong)


def test_an_event_of_the_future_counts_from_now() -> None:
    _, made_at, _ = read_event({"topic": "sold", "payload": "{}", "created_at": "2999-01-01T00:00:00Z"}, REGISTRY)
    assert made_at <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("seconds", "reason", "left"),
    [
        (1, "events: 3", True),
        (69, "events: 3", True),
        (71, "events: 3", False),
        (0, "Too recent", False),
        (0, "a refresh was killed", False),
    ],
)
def test_only_what_events_may_still_bring_is_left(seconds: float, reason: str, left: bool) -> None:
    assert is_left(due(seconds), state(dirty=seconds, reason=reason), view(), 10, NOW) is left


def test_a_change_without_events_waits_for_its_own_quiet() -> None:
    assert is_left(due(9), state(), view(events=()), 10, NOW)
    assert not is_left(due(11), state(), view(events=()), 10, NOW)


def test_a_promise_is_kept_by_any_refresh_and_broken_by_time_alone() -> None:
    handover, last = Handover(), datetime.now(UTC)
    handover.promise("mv_sales", last, 60)
    assert handover.is_left(state(last=last)) is True
    assert handover.is_left(state(last=last + timedelta(seconds=1))) is None, "it was kept"
    handover.promise("mv_sales", last, 0)
    handover.open("mv_sales", 60)
    assert handover.is_left(state(last=last)) is False, "a new window does not hide the broken promise"
    handover.forget("mv_sales")
    assert handover.is_left(state(last=last)) is None


def settings(tmp_path: Path, **values: str) -> Settings:
    (tmp_path / "tenants").mkdir(exist_ok=True)
    return load_settings(tmp_path, environ=values)


def test_redis_is_the_stacks_unless_another_is_named(tmp_path: Path) -> None:
    stack = redis_from_settings(settings(tmp_path, MOZART_VALKEY_PORT="7000", MOZART_VALKEY_PASSWORD="secret"))
    assert (stack.host, stack.port, str(stack)) == ("127.0.0.1", 7000, "redis://127.0.0.1:7000/0")
    assert stack.password is not None and "secret" not in repr(stack)
    other = redis_from_settings(
        settings(tmp_path, MOZART_VALKEY_PASSWORD="secret", MOZART_REDIS_HOST="cache.example", MOZART_REDIS_TLS="1")
    )
    assert (other.host, other.password, other.tls) == ("cache.example", None, True), "not the stack's password"
    with pytest.raises(ConfigurationError, match="MOZART_REDIS_PORT"):
        redis_from_settings(settings(tmp_path, MOZART_REDIS_PORT="many"))


def test_a_login_of_prefect_goes_with_events_and_shows_nowhere(tmp_path: Path) -> None:
    events = view_events_from_settings(settings(tmp_path, PREFECT_API_KEY="pnu_key", PREFECT_API_URL="http://x/api"))
    assert events.headers == {"Authorization": "Bearer pnu_key"} and "pnu_key" not in repr(events)


def test_an_event_that_nobody_took_is_a_transient_error() -> None:
    with pytest.raises(TransientError, match="does not answer"):
        ViewEvents("http://127.0.0.1:1/api", {}).announce(Announcement("mv_sales", 1))


def test_redis_models_are_values() -> None:
    assert RedisServer(host="a") == RedisServer(host="a", port=6379)
