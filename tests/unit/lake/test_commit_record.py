"""The commit record as summary properties: nothing is lost, and what is not ours is not taken for ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mozart.lake.head import CARRIED_LOAD_ID, FINGERPRINT, CommitRecord

_texts = st.text(max_size=20)
_records = st.builds(
    CommitRecord,
    load_id=_texts,
    watermark=st.none() | _texts,
    base=st.none() | st.integers(0, 2**63 - 1),
    rows=st.integers(0, 2**40),
    run_id=_texts,
    mode=st.sampled_from(["full_refresh", "incremental", "publish", "maintenance"]),
    details=st.dictionaries(_texts, _texts, max_size=4),
)


@given(_records)
def test_a_record_comes_back_from_its_properties(record: CommitRecord) -> None:
    properties = record.to_properties()
    assert all(key.startswith("mozart.") for key in properties)
    assert CommitRecord.from_properties({"total-records": "7", **properties}) == record


@pytest.mark.parametrize(
    "broken", [{}, {"mozart.load_id": "x"}, {"mozart.rows": "many"}, {"mozart.base": "none"}], ids=str
)
def test_what_is_not_a_record_is_none(broken: dict[str, str]) -> None:
    whole = CommitRecord("id", "w", 1, 2, "run", "publish").to_properties()
    assert CommitRecord.from_properties(whole) is not None
    found = CommitRecord.from_properties(
        {**whole, **broken} if len(broken) and "mozart.load_id" not in broken else broken
    )
    assert found is None


def test_maintenance_carries_the_load_it_follows_however_often() -> None:
    record = CommitRecord("load-1", "w", 1, 5, "run-1", "incremental", {"source": "s"})
    first = record.carry_forward(load_id="m-1", run_id="run-2")
    second = first.carry_forward(load_id="m-2", run_id="run-3")
    assert (second.watermark, second.rows, second.mode, second.details["source"]) == ("w", 0, "maintenance", "s")
    assert second.names("load-1") and second.names("m-2") and not second.names("m-1")


def test_rows_that_others_changed_are_not_those_of_the_load() -> None:
    """A restamped record keeps watermark and load id; its version and fingerprint are no longer the load's."""
    record = CommitRecord("load-1", "w", 1, 5, "run-1", "publish", {FINGERPRINT: "print-1", "source": "s"})
    carried = record.carry_forward(load_id="m-1", run_id="run-2")
    restamped = carried.carry_forward(load_id="m-2", run_id="run-3", rows_changed=True)
    assert restamped.names("load-1") and restamped.watermark == "w"
    assert CARRIED_LOAD_ID not in restamped.details and FINGERPRINT not in restamped.details
    assert restamped.details["source"] == "s"
    # maintenance after it keeps the new version
    assert restamped.carry_forward(load_id="m-3", run_id="run-4").details[CARRIED_LOAD_ID] == "m-2"
