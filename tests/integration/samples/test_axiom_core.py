"""Axiom Core on a real PostgreSQL: the same on every machine, of all ordinary types, and alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from mozart.errors import ConfigurationError, TerminalError
from mozart.services.postgres import Database
from samples import axiom_core
from samples.axiom_schema import MUTABLE_TABLES, TABLES

SCALE = 0.01
KEYS = {
    "case_types": "case_type_id",
    "organisations": "org_id",
    "stakeholder_types": "stk_type_id",
    "cases": "case_id",
    "stakeholders": "stakeholder_id",
    "performance_records": "record_id",
    "assets": "asset_id",
    "cash_flow_entries": "entry_id",
    "case_user_roles": "case_id, user_id, role",
    "event_outbox": "id",
}
ORDINARY_TYPES = {
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "real",
    "double precision",
    "boolean",
    "text",
    "character varying",
    "character",
    "date",
    "time without time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "interval",
    "uuid",
    "jsonb",
    "bytea",
    "inet",
    "ARRAY",
    "USER-DEFINED",
}
EVENTS = {
    "case_created",
    "case_status_changed",
    "stakeholder_registered",
    "stakeholder_admitted",
    "performance_recorded",
    "cash_flow_entry_created",
}


@pytest.fixture
def connect(database: Callable[..., Database]) -> Iterator[Callable[[], psycopg.Connection]]:
    """`connect()` → a connection to a new, empty database."""
    opened: list[psycopg.Connection] = []

    def open_one() -> psycopg.Connection:
        opened.append(database().connect(autocommit=True))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def core(connect: Callable[[], psycopg.Connection]) -> psycopg.Connection:
    """A connection to a small Axiom Core."""
    connection = connect()
    axiom_core.create(connection, scale=SCALE)
    return connection


def _rows(connection: psycopg.Connection, query: str) -> list[Any]:
    return connection.execute(query.encode()).fetchall()


def _checksums(connection: psycopg.Connection) -> dict[str, str]:
    query = "SELECT md5(string_agg(t::text, E'\\n' ORDER BY {key})) FROM {table} t"
    return {table: _rows(connection, query.format(table=table, key=key))[0][0] for table, key in KEYS.items()}


def _contents(connection: psycopg.Connection) -> dict[str, dict[str, tuple[str, datetime]]]:
    """Of each mutable table: key → (the row as text, updated_at)."""
    return {
        table: {
            key: (text, updated)
            for key, text, updated in _rows(
                connection, f"SELECT row({KEYS[table]})::text, t::text, updated_at FROM {table} t"
            )
        }
        for table in MUTABLE_TABLES
    }


def test_the_same_seed_and_scale_give_the_same_rows(connect: Callable[[], psycopg.Connection]) -> None:
    first, second, other = connect(), connect(), connect()
    second.execute("SET TimeZone = 'America/New_York'")
    for connection, seed in ((first, 7), (second, 7), (other, 8)):
        axiom_core.create(connection, scale=SCALE, seed=seed)
        connection.execute("SET TimeZone = 'UTC'")
    assert _checksums(first) == _checksums(second)
    differing = {table for table, value in _checksums(other).items() if value != _checksums(first)[table]}
    assert differing >= set(MUTABLE_TABLES)


def test_creating_it_again_changes_nothing_and_other_values_are_refused(core: psycopg.Connection) -> None:
    before = _checksums(core)
    assert axiom_core.create(core, scale=SCALE)["cash_flow_entries"] == 2_000
    assert _checksums(core) == before
    with pytest.raises(ConfigurationError, match=r"scale=0\.01 seed=7.*use another database"):
        axiom_core.create(core, scale=SCALE, seed=8)


def test_it_says_whether_it_is_there(connect: Callable[[], psycopg.Connection]) -> None:
    connection = connect()
    assert not axiom_core.exists(connection)
    connection.execute("CREATE TABLE cases (id int)")
    assert not axiom_core.exists(connection)
    with pytest.raises(ConfigurationError, match="foreign"):
        axiom_core.create(connection, scale=SCALE)


def test_a_connection_in_a_transaction_is_refused(connect: Callable[[], psycopg.Connection]) -> None:
    connection = connect()
    with connection.transaction(), pytest.raises(TerminalError, match="idle"):
        axiom_core.create(connection, scale=SCALE)


def test_it_has_every_ordinary_type(core: psycopg.Connection) -> None:
    query = "SELECT DISTINCT data_type FROM information_schema.columns WHERE table_schema = 'public'"
    assert {row[0] for row in _rows(core, query)} >= ORDINARY_TYPES


def test_every_nullable_column_has_values_and_nulls(core: psycopg.Connection) -> None:
    nullable = _rows(
        core,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND is_nullable = 'YES' AND table_name <> 'event_outbox'",
    )
    assert len(nullable) > 15
    for table, column in nullable:
        (counts,) = _rows(core, f"SELECT count({column}), count(*) - count({column}) FROM {table}")
        assert min(counts) > 0, f"{table}.{column}: {counts} values and NULLs"


def test_text_goes_beyond_ascii_and_beyond_one_line(core: psycopg.Connection) -> None:
    for table, column in (("stakeholders", "name"), ("organisations", "name"), ("cases", "title")):
        (row,) = _rows(core, f"SELECT count(*) FILTER (WHERE {column} ~ '[^\\x01-\\x7f]'), count(*) FROM {table}")
        assert row[0] > row[1] / 10, f"{table}.{column}"
    assert _rows(core, "SELECT 1 FROM stakeholders WHERE name ~ '[\\U0001F300-\\U0001FAFF]' LIMIT 1")
    assert _rows(core, "SELECT 1 FROM cash_flow_entries WHERE memo LIKE E'%\\n%' LIMIT 1")


def test_three_years_of_changes_and_none_in_the_future(core: psycopg.Connection) -> None:
    ((months, last),) = _rows(core, "SELECT count(DISTINCT date_trunc('month', opened_at)), max(opened_at) FROM cases")
    assert months == 36
    assert last < datetime(2025, 1, 1, tzinfo=UTC)
    for table in MUTABLE_TABLES:
        ((latest, distinct, total),) = _rows(
            core, f"SELECT max(updated_at), count(DISTINCT updated_at), count(*) FROM {table}"
        )
        assert latest < datetime(2026, 1, 1, tzinfo=UTC), table
        assert distinct > 0.99 * total, f"{table}: a load stamped the rows"


def test_a_party_has_one_identity_across_cases(core: psycopg.Connection) -> None:
    ((names, cases),) = _rows(
        core,
        "SELECT max(names), max(cases) FROM (SELECT count(DISTINCT trim(name)) AS names,"
        " count(DISTINCT case_id) AS cases FROM stakeholders GROUP BY party_no) p",
    )
    assert names == 1
    assert cases > 3


def test_changes_touch_what_they_say_and_nothing_else(core: psycopg.Connection) -> None:
    before = _contents(core)
    ((started,),) = _rows(core, "SELECT clock_timestamp()")
    counts = axiom_core.apply_changes(core, seed=3, inserts=21, updates=15, deletes=9)
    after = _contents(core)
    for table in MUTABLE_TABLES:
        old, new = before[table], after[table]
        inserted, deleted = new.keys() - old.keys(), old.keys() - new.keys()
        updated = {key for key in new.keys() & old.keys() if new[key][0] != old[key][0]}
        assert all(new[key][1] > started for key in inserted | updated), table
        assert len(updated) <= counts.get(f"{table}.updated", 0), table
        assert len(inserted) - len(deleted) == counts.get(f"{table}.inserted", 0) - counts.get(f"{table}.deleted", 0)
    assert sum(value for name, value in counts.items() if name.endswith(".updated")) == 15
    assert counts["cases.inserted"] == 6, "every fourth of 21 inserts opens a case"
    assert counts["cases.deleted"] == 2, "every fourth of 9 deletions withdraws a case"


def test_updates_change_one_row_each_and_the_trigger_stamps_it(core: psycopg.Connection) -> None:
    before = _contents(core)
    ((started,),) = _rows(core, "SELECT clock_timestamp()")
    for seed, table in enumerate(("cases", "stakeholders", "cash_flow_entries"), start=1):
        # the kinds of update take turns, so the first n of them cover n tables
        axiom_core.apply_changes(core, seed=seed, inserts=0, updates=seed)
        after = _contents(core)
        assert any(after[table][key][1] > started for key in after[table]), table
        changed = sum(after[name][key] != before[name][key] for name in MUTABLE_TABLES for key in after[name])
        assert changed == seed
        before = after
    core.execute("UPDATE assets SET value = value, updated_at = '2000-01-01' WHERE asset_id = 1")
    assert _rows(core, "SELECT updated_at > '2020-01-01' FROM assets WHERE asset_id = 1") == [(True,)]


def test_every_business_change_leaves_its_events(core: psycopg.Connection) -> None:
    counts = axiom_core.apply_changes(core, seed=5, inserts=12, updates=6)
    topics = dict(_rows(core, "SELECT topic, count(*) FROM event_outbox WHERE published_at IS NULL GROUP BY topic"))
    assert set(topics) == EVENTS
    assert sum(topics.values()) == counts["event_outbox.inserted"]
    assert topics["cash_flow_entry_created"] == counts["cash_flow_entries.inserted"]
    assert topics["stakeholder_registered"] == counts["stakeholders.inserted"]
    orphans = "SELECT 1 FROM event_outbox WHERE (payload->>'case_id')::bigint NOT IN (SELECT case_id FROM cases)"
    assert _rows(core, orphans) == []


def test_a_writer_leaves_alone_what_another_one_withdraws(database: Callable[..., Database]) -> None:
    home = database()
    with home.connect(autocommit=True) as other, home.connect(autocommit=True) as connection:
        axiom_core.create(connection, scale=SCALE)
        connection.execute("SET statement_timeout = '5s'")
        with other.transaction():
            other.execute("SELECT FROM cases WHERE case_id <> 123 FOR UPDATE")
            axiom_core.apply_changes(connection, seed=1, inserts=4, updates=1)
        cases = "SELECT DISTINCT (payload->>'case_id')::bigint FROM event_outbox WHERE topic <> 'case_created'"
        assert _rows(connection, f"{cases} EXCEPT SELECT max(case_id) FROM cases") == [(123,)]


def test_writers_run_side_by_side(database: Callable[..., Database]) -> None:
    home = database()
    with home.connect(autocommit=True) as connection:
        axiom_core.create(connection, scale=SCALE)

    def write(seed: int) -> dict[str, int]:
        with home.connect(autocommit=True) as own:
            return axiom_core.apply_changes(own, seed=seed, inserts=20, updates=30, deletes=8)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, range(4)))
    with home.connect(autocommit=True) as connection:
        expected = 400 + sum(counts["cases.inserted"] - counts["cases.deleted"] for counts in results)
        assert _rows(connection, "SELECT count(*) FROM cases") == [(expected,)]


def test_the_reader_reads_everything_and_writes_nothing(database: Callable[..., Database]) -> None:
    home = database(superuser=True)
    with home.connect(autocommit=True) as connection:
        axiom_core.create(connection, scale=SCALE)
        role = f"{home.name}_reader"
        connection.execute(f'CREATE ROLE "{role}"'.encode())
        try:
            axiom_core.grant_reader(connection, role)
            assert _rows(connection, f"SELECT pg_has_role('{role}', 'pg_read_all_stats', 'usage')") == [(True,)]
            connection.execute(f'SET ROLE "{role}"'.encode())
            for table in TABLES:
                connection.execute(f"SELECT * FROM {table} LIMIT 1".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("UPDATE cases SET title = title")
        finally:
            connection.execute("RESET ROLE")
            connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"'.encode())
