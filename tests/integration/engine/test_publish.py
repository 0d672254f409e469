"""Candidates into the lake, without dbt: types, conflicts, a second try, and what stands for a table's rows."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import duckdb
import pytest
from pyiceberg.catalog import Catalog

from mozart.engine.duckdb import connect, create_store_secret
from mozart.errors import CommitConflictError, CommitInDoubtError, TerminalError
from mozart.lake import publish as publish_module
from mozart.lake.commit import read_head
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.publish import (
    BaseChangedError,
    Merge,
    Publication,
    Published,
    lake_state,
    publish,
    published_fingerprint,
)

Connection = duckdb.DuckDBPyConnection


@pytest.fixture
def candidates(lakehouse: Lakehouse) -> Iterator[Connection]:
    connection = connect(extensions=("httpfs",))
    create_store_secret(connection, lakehouse)
    connection.execute("CREATE TABLE mart AS SELECT range AS id, 'row ' || range AS text FROM range(10)")
    with connection:
        yield connection


class Lake:
    """Publishes to one table of a test's own namespace."""

    def __init__(self, connection: Connection, lakehouse: Lakehouse, namespace: str) -> None:
        self.connection, self.lakehouse = connection, lakehouse
        self.catalog: Catalog = lakehouse.catalog()
        self.publication = Publication(namespace, "mart_case", "mart", "run-1", "print-1")

    def publish(self, **changes: Any) -> Published:
        return publish(self.connection, self.lakehouse, self.catalog, replace(self.publication, **changes))

    def merge(self, delta: str, **changes: Any) -> Published:
        """Merge the SELECT `delta`, as if it had been computed on what is published now."""
        how = Merge(f"({delta})", ("id",), lake_state(self.head()).version or "")
        with connect(lakehouse=self.lakehouse) as cursor:
            given = {"run_id": "run-2", "fingerprint": "print-2", "merge": how, **changes}
            return publish(cursor, self.lakehouse, self.catalog, replace(self.publication, **given))

    def head(self) -> Any:
        return read_head(self.catalog, (self.publication.namespace, "mart_case"))

    def rows(self) -> list[tuple[Any, ...]]:
        with connect(lakehouse=self.lakehouse) as reader:
            return reader.execute(f"FROM lake.{self.publication.namespace}.mart_case ORDER BY ALL").fetchall()


@pytest.fixture
def lake(candidates: Connection, lakehouse: Lakehouse, namespace: str) -> Lake:
    return Lake(candidates, lakehouse, namespace)


def test_a_second_try_of_the_same_run_finds_the_first(lake: Lake) -> None:
    assert lake.publish().outcome == "committed"
    assert published_fingerprint(lake.head()) == "print-1"
    second = lake.publish()
    assert (second.outcome, second.rows) == ("already", 10)
    assert lake.publish(run_id="run-2").outcome == "committed"
    assert len(lake.head().table.metadata.snapshots) == 2


def test_every_type_arrives_as_it_was(lake: Lake) -> None:
    lake.connection.execute(
        "CREATE TABLE typed AS SELECT 1::TINYINT AS small, 2::UINTEGER AS wide, 1.50::DECIMAL(38,10) AS amount, "
        "TIMESTAMPTZ '2024-02-29 12:00:00.000001+00' AS at, DATE '1970-01-01' AS day, 'é☃' AS text, "
        "[1, NULL] AS list, {'a': 1, 'b': ['x']} AS struct, MAP {'k': 1} AS map, NULL::VARCHAR AS nothing, "
        "'ab'::BLOB AS bytes, TRUE AS yes, '3af52257-5361-4062-ba3f-49b899028a1d'::UUID AS uuid"
    )
    lake.publish(relation="typed")
    assert lake.rows() == [
        (
            1,
            2,
            decimal.Decimal("1.5000000000"),
            datetime.datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=datetime.UTC),
            datetime.date(1970, 1, 1),
            "é☃",
            [1, None],
            {"a": 1, "b": ["x"]},
            {"k": 1},
            None,
            b"ab",
            True,
            uuid.UUID("3af52257-5361-4062-ba3f-49b899028a1d"),
        )
    ]


def test_types_the_lake_does_not_have_are_all_named(lake: Lake) -> None:
    lake.connection.execute("CREATE TABLE odd AS SELECT 1::HUGEINT AS big, INTERVAL 1 DAY AS span, 1 AS fine")
    with pytest.raises(TerminalError, match=r"column big is HUGEINT; column span is INTERVAL.*cast"):
        lake.publish(relation="odd")
    assert lake.head().table is None


def test_a_lost_race_is_planned_again_on_the_new_head(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    original, heads = publish_module.replace, list[int | None]()

    def rival_first(catalog: Catalog, head: Any, *rest: Any) -> Any:
        heads.append(head.snapshot_id)
        if len(heads) == 1:
            monkeypatch.setattr(publish_module, "replace", original)
            lake.publish(run_id="rival", fingerprint="rival")
            monkeypatch.setattr(publish_module, "replace", rival_first)
            raise CommitConflictError("another writer was first")
        return original(catalog, head, *rest)

    monkeypatch.setattr(publish_module, "replace", rival_first)
    monkeypatch.setattr(publish_module, "_LONGEST_PAUSE_SECONDS", 0.0)
    assert lake.publish().outcome == "committed"
    assert heads[0] is None
    assert heads[1] is not None
    assert published_fingerprint(lake.head()) == "print-1"


def test_an_empty_candidate_empties_the_table(lake: Lake) -> None:
    lake.publish()
    lake.connection.execute("DELETE FROM mart")
    assert lake.publish(run_id="run-2", fingerprint="print-2").rows == 0
    assert lake.rows() == []


def test_an_empty_table_knows_what_it_was_built_from(lake: Lake) -> None:
    """Without a commit of its own it would look stale, and be built again, in every run."""
    lake.connection.execute("DELETE FROM mart")
    for number in (1, 2):
        assert lake.publish(run_id=f"run-{number}", fingerprint=f"print-{number}").outcome == "committed"
        assert published_fingerprint(lake.head()) == f"print-{number}"
    assert lake.rows() == []


def test_a_table_s_version_is_its_load_and_survives_maintenance(lake: Lake) -> None:
    lake.publish()
    head = lake.head()
    version = lake_state(head).version
    assert version == f"load:{head.record.load_id}"
    record = head.record.carry_forward(load_id="compaction", run_id="maintenance")
    assert lake_state(replace(head, record=record)).version == version
    # A foreign commit may have changed any row: only its snapshot says which state this is.
    assert lake_state(replace(head, is_foreign=True)).version == f"snapshot:{head.snapshot_id}"

    lake.publish(run_id="run-2")
    later = lake.head()
    assert lake_state(later).version != version
    assert lake_state(later, head.snapshot_id).version == version
    assert lake_state(later, 12345).version == lake_state(later).version
    assert published_fingerprint(replace(later, is_foreign=True)) is None


CHANGED = "SELECT id::BIGINT AS id, 'new ' || id AS text FROM unnest([3, 9, 10]) AS changed(id)"


def test_a_delta_takes_the_place_of_the_rows_with_its_keys(lake: Lake) -> None:
    lake.publish()
    merged = lake.merge(CHANGED)
    assert (merged.outcome, merged.rows, merged.merged_rows) == ("committed", 11, 3)
    kept = [(i, f"row {i}") for i in range(10) if i not in (3, 9)]
    assert lake.rows() == sorted([*kept, (3, "new 3"), (9, "new 9"), (10, "new 10")])
    nothing = lake.merge(f"{CHANGED} WHERE false", run_id="run-3", fingerprint="print-3")
    assert (nothing.outcome, nothing.rows, nothing.merged_rows) == ("committed", 11, 0)
    assert published_fingerprint(lake.head()) == "print-3"


def test_a_merge_whose_answer_was_lost_is_found(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, tries = publish_module.merge, list[str]()

    def lose_the_answer(*given: Any) -> Any:
        tries.append("merge")
        plain(*given)
        raise CommitInDoubtError("the answer was lost")

    lake.publish()
    monkeypatch.setattr(publish_module, "merge", lose_the_answer)
    monkeypatch.setattr(publish_module, "_LONGEST_PAUSE_SECONDS", 0.0)
    found = lake.merge(CHANGED)
    assert tries == ["merge"]
    assert (found.outcome, found.rows) == ("already", 11)
    assert len(lake.head().table.metadata.snapshots) == 2
    assert len(lake.rows()) == 11


def test_a_delta_is_not_merged_into_rows_that_another_run_published(lake: Lake) -> None:
    lake.publish()
    how = Merge(f"({CHANGED})", ("id",), lake_state(lake.head()).version or "")
    lake.publish(run_id="rival", fingerprint="rival")
    before = lake.head().snapshot_id
    with pytest.raises(BaseChangedError, match=r"mart_case was changed by another writer .* the next run"):
        lake.merge(CHANGED, merge=how)
    assert lake.head().snapshot_id == before


@pytest.mark.parametrize(
    ("delta", "told"),
    [
        ("SELECT 1::DOUBLE AS id, 'x' AS text", "id: long, now double"),
        ("SELECT 1::BIGINT AS id, 'x' AS text, 1 AS more", "more: none, now int"),
        ("SELECT 1::BIGINT AS id", "text: string, now none"),
    ],
    ids=["type", "more", "less"],
)
def test_a_delta_with_other_columns_asks_for_a_full_refresh(lake: Lake, delta: str, told: str) -> None:
    lake.publish()
    with pytest.raises(TerminalError, match=f"{told}.*full_refresh=true"):
        lake.merge(delta)
    assert len(lake.rows()) == 10
