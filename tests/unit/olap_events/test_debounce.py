"""The windows of events: a burst is one, a steady stream is cut at the longest wait, whatever the times are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mozart.olap.debounce import Debouncer

QUIET, LONGEST = 10.0, 60.0
VIEW = "mv_business_fact"


def add(debouncer: Debouncer, now: float, view: str = VIEW) -> None:
    debouncer.add(view, now, quiet=QUIET, longest=LONGEST)


def test_a_burst_is_due_once_after_its_last_event() -> None:
    debouncer = Debouncer()
    for event in range(10_000):
        add(debouncer, event / 1000)
    assert not debouncer.due(19.998)
    assert debouncer.due(20.0) == [VIEW]
    assert debouncer.close(VIEW).events == 10_000
    assert not debouncer.due(1000)


def test_a_steady_stream_is_due_after_the_longest_wait() -> None:
    debouncer = Debouncer()
    now = 0.0
    while not debouncer.due(now):
        add(debouncer, now)
        now += 1.0
    assert now == LONGEST


def test_views_wait_for_themselves_and_the_longest_waiting_comes_first() -> None:
    debouncer = Debouncer()
    add(debouncer, 0, "b")
    add(debouncer, 1, "a")
    add(debouncer, 9, "b")
    assert debouncer.due(11) == ["a"]
    assert debouncer.due(19) == ["a", "b"]


def test_a_postponed_view_stays_until_its_time() -> None:
    debouncer = Debouncer()
    add(debouncer, 0)
    debouncer.postpone(VIEW, 300)
    add(debouncer, 20)
    assert not debouncer.due(299.9) and debouncer.due(300) == [VIEW]
    assert debouncer.close(VIEW).events == 2


def test_the_time_to_the_next_end_is_never_negative() -> None:
    debouncer = Debouncer()
    assert debouncer.seconds_to_next(0) is None
    add(debouncer, 0)
    assert debouncer.seconds_to_next(4) == 6
    assert debouncer.seconds_to_next(100) == 0


@given(gaps=st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=50))
def test_no_event_waits_longer_than_the_longest_wait_and_none_is_left(gaps: list[float]) -> None:
    """Looking at every event and at every end, as the listener does."""
    debouncer, now, waiting, handled = Debouncer(), 0.0, list[float](), 0
    for gap in [*gaps, 10_000.0]:
        end = now + gap
        while debouncer.windows and debouncer.windows[VIEW].due_at <= end:
            due_at = debouncer.windows[VIEW].due_at
            assert debouncer.due(due_at) == [VIEW]
            assert due_at - min(waiting) <= LONGEST
            handled += debouncer.close(VIEW).events
            waiting.clear()
        now = end
        add(debouncer, now)
        waiting.append(now)
    handled += debouncer.close(VIEW).events
    assert handled == len(gaps) + 1
