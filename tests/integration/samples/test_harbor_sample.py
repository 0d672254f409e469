"""The Harbor sample on a real PostgreSQL: what the generator promises about its rows, and business that goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from mozart.errors import ConfigurationError, TerminalError
from mozart.services.postgres import Database, Postgres
from samples import harbor

SCALE = 0.02
DatabaseFactory = Callable[..., Database]


@pytest.fixture(scope="module")
def sample(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """The sample, shared by the tests that only read."""
    postgres.create_database("harbor_sample", owner="harbor_sample_owner", password="owner-pw")
    with postgres.superuser("harbor_sample").connect(autocommit=True) as connection:
        harbor.create(connection, scale=SCALE)
        yield connection
    postgres.drop_database("harbor_sample")


def _one(connection: psycopg.Connection, question: str) -> tuple[object, ...]:
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row


def _digest(connection: psycopg.Connection, table: str) -> str:
    rows = connection.execute(f"SELECT t::text FROM desk.{table} t ORDER BY 1".encode()).fetchall()
    return hashlib.sha256("\n".join(row[0] for row in rows).encode()).hexdigest()


def test_the_same_seed_and_scale_give_the_same_rows(sample: psycopg.Connection, database: DatabaseFactory) -> None:
    with database(superuser=True).connect(autocommit=True) as twin:
        twin.execute("SET TIME ZONE 'Asia/Tokyo'")
        harbor.create(twin, scale=SCALE)
        twin.execute("SET TIME ZONE 'UTC'")
        sample.execute("SET TIME ZONE 'UTC'")
        for table in harbor.TABLES:
            assert _digest(twin, table) == _digest(sample, table), table


def test_the_owner_may_create_it_and_other_values_are_refused(database: DatabaseFactory) -> None:
    place = database()
    with place.connect() as connection:
        counts = harbor.create(connection, scale=0, seed=1)
        assert min(counts.values()) > 0
        assert harbor.create(connection, scale=0, seed=1) == counts
        assert harbor.exists(connection)
        with pytest.raises(ConfigurationError, match=r"seed=1.*not.*seed=2"):
            harbor.create(connection, scale=0, seed=2)
        connection.execute("SELECT 1")
        with pytest.raises(TerminalError, match="idle"):
            harbor.create(connection, scale=0, seed=1)


def test_half_of_every_large_table_is_the_tenants_customers(sample: psycopg.Connection) -> None:
    for table in ("matters", "parties", "seats", "ledger"):
        share, customers = _one(
            sample, f"SELECT avg((customer_no = 'H-1042')::int), count(DISTINCT customer_no) FROM desk.{table}"
        )
        assert (round(float(str(share)), 2), customers) == (0.5, 4), table


def test_numbers_of_matters_are_the_same_for_every_customer(sample: psycopg.Connection) -> None:
    first = "SELECT count(DISTINCT customer_no) FROM desk.matters WHERE matter_no = 1"
    assert _one(sample, first) == (4,)


def test_references_stay_within_a_customer(sample: psycopg.Connection) -> None:
    for question in (
        "SELECT count(*) FROM desk.seats s LEFT JOIN desk.parties p USING (customer_no, party_id) WHERE p IS NULL",
        "SELECT count(*) FROM desk.seats s LEFT JOIN desk.matters m USING (customer_no, matter_no) WHERE m IS NULL",
        "SELECT count(*) FROM desk.ledger l LEFT JOIN desk.matters m USING (customer_no, matter_no)"
        " WHERE m IS NULL AND l.matter_no IS NOT NULL",
    ):
        assert _one(sample, question) == (0,), question


def test_the_shapes_that_staging_has_to_undo_are_there(sample: psycopg.Connection) -> None:
    for question in (
        "SELECT count(*) FROM desk.ledger WHERE matter_no IS NULL",
        "SELECT least(count(*) FILTER (WHERE amount < 0), count(*) FILTER (WHERE amount = 0)) FROM desk.ledger",
        "SELECT count(*) FROM desk.matters WHERE closed = '1900-01-01 00:00+00' AND state_no <> 90",
        "SELECT count(*) FROM desk.matters WHERE claim IS NULL",
        "SELECT count(*) FROM desk.seats WHERE capacity_code <> upper(btrim(capacity_code))",
        "SELECT count(*) - count(DISTINCT d::text) FROM desk.diary d",
        "SELECT count(*) FROM desk.parties WHERE display_name <> btrim(display_name)",
    ):
        assert int(str(_one(sample, question)[0])) > 0, question


def test_hours_that_clocks_skip_or_repeat_are_among_the_local_times(database: DatabaseFactory) -> None:
    with database(superuser=True).connect(autocommit=True) as connection:
        harbor.create(connection, scale=0.1)
        for hour in ("2023-03-26 02", "2023-10-29 02"):
            assert _one(connection, f"SELECT count(*) > 0 FROM desk.seats WHERE joined::text LIKE '{hour}:%'") == (
                True,
            )


def test_business_goes_on_for_all_customers_and_is_stamped_in_each_tables_way(database: DatabaseFactory) -> None:
    with database(superuser=True).connect() as connection:
        before = harbor.create(connection, scale=SCALE)
        done = harbor.apply_changes(connection, seed=2, inserts=20, updates=12, deletes=4)
        after = harbor.create(connection, scale=SCALE)
        for table in harbor.TABLES:
            grown = done.get(f"{table}.inserted", 0) - done.get(f"{table}.deleted", 0)
            assert after[table] == before[table] + grown, table
        assert {key.split(".")[1] for key in done} == {"inserted", "updated", "deleted"}
        fresh = "SELECT count(*), count(DISTINCT customer_no) FROM desk.{} WHERE {} > now() - interval '5 minutes'"
        assert _one(connection, fresh.format("matters", "changed"))[1] in (2, 3, 4)
        local = fresh.format("seats", "changed").replace("now()", "now() AT TIME ZONE 'Europe/Oslo'")
        stamped = int(str(_one(connection, local)[0]))
        assert done["seats.inserted"] <= stamped <= done["seats.inserted"] + done["seats.updated"]


def test_a_reader_sees_every_customer_and_the_transactions(database: DatabaseFactory, postgres: Postgres) -> None:
    place = database()
    with postgres.superuser(place.name).connect() as connection:
        harbor.create(connection, scale=0)
        harbor.grant_reader(connection, place.user)
    with place.connect() as connection:
        assert _one(connection, "SELECT count(DISTINCT customer_no) FROM desk.matters") == (4,)
        assert _one(connection, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')") == (True,)
        assert _one(connection, "SHOW timezone") == ("Europe/Oslo",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("DELETE FROM desk.diary"))
