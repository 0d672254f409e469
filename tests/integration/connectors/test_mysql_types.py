"""MySQL's and MariaDB's types through the connector into DuckDB: exact, or refused by name."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mozart.connectors.mysql_types import map_type
from mozart.connectors.registry import create_connector
from mozart.errors import DataQualityError
from tests.contract.connectors.bench import read_table
from tests.contract.connectors.mariadb import MariaDB
from tests.contract.connectors.sources import MariadbSource


@pytest.fixture
def source(mariadb: MariaDB) -> Iterator[MariadbSource]:
    with mariadb.database() as login:
        opened = MariadbSource(mariadb.admin(login[0]), mariadb.port, login)
        opened.run("SET sql_mode = 'ALLOW_INVALID_DATES'")
        yield opened
        opened.close()


POINT = struct.pack("<IBIdd", 4326, 1, 1, 1.0, 2.0)

# source type, literal, Iceberg type, value as it must arrive
CASES: list[tuple[str, str, str, object]] = [
    ("TINYINT", "-128", "int", -128),
    ("TINYINT(1)", "7", "int", 7),
    ("TINYINT UNSIGNED", "255", "int", 255),
    ("SMALLINT UNSIGNED", "65535", "int", 65535),
    ("MEDIUMINT", "-8388608", "int", -8388608),
    ("INT", "-2147483648", "int", -2147483648),
    ("INT(5) ZEROFILL", "42", "long", 42),
    ("INT UNSIGNED", "4294967295", "long", 4294967295),
    ("BIGINT", "-9223372036854775808", "long", -9223372036854775808),
    ("BIGINT UNSIGNED", "18446744073709551615", "decimal(20, 0)", Decimal(18446744073709551615)),
    ("DECIMAL(10,2)", "-1.10", "decimal(10, 2)", Decimal("-1.10")),
    ("DECIMAL", "12", "decimal(10, 0)", Decimal(12)),
    (
        "DECIMAL(38,10)",
        "1234567890123456789012345678.0123456789",
        "decimal(38, 10)",
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    (
        "DECIMAL(65,30)",
        "12345678901234567890123456789012345.000000000000000000000000000001",
        "string",
        "12345678901234567890123456789012345.000000000000000000000000000001",
    ),
    ("FLOAT", "0.1", "float", struct.unpack("<f", struct.pack("<f", 0.1))[0]),
    ("DOUBLE", "0.1e0 + 0.2e0", "double", 0.1 + 0.2),
    ("BIT(1)", "b'1'", "boolean", True),
    ("BIT(5)", "b'00101'", "string", "00101"),
    ("BIT(64)", "~0", "string", "1" * 64),
    ("BOOLEAN", "TRUE", "int", 1),
    ("YEAR", "2024", "int", 2024),
    ("DATE", "'0001-01-01'", "date", date(1, 1, 1)),
    ("DATE", "'9999-12-31'", "date", date(9999, 12, 31)),
    ("DATETIME(6)", "'1000-01-01 00:00:00.000001'", "timestamp", datetime(1000, 1, 1, 0, 0, 0, 1)),
    ("DATETIME", "'2024-03-31 02:30:00'", "timestamp", datetime(2024, 3, 31, 2, 30)),
    (
        "TIMESTAMP(6) NULL",
        "'2024-06-01 00:00:00.000001'",
        "timestamptz",
        datetime(2024, 6, 1, 0, 0, 0, 1, tzinfo=UTC),
    ),
    ("TIME(6)", "'-838:59:59.999999'", "string", "-838:59:59.999999"),
    ("CHAR(5)", "'ab'", "string", "ab"),
    ("VARCHAR(20) CHARACTER SET latin1", "'Größe'", "string", "Größe"),
    ("VARCHAR(20) COLLATE utf8mb4_bin", "'漢字 🎻'", "string", "漢字 🎻"),
    ("VARCHAR(20)", "''", "string", ""),
    ("TEXT", "'a\\\\b''c'", "string", "a\\b'c"),
    ("JSON", """'{"b": 1.10, "a":1}'""", "string", '{"b": 1.10, "a":1}'),
    ("ENUM('sad','glücklich')", "'glücklich'", "string", "glücklich"),
    ("SET('x','y','z')", "'z,x'", "string", "x,z"),
    ("BINARY(4)", "x'00ff'", "binary", b"\x00\xff\x00\x00"),
    ("VARBINARY(9)", "x'00ff27'", "binary", b"\x00\xff'"),
    ("LONGBLOB", "x'00ff5c27'", "binary", b"\x00\xff\\'"),
    ("POINT", "ST_GeomFromText('POINT(1 2)', 4326)", "binary", POINT),
    ("UUID", "'123e4567-e89b-12d3-a456-426614174000'", "string", "123e4567-e89b-12d3-a456-426614174000"),
    ("INET6", "'::1'", "string", "::1"),
]


def test_every_type_arrives_as_it_is(source: MariadbSource, extensions: Path) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, (kind, *_rest) in enumerate(CASES))
    values = ", ".join(literal for _kind, literal, *_rest in CASES)
    source.run(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    source.run(f"INSERT INTO t VALUES (1, {values})")
    source.run("INSERT INTO t (id) VALUES (2)")
    types, rows = read_table(source.connection, extensions, "t")
    for number, (kind, literal, iceberg, value) in enumerate(CASES):
        assert types[f"c{number}"] == iceberg, kind
        arrived = rows[0][number + 1]
        assert type(arrived) is type(value), kind
        assert arrived == value, (kind, literal)
        assert rows[1][number + 1] is None, kind


def test_the_servers_time_zone_does_not_move_a_timestamp(
    source: MariadbSource, mariadb: MariaDB, extensions: Path
) -> None:
    source.run("CREATE TABLE t (id int PRIMARY KEY, at TIMESTAMP(6) NULL, local DATETIME)")
    source.run("INSERT INTO t VALUES (1, '2024-06-01 12:00:00', '2024-06-01 12:00:00')")
    with mariadb.admin() as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL time_zone = '+05:00'")
    try:
        _types, rows = read_table(source.connection, extensions, "t")
    finally:
        with mariadb.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL time_zone = 'SYSTEM'")
    assert rows == [(1, datetime(2024, 6, 1, 12, tzinfo=UTC), datetime(2024, 6, 1, 12))]


@pytest.mark.parametrize(
    ("kind", "literal"),
    [
        ("DATE", "'0000-00-00'"),
        ("DATE", "'2024-00-15'"),
        ("DATE", "'2024-02-31'"),
        ("DATETIME", "'0000-00-00 00:00:00'"),
        ("DATETIME(6)", "'0000-01-01 00:00:00'"),
        ("TIMESTAMP NULL", "0"),
    ],
)
def test_dates_that_no_calendar_has_follow_the_policy(
    source: MariadbSource, extensions: Path, kind: str, literal: str
) -> None:
    source.run(f"CREATE TABLE t (a int, b varchar(9), `Wert` {kind}, PRIMARY KEY (a, b))")
    source.run(f"INSERT INTO t VALUES (41, 'x', NULL), (42, 'ü', {literal})")
    with pytest.raises(DataQualityError, match="a date that no calendar has") as caught:
        read_table(source.connection, extensions, "t")
    assert '"Wert"' in str(caught.value) and "key 42, ü" in str(caught.value)
    tolerant = source.connection.model_copy(update={"options": {"zero_dates": "null"}})
    assert read_table(tolerant, extensions, "t")[1] == [(41, "x", None), (42, "ü", None)]


ROWS = st.tuples(
    st.none() | st.integers(0, 2**64 - 1),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20),
    st.none() | st.text(st.characters(blacklist_categories=("Cs",)), max_size=40),
    st.none() | st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
    st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2037, 12, 31)),
    st.none() | st.binary(max_size=30),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.lists(ROWS, min_size=1, max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_rows_arrive_as_they_are(source: MariadbSource, extensions: Path, rows: list[tuple[Any, ...]]) -> None:
    source.run(
        "CREATE OR REPLACE TABLE t (id int PRIMARY KEY, a bigint unsigned, b decimal(30,6), c longtext, "
        "d datetime(6), e timestamp(6) NULL, f longblob, g double)"
    )
    source.insert("t", [(n, *row[:6], None if row[6] is None else repr(row[6])) for n, row in enumerate(rows)])
    _types, arrived = read_table(source.connection, extensions, "t")
    assert len(arrived) == len(rows)
    for number, row in enumerate(rows):
        a, b, c, d, e, f, g = arrived[number][1:]
        assert (a, b, c, d, f) == (*row[:4], row[5])
        assert e == (row[4].replace(tzinfo=UTC) if row[4] else None)
        assert g == row[6] and (g is None or math.copysign(1, g) == math.copysign(1, row[6]) or g == 0)


def test_a_long_transaction_holds_the_bound_back(source: MariadbSource, mariadb: MariaDB) -> None:
    source.run("CREATE TABLE t (id int PRIMARY KEY) ENGINE = InnoDB")
    connector = create_connector(source.connection)
    with connector.open() as reader:
        idle = reader.position
    assert idle.sees_transactions and idle.oldest_transaction_at is not None
    assert (idle.asked_at - idle.oldest_transaction_at).total_seconds() < 2
    with mariadb.admin(source.connection.database) as writer, writer.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (1)")
        cursor.execute("SELECT SLEEP(2.1)")
        with connector.open() as reader:
            busy = reader.position
        cursor.execute("ROLLBACK")
    assert busy.oldest_transaction_at is not None
    assert (busy.asked_at - busy.oldest_transaction_at).total_seconds() >= 2


def test_a_login_without_process_does_not_claim_to_see_transactions(source: MariadbSource, mariadb: MariaDB) -> None:
    with mariadb.admin() as admin, admin.cursor() as cursor:
        cursor.execute(f"REVOKE PROCESS ON *.* FROM {source.connection.username}@'%'")
    with create_connector(source.connection).open() as reader:
        assert not reader.position.sees_transactions


@pytest.mark.parametrize(("zone", "said"), [("-05:00", "Etc/GMT+5"), ("+05:30", "Etc/GMT-5"), ("+00:00", "UTC")])
def test_the_zone_of_naive_times_is_never_ahead_of_the_servers(
    source: MariadbSource, mariadb: MariaDB, zone: str, said: str
) -> None:
    with mariadb.admin() as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL time_zone = %s", (zone,))
        try:
            with create_connector(source.connection).open() as reader:
                assert reader.position.time_zone == said
        finally:
            cursor.execute("SET GLOBAL time_zone = 'SYSTEM'")


def test_every_declared_type_has_an_answer() -> None:
    for declared in ("vector(3)", "xmltype", "", "decimal(5,7)", "geomcollection", "year(4)"):
        assert map_type(declared).iceberg is not None
