"""The commit record through what others do to a table: it neither lies nor is lost."""

from __future__ import annotations

import pytest

from mozart.lake.publish import lake_state
from tests.faults.world import World

pytestmark = pytest.mark.filterwarnings("ignore:Merge on read is not yet supported", "ignore:Delete operation did not")


def test_a_rollback_followed_by_a_foreign_commit(loaded: World) -> None:
    """The watermark goes back with the rows; the foreign commit on top does not bring the lost one back."""
    loaded.tally.cases += 1
    for number in range(3):
        loaded.change(1000 + 10 * number)
        loaded.load_exactly(compaction=None)
    late = loaded.head().record
    assert loaded.roll_back(2)
    loaded.append_foreign_rows([-1, -2])
    head = loaded.check()
    assert head.is_foreign and head.record is not None and late is not None
    assert head.record.load_id != late.load_id
    assert loaded.load_exactly().mode == "incremental"
    assert loaded.run("delete pass").rows_removed >= 2
    loaded.check()
    assert not [key for key in loaded.raw if key < 0]


@pytest.mark.parametrize("foreign", ["rows", "files"])
def test_expiry_after_a_foreign_commit(loaded: World, foreign: str) -> None:
    """All of ours expire; the watermark is restamped. Whether marts are stale is told by the version of the rows."""
    loaded.tally.cases += 1
    loaded.change(1000)
    loaded.load_exactly(compaction=None)
    ours = lake_state(loaded.head()).version
    if foreign == "rows":
        loaded.append_foreign_rows([-1])
    else:
        loaded.run("compact")
    loaded.check()
    between = lake_state(loaded.head()).version
    loaded.run("expire")
    head = loaded.check()
    assert head.table is not None and head.record is not None and len(head.table.metadata.snapshots) == 1
    assert (lake_state(head).version == ours) == (foreign == "files")
    assert (between == ours) == (foreign == "files")
    assert loaded.load_exactly().mode == "incremental"
    loaded.run("sweep")
    loaded.check_files()
    loaded.check()


def test_compaction_followed_by_expiry_and_a_sweep(loaded: World) -> None:
    """Only the compacted files stay; the next load goes on from the watermark, and knows its own load again."""
    loaded.tally.cases += 1
    loaded.change(1000)
    load_id = loaded.load_exactly(compaction=None).load_id
    assert loaded.run("compact").status == "compacted"
    assert loaded.run("expire").expired >= 2
    assert loaded.run("sweep").deleted > 0
    head = loaded.check()
    loaded.check_files()
    assert head.record is not None and head.record.names(load_id)
    loaded.change(1100)
    assert loaded.load_exactly().mode == "incremental"


def test_a_foreign_rewrite_between_loads(loaded: World) -> None:
    """Somebody's optimize has no record; the record of its ancestor holds."""
    loaded.tally.cases += 1
    loaded.change(1000)
    loaded.load_exactly(compaction=None)
    loaded.rewrite_foreign()
    assert loaded.check().is_foreign
    loaded.change(1100)
    assert loaded.load_exactly().mode == "incremental"


def test_deletes_that_a_foreign_rewrite_left_behind(loaded: World) -> None:
    """pyiceberg's overwrite keeps delete files whose data is gone: the table can be compacted all the same."""
    loaded.tally.cases += 1
    loaded.change(1000)
    loaded.load_exactly(compaction=None)
    loaded.rewrite_foreign()
    loaded.change(1100)
    loaded.load_exactly(compaction=None)
    assert loaded.run("compact").status == "compacted"
    loaded.check()
    assert loaded.run("compact").status == "not due"
