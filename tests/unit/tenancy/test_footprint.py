"""Who would write into whom: the pairs that are found are those that comparing everybody with everybody finds."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from mozart.tenancy.footprint import Footprint, meeting

WORDS = st.sampled_from(["a", "b", "ab"])
PLACES = st.builds(
    tuple[str, str, str, str, tuple[str, ...]],
    st.tuples(WORDS, WORDS, st.sampled_from(["a", "b", "ab", "c", "d"]), WORDS, st.lists(WORDS, max_size=3).map(tuple)),
)


def _meet(first: Footprint, second: Footprint) -> bool:
    shorter = min(len(first.prefix), len(second.prefix))
    same_tables = first.catalog == second.catalog or first.warehouse == second.warehouse
    return (same_tables and first.schema == second.schema) or (
        first.bucket == second.bucket and first.prefix[:shorter] == second.prefix[:shorter]
    )


@given(st.lists(PLACES, max_size=12))
def test_all_that_meet_and_no_others_are_found(places: list[tuple[str, str, str, str, tuple[str, ...]]]) -> None:
    footprints = [Footprint(f"tenant_{number:02}", *place) for number, place in enumerate(places)]
    assert meeting(footprints[::-1]) == [pair for pair in combinations(footprints, 2) if _meet(*pair)]
