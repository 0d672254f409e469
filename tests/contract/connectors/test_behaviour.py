"""What every connector must do, through the load engine into the real lake. A new connector joins in `conftest.py`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mozart.connectors.base import TableRead
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.errors import MozartError, TerminalError, TransientError
from mozart.services.ports import find_free_ports
from mozart.tenancy.model import TableSpec
from tests.contract.connectors.bench import Bench

NOW = datetime.now(UTC).replace(microsecond=123456)
HOSTILE = (
    "'; DROP TABLE people; --",
    "\\",
    "\\' OR 1=1 --",
    "' OR ''='",
    '" OR "1"="1',
    "`; --",
    "%s ? :1 $1 {x}",
    "Größe 漢字 🎻",
    "",
    " trailing ",
    "0",
    "line\nbreak\ttab",
)


def spec(table: str = "people", **fields: Any) -> TableSpec:
    return TableSpec(name=fields.pop("name", table.lower()), source_schema=None, source_table=table, **fields)


def incremental(table: str = "people", **fields: Any) -> TableSpec:
    # The suite has no transaction left open, so a source that cannot see them may be trusted at once.
    keys = {"primary_key": ("id",), "incremental_column": "changed_at", "mode": "incremental"}
    return spec(table, **{**keys, "watermark_lag_seconds": 0, **fields})


@pytest.fixture
def apart(bench: Bench) -> None:
    """For tests of incremental loads and of what they rest on."""
    if not bench.source.tells_tables_apart:
        pytest.skip("this source is read in full whenever it was written")


@pytest.fixture
def people(bench: Bench) -> Bench:
    source = bench.source
    source.run(
        f"CREATE TABLE people (id {source.integer} PRIMARY KEY, name {source.text}, "
        f"customer {source.key_text}, changed_at {source.moment})"
    )
    source.insert("people", [person(source, n) for n in range(1, 101)])
    return bench


def person(source: Any, number: int, name: str | None = None, seconds: int = -3600) -> tuple[Any, ...]:
    at = source.at(NOW + timedelta(seconds=seconds + number))
    return (number, name or f"näme {number}", "abc"[number % 3], at)


def first_loads(bench: Bench, table: TableSpec) -> None:
    """The loads until there is a watermark: one for times, two for what only has an order."""
    for _ in range(1 if bench.source.has_times and table.incremental_column == "changed_at" else 2):
        result = bench.load(table)
    assert result.watermark is not None


def names(bench: Bench) -> list[tuple[Any, ...]]:
    return bench.raw("people", "id, name", "1")


def expected(bench: Bench) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in bench.source.run("SELECT id, name FROM people ORDER BY 1")]


def test_a_full_refresh_replaces_and_an_equal_one_commits_nothing(people: Bench) -> None:
    first = people.load(spec())
    assert (first.status, first.mode, first.rows_read, first.rows_committed) == ("committed", "full_refresh", 100, 100)
    assert names(people) == expected(people)
    assert people.load(spec()).status == "unchanged"
    people.source.run("DELETE FROM people WHERE id > 50")
    people.source.run("UPDATE people SET name = 'other' WHERE id = 7")
    assert people.load(spec()).rows_committed == 50
    assert names(people) == expected(people)
    assert people.snapshots("people") == 2


@pytest.mark.usefixtures("apart")
def test_an_incremental_load_reads_only_changes(people: Bench) -> None:
    first_loads(people, incremental())
    before = people.snapshots("people")
    people.source.run("DELETE FROM people WHERE id IN (1, 2)")
    people.source.insert("people", [person(people.source, n, "new", -1000) for n in (1, 2, 200)])
    second = people.load(incremental())
    assert (second.status, second.mode) == ("committed", "incremental"), second
    assert (second.rows_read, second.rows_committed, second.rows_replaced) == (3, 3, 2)
    assert names(people) == expected(people)
    third = people.load(incremental())
    again = 0 if people.source.has_times else 3  # read from the older watermark once more
    assert (third.status, third.rows_read, people.snapshots("people")) == ("unchanged", again, before + 1)


@pytest.mark.usefixtures("apart")
def test_rows_without_a_watermark_are_read_every_time(people: Bench) -> None:
    first_loads(people, incremental())
    people.source.insert("people", [(300, "no time", "a", None)])
    assert people.load(incremental()).rows_committed == 1
    assert people.load(incremental()).status == "unchanged"
    people.source.run("UPDATE people SET name = 'changed' WHERE id = 300")
    assert people.load(incremental()).rows_replaced == 1
    assert names(people) == expected(people)


@pytest.mark.usefixtures("apart")
def test_an_integer_can_be_the_watermark(people: Bench) -> None:
    by_id = incremental(incremental_column="id")
    assert [people.load(by_id).watermark for _ in range(2)] == [None, "100"], "it takes two loads to be sure of one"
    people.source.insert("people", [person(people.source, 101)])
    third = people.load(by_id)
    assert (third.mode, third.rows_read, third.rows_committed) == ("incremental", 1, 1)
    assert names(people) == expected(people)


@pytest.mark.usefixtures("apart")
def test_a_backfill_reads_its_window(people: Bench) -> None:
    by_id = incremental(incremental_column="id")
    first_loads(people, by_id)
    people.source.run("UPDATE people SET name = 'silently' WHERE id = 10")
    result = people.load(by_id, since="9", until="12")
    assert (result.mode, result.rows_read, result.rows_committed) == ("backfill", 3, 1)
    assert names(people) == expected(people)


@pytest.mark.usefixtures("apart")
def test_a_dry_run_counts_and_commits_nothing(people: Bench) -> None:
    planned = people.load(incremental(), dry_run=True)
    assert (planned.status, planned.rows_read) == ("planned", 100)
    first_loads(people, incremental())
    before = people.snapshots("people")
    people.source.insert("people", [person(people.source, 101, seconds=-500)])
    planned = people.load(incremental(), dry_run=True)
    assert (planned.mode, planned.rows_read, people.snapshots("people")) == ("incremental", 1, before)


def test_a_filter_and_a_column_subset(people: Bench) -> None:
    chosen = spec(columns=("id", "customer"))
    assert people.load(chosen, equals={"customer": "a"}).rows_committed == 33
    assert people.raw("people") == [(n, "a") for n in range(3, 100, 3)]
    assert people.load(chosen, equals={"customer": "A"}).rows_read == 0, "equal is equal, whatever the collation"


def test_a_filter_on_a_number_takes_its_digits_and_nothing_else(people: Bench) -> None:
    assert people.load(spec(), equals={"id": "7"}).rows_committed == 1
    people.source.insert("people", [(0, "zero", "a", None)])
    for value in ("abc", "0 OR 1=1", "7; --"):
        try:
            assert people.load(spec(), equals={"id": value}).rows_read == 0, value
        except MozartError as error:
            assert "people" in str(error)


def test_hostile_filter_values_are_values(people: Bench) -> None:
    people.source.insert("people", [(1000 + n, "hostile", value, None) for n, value in enumerate(HOSTILE)])
    connector = create_connector(people.source.connection)
    with (
        connector.open() as reader,
        connect(extensions=connector.extensions, extension_folder=people.extensions) as duck,
    ):
        reader.attach(duck)
        table = reader.describe(None, "people")
        for number, value in enumerate(HOSTILE):
            cursor = duck.cursor()
            reader.begin(cursor)
            relation = reader.relation(cursor, TableRead(table, table.columns, {"customer": value}))
            found = cursor.execute(f"SELECT id, customer FROM {relation}").fetchall()
            assert found == [(1000 + number, value)], value
    assert people.load(spec(), equals={"customer": HOSTILE[0]}).rows_committed == 1
    assert people.load(spec()).rows_committed == 100 + len(HOSTILE)


def test_an_empty_table_is_there_and_takes_its_first_row(bench: Bench) -> None:
    source = bench.source
    source.run(f"CREATE TABLE people (id {source.integer} PRIMARY KEY, name {source.text}, changed_at {source.moment})")
    bench.load(incremental())
    assert bench.raw("people") == []
    bench.source.insert("people", [(1, "one", source.at(datetime.now(UTC)))])
    bench.load(incremental())
    assert names(bench) == [(1, "one")]


def test_a_table_without_a_key_keeps_its_duplicates(bench: Bench) -> None:
    bench.source.run(f"CREATE TABLE plain (a {bench.source.integer}, b {bench.source.text})")
    bench.source.insert("plain", [(1, "x"), (1, "x"), (2, None)])
    assert bench.load(spec("plain")).rows_committed == 3
    assert bench.load(spec("plain")).status == "unchanged"
    assert bench.raw("plain") == [(1, "x"), (1, "x"), (2, None)]


@pytest.mark.usefixtures("apart")
def test_a_composite_key_merges_by_all_its_parts(bench: Bench) -> None:
    source = bench.source
    source.run(
        f"CREATE TABLE rows_of (branch {source.key_text}, no {source.integer}, name {source.text}, "
        f"changed_at {source.moment}, PRIMARY KEY (branch, no))"
    )
    old, new = (source.at(NOW + timedelta(seconds=s)) for s in (-3600, -600))
    source.insert("rows_of", [("x", 1, "x1", old), ("x", 2, "x2", old), ("y", 1, "y1", old)])
    keyed = incremental("rows_of", primary_key=("branch", "no"))
    first_loads(bench, keyed)
    source.run("DELETE FROM rows_of WHERE branch = 'y'")
    source.insert("rows_of", [("y", 1, "y1 new", new)])
    result = bench.load(keyed)
    assert (result.mode, result.rows_committed, result.rows_replaced) == ("incremental", 1, 1)
    assert bench.raw("rows_of", "branch, no, name") == [("x", 1, "x1"), ("x", 2, "x2"), ("y", 1, "y1 new")]


def test_the_newest_row_of_a_key_that_the_source_does_not_keep_unique(bench: Bench) -> None:
    source = bench.source
    source.run(f"CREATE TABLE people (id {source.integer}, name {source.text}, changed_at {source.moment})")
    old, new = (source.at(NOW + timedelta(seconds=s)) for s in (-3600, -600))
    source.insert("people", [(1, "new", new), (1, "old", old), (2, "two", old)])
    bench.load(incremental())
    assert names(bench) == [(1, "new"), (2, "two")]


def test_quoted_reserved_and_non_ascii_names(bench: Bench) -> None:
    source = bench.source
    columns = ["select", "Größe", "with space", 'dou"ble', "back`tick", "semi;colon", "per%cent", "漢字"]
    declared = ", ".join(f"{source.quote(name)} {source.integer}" for name in columns)
    source.run(f"CREATE TABLE {source.quote('Örder of')} ({declared})".replace("%%", "%"))
    source.insert("Örder of", [tuple(range(len(columns)))])
    bench.load(spec("Örder of", name="orders"))
    with connect(lakehouse=bench.lakehouse) as lake:
        result = lake.execute(f'SELECT * FROM lake."{bench.namespace}".orders')
        assert [column[0] for column in result.description or []] == [name.lower() for name in columns]
        assert result.fetchall() == [tuple(range(len(columns)))]


def test_a_wide_table(bench: Bench) -> None:
    source = bench.source
    declared = ", ".join(f"c{n} {source.integer if n % 2 else source.key_text}" for n in range(500))
    if source.connection.type == "mysql":
        declared = declared.replace("VARCHAR(100)", "VARCHAR(5)")  # a row must fit half a page of 16 KB
    source.run(f"CREATE TABLE wide ({declared})")
    row = tuple(n if n % 2 else f"v{n}" for n in range(500))
    source.insert("wide", [row, (None,) * 500])
    bench.load(spec("wide"))
    assert bench.raw("wide", order="c1 NULLS LAST") == [row, (None,) * 500]


def test_long_text_and_nulls(bench: Bench) -> None:
    source = bench.source
    source.run(f"CREATE TABLE notes (id {source.integer} PRIMARY KEY, note {source.text}, n {source.integer})")
    long = "größe 🎻\n" * 120_000
    assert len(long.encode()) > 1_000_000
    source.insert("notes", [(1, long, None), (2, "", 0), (3, None, None)])
    bench.load(spec("notes"))
    assert bench.raw("notes") == [(1, long, None), (2, "", 0), (3, None, None)]


def test_more_rows_than_one_batch(bench: Bench) -> None:
    source = bench.source
    source.run(f"CREATE TABLE many (id {source.integer}, name {source.key_text})")
    source.insert("many", [(n, f"name {n}") for n in range(5000)])
    assert bench.load(spec("many")).rows_committed == 5000
    assert bench.raw("many", "count(DISTINCT id), sum(id), count(DISTINCT name)") == [(5000, 12_497_500, 5000)]


def test_a_missing_table_and_a_missing_column_are_named(people: Bench) -> None:
    with pytest.raises(TerminalError, match="nobody does not exist"):
        people.load(spec("nobody"))
    with pytest.raises(TerminalError, match="no column nothing"):
        people.load(spec(columns=("id", "nothing")))
    with pytest.raises(TerminalError, match="no column nothing"):
        people.load(spec(), equals={"nothing": "x"})


def test_a_table_made_anew_means_a_full_refresh(people: Bench) -> None:
    people.load(incremental())
    people.source.run("CREATE TABLE copy AS SELECT * FROM people WHERE id <= 10")
    people.source.run("DROP TABLE people")
    if people.source.connection.type == "mysql":
        people.source.run("SELECT SLEEP(1.1)")  # its only trace is a time in whole seconds
    source = people.source
    source.run(
        f"CREATE TABLE people (id {source.integer} PRIMARY KEY, name {source.text}, "
        f"customer {source.key_text}, changed_at {source.moment})"
    )
    source.run("INSERT INTO people SELECT * FROM copy")
    result = people.load(incremental())
    assert result.mode == "full_refresh" and result.reason and "made anew" in result.reason
    assert names(people) == expected(people)


@pytest.mark.usefixtures("apart")
def test_a_table_that_did_not_change_keeps_its_identity(people: Bench) -> None:
    connector = create_connector(people.source.connection)
    identities: list[str] = []
    for number in range(200, 203):
        with connector.open() as reader:
            identities.append(reader.describe(None, "people").identity)
        people.source.insert("people", [person(people.source, number)])
    assert len(set(identities)) == 1 and identities[0]


def test_a_table_is_described_with_its_keys(people: Bench) -> None:
    with create_connector(people.source.connection).open() as reader:
        table = reader.describe(None, "people")
    assert table.unique_keys == (frozenset({"id"}),)
    assert [column.name for column in table.columns] == ["id", "name", "customer", "changed_at"]


def test_the_position_says_what_the_source_can_tell(people: Bench) -> None:
    before = datetime.now(UTC)
    with create_connector(people.source.connection).open() as reader:
        position = reader.position
    assert abs((position.asked_at - before).total_seconds()) < 60
    assert position.sees_transactions is people.source.sees_transactions
    assert position.shared_snapshot is people.source.shares_snapshot


def test_tables_of_one_run_are_read_as_of_its_start(people: Bench, tmp_path: Path) -> None:
    if not people.source.shares_snapshot or people.source.connection.type == "duckdb":
        pytest.skip("this source has no snapshot that outlives a write")
    connector = create_connector(people.source.connection)
    with connector.open() as reader, connect(extensions=connector.extensions, extension_folder=tmp_path) as duck:
        reader.attach(duck)
        people.source.run("DELETE FROM people")
        cursor = duck.cursor()
        reader.begin(cursor)
        table = reader.describe(None, "people")
        relation = reader.relation(cursor, TableRead(table, table.columns))
        assert cursor.execute(f"SELECT count(*) FROM {relation}").fetchall() == [(100,)]


def test_tables_are_read_from_several_threads_at_once(bench: Bench) -> None:
    source = bench.source
    for number in range(4):
        source.run(f"CREATE TABLE t{number} (id {source.integer}, name {source.key_text})")
        source.insert(f"t{number}", [(n, f"{number}/{n}") for n in range(3000)])
    connector = create_connector(source.connection)
    with (
        connector.open() as reader,
        connect(extensions=connector.extensions, extension_folder=bench.extensions) as duck,
        ThreadPoolExecutor(4) as threads,
    ):
        reader.attach(duck)

        def read(number: int) -> tuple[Any, ...]:
            table = reader.describe(None, f"t{number}")
            with duck.cursor() as cursor:
                reader.begin(cursor)
                relation = reader.relation(cursor, TableRead(table, table.columns))
                return cursor.execute(f"SELECT count(DISTINCT id), min(name), max(name) FROM {relation}").fetchall()[0]

        found = list(threads.map(read, [0, 1, 2, 3, 0, 1]))
    assert found == [(3000, f"{number}/0", f"{number}/999") for number in (0, 1, 2, 3, 0, 1)]


def test_a_login_that_is_refused_says_so_without_the_password(people: Bench) -> None:
    if not people.source.has_login:
        pytest.skip("this source has no login")
    wrong = people.source.connection.model_copy(update={"password": SecretStr("Wr0ng-'s3cret")})
    with pytest.raises(TerminalError, match="refuses the login") as refused:
        create_connector(wrong).check()
    assert "Wr0ng" not in str(refused.value)
    with pytest.raises(TerminalError) as loaded:
        people.load(spec(), connection=wrong)
    assert "Wr0ng" not in str(loaded.value)


def test_a_server_that_is_down_is_worth_a_retry(people: Bench) -> None:
    source = people.source
    if not source.has_login:
        missing = source.connection.model_copy(update={"database": f"{source.connection.database}.missing"})
        with pytest.raises(TerminalError, match="no such file"):
            people.load(spec(), connection=missing)
        assert not Path(missing.database).exists()
        return
    down = source.connection.model_copy(update={"port": find_free_ports(1)[0]})
    with pytest.raises(TransientError, match="cannot be reached") as unreachable:
        people.load(spec(), connection=down)
    assert source.connection.password and source.connection.password.get_secret_value() not in str(unreachable.value)


def test_an_unknown_option_is_refused(people: Bench) -> None:
    odd = people.source.connection.model_copy(update={"options": {"sslmod": "x"}})
    with pytest.raises(TerminalError, match="unknown option 'sslmod'"):
        create_connector(odd)


def test_names_that_differ_only_by_case_are_refused_or_impossible(bench: Bench) -> None:
    source = bench.source
    if source.connection.type != "postgresql":
        pytest.skip("this source has no such tables")
    source.run('CREATE TABLE t (id int, "Name" text, name text)')
    with pytest.raises(TerminalError, match="differ only by case"):
        bench.load(spec("t"))
