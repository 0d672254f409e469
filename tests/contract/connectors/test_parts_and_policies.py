"""What every connector must do with tables read in parts, with values that do not fit, and with columns that change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mozart.connectors.base import SourceConnection
from mozart.errors import DataQualityError, MozartError, TerminalError
from mozart.tenancy.model import TableSpec
from tests.contract.connectors.bench import Bench

NOW = datetime.now(UTC).replace(microsecond=123456)
ROWS = 5000


def spec(**fields: Any) -> TableSpec:
    return TableSpec(name="big", source_schema=None, source_table="big", **fields)


def keyed(**fields: Any) -> TableSpec:
    keys: dict[str, Any] = {"primary_key": ("id",), "incremental_column": "changed_at", "mode": "incremental"}
    return spec(**{**keys, "watermark_lag_seconds": 0, **fields})


def in_parts(bench: Bench, **options: str) -> SourceConnection:
    """With parts of 1000 rows by ranges of the key, which another run can take up."""
    return bench.source.connection.model_copy(update={"options": {"chunk_rows": "1000", "chunk_by": "key", **options}})


@pytest.fixture
def big(bench: Bench) -> Bench:
    source = bench.source
    source.run(
        f"CREATE TABLE big (id {source.integer} PRIMARY KEY, name {source.key_text}, odd {source.unfit[0]}, "
        f"changed_at {source.moment})"
    )
    at = source.at(NOW - timedelta(hours=1))
    source.insert("big", [(n, f"name {n}", None, at) for n in range(ROWS)])
    source.analyze("big")
    return bench


def everything(bench: Bench) -> list[tuple[Any, ...]]:
    return bench.raw("big", "id, name", "1")


def at_source(bench: Bench) -> list[tuple[Any, ...]]:
    return bench.source.run("SELECT id, name FROM big ORDER BY 1")


def test_a_big_table_is_read_in_parts_each_row_once(big: Bench) -> None:
    if not big.source.chunks:
        pytest.skip("this source is read in one stream")
    result = big.load(keyed(), connection=in_parts(big))
    assert (result.parts, result.resumed, result.rows_committed) == (5, 0, ROWS)
    assert everything(big) == at_source(big)
    assert (result.snapshots == 1) is big.source.shares_snapshot


def test_one_stream_where_parts_are_not_wanted(big: Bench) -> None:
    assert big.load(keyed(), connection=in_parts(big, chunk_by="none")).parts == 1
    assert everything(big) == at_source(big)


def test_a_table_whose_parts_would_be_of_several_states_is_read_in_one(big: Bench) -> None:
    """Without an incremental column nothing would read again what changed between two parts."""
    if big.source.shares_snapshot:
        pytest.skip("this source has one snapshot for all parts")
    assert big.load(spec(), connection=in_parts(big, chunk_by="auto")).parts == 1
    assert big.load(spec(), connection=in_parts(big), full_refresh=True).parts == 5


def test_a_load_that_broke_off_takes_up_the_parts_that_are_landed(big: Bench) -> None:
    if not big.source.chunks:
        pytest.skip("this source is read in one stream")
    source = big.source
    _kind, unfit, fit = source.unfit
    source.run(f"UPDATE big SET odd = {unfit} WHERE id = {ROWS - 1}")
    with pytest.raises(DataQualityError, match=f"key {ROWS - 1}"):
        big.load(keyed(), connection=in_parts(big))
    source.run(f"UPDATE big SET odd = {fit} WHERE id = {ROWS - 1}")
    source.run(f"UPDATE big SET name = 'later', changed_at = {source.placeholder} WHERE id = 1",
               [(source.at(datetime.now(UTC)),)])  # fmt: skip
    result = big.load(keyed(), connection=in_parts(big))
    assert (result.parts, result.resumed, result.rows_committed) == (5, 4, ROWS)
    assert result.snapshots >= 2 and any("states of the source" in warning for warning in result.warnings)
    big.load(keyed())
    assert everything(big) == at_source(big), "what changed between the two states is read by the next load"


def test_parts_that_were_committed_are_not_taken_up_again(big: Bench) -> None:
    big.load(keyed(), connection=in_parts(big))
    big.lakehouse.catalog().drop_table((big.namespace, "big"))
    assert big.load(keyed(), connection=in_parts(big)).resumed == 0


def test_a_value_that_does_not_fit_fails_the_load_or_is_counted(big: Bench) -> None:
    source = big.source
    _kind, unfit, _fit = source.unfit
    source.run(f"UPDATE big SET odd = {unfit} WHERE id IN (7, 4000)")
    with pytest.raises(DataQualityError, match=r"test\.big.*odd.*key (7|4000)"):
        big.load(keyed())
    for options in ({}, {"connection": in_parts(big)}):
        result = big.load(keyed(unfit_values="null"), full_refresh=True, **options)
        assert result.nulled == {"odd": 2} and any("became NULL: odd: 2" in line for line in result.warnings)
        assert [row[0] for row in big.raw("big", "id", "1") if row] == list(range(ROWS))
    with pytest.raises(MozartError):
        big.load(keyed(), full_refresh=True)


def test_rows_without_a_watermark_can_be_refused(big: Bench) -> None:
    big.source.run("UPDATE big SET changed_at = NULL WHERE id = 3")
    with pytest.raises(DataQualityError, match=r"1 rows have no changed_at.*key 3"):
        big.load(keyed(null_watermarks="fail"))
    assert big.load(keyed()).rows_committed == ROWS


def test_a_new_column_is_taken_refused_or_left_out(big: Bench) -> None:
    big.load(keyed(columns=None))
    before = big.snapshots("big")
    big.source.run(f"ALTER TABLE big ADD COLUMN extra {big.source.integer}")
    with pytest.raises(TerminalError, match="schema_changes is freeze: new at the source: extra"):
        big.load(keyed(schema_changes="freeze"))
    ignored = big.load(keyed(schema_changes="ignore"))
    assert ignored.drift.added and "extra" in ignored.drift.line
    assert "extra" not in [field.name for field in big.table("big").schema().fields]
    taken = big.load(keyed())
    assert (taken.mode, taken.rows_committed) == ("full_refresh", ROWS) and "extra" in taken.drift.line
    assert "extra" in [field.name for field in big.table("big").schema().fields]
    assert not big.load(keyed()).drift, "it is told once"
    assert big.snapshots("big") > before


def test_a_column_that_went_stays_and_reads_null(big: Bench) -> None:
    big.load(keyed())
    big.source.run("ALTER TABLE big DROP COLUMN odd")
    with pytest.raises(TerminalError, match="gone from the source: odd"):
        big.load(keyed(schema_changes="freeze"))
    result = big.load(keyed())
    assert result.drift.dropped and "snapshots up to" in result.drift.line
    assert big.raw("big", "count(*), count(odd)") == [(ROWS, 0)]


def test_files_are_sorted_by_the_key_where_that_is_asked_for(big: Bench) -> None:
    source = big.source
    source.run(f"UPDATE big SET id = id + {ROWS} WHERE id < 2500")
    big.load(keyed(layout="key"), connection=in_parts(big, chunk_by="none"))
    assert [row[0] for row in big.unordered("big", "id")] == list(range(2500, ROWS + 2500))
