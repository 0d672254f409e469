"""PostgreSQL's types through the connector into DuckDB: exact, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from mozart.connectors.base import SourceConnection
from mozart.connectors.registry import create_connector
from mozart.engine.duckdb import connect
from mozart.errors import DataQualityError, TerminalError, TransientError
from tests.contract.connectors.bench import read_table


@pytest.fixture
def place(database: Callable[..., Any]) -> Any:
    return database(superuser=True)


@pytest.fixture
def connection(place: Any) -> SourceConnection:
    return SourceConnection(
        type="postgresql",
        host=place.host,
        port=place.port,
        database=place.name,
        username=place.user,
        password=SecretStr(place.password),
    )


@pytest.fixture
def source(place: Any) -> Any:
    with place.connect(autocommit=True) as opened:
        yield opened


def read(connection: SourceConnection, extensions: Path, table: str) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    return read_table(connection, extensions, table, "public")


# source type, literal, Iceberg type, value as it must arrive
CASES: list[tuple[str, str, str, object]] = [
    ("smallint", "-32768", "int", -32768),
    ("integer", "2147483647", "int", 2147483647),
    ("bigint", "-9223372036854775808", "long", -9223372036854775808),
    (
        "numeric(38,10)",
        "'1234567890123456789012345678.0123456789'",
        "decimal(38, 10)",
        Decimal("1234567890123456789012345678.0123456789"),
    ),
    ("numeric(5,0)", "12345", "decimal(5, 0)", Decimal(12345)),
    ("numeric", "'1e-30'", "string", "0.000000000000000000000000000001"),
    ("numeric", "'NaN'", "string", "NaN"),
    ("numeric(50,2)", "1.5", "string", "1.50"),
    ("numeric(3,5)", "0.00123", "string", "0.00123"),
    ("real", "1.5", "float", 1.5),
    ("double precision", "'-Infinity'", "double", float("-inf")),
    ("boolean", "true", "boolean", True),
    ("text", "'Größe 漢字 🎻'", "string", "Größe 漢字 🎻"),
    ("varchar(10)", "''", "string", ""),
    ("numeric(10,2)", "0", "decimal(10, 2)", Decimal("0.00")),
    ("numeric(10,2)", "-0.01", "decimal(10, 2)", Decimal("-0.01")),
    ("char(5)", "'ab'", "string", "ab   "),
    ("char(5)", "'abcde'", "string", "abcde"),
    ("char(5)", "''", "string", "     "),
    ("char(5)", "'é🎻'", "string", "é🎻   "),
    ("char(64)", "' x'", "string", " x".ljust(64)),
    ("char(65)", "'x'", "string", "x".ljust(65)),
    ("char(1)", "''", "string", " "),
    ('"char"', "'x'", "string", "x"),
    ("bytea", "'\\x00ff27'", "binary", b"\x00\xff'"),
    ("date", "'0001-01-01'", "date", date(1, 1, 1)),
    ("date", "'9999-12-31'", "date", date(9999, 12, 31)),
    ("time", "'23:59:59.999999'", "time", time(23, 59, 59, 999999)),
    ("timetz", "'12:00:00+02'", "string", "12:00:00+02"),
    ("timestamp", "'1969-12-31 23:59:59.999999'", "timestamp", datetime(1969, 12, 31, 23, 59, 59, 999999)),
    ("timestamptz", "'2024-06-01 02:00:00.000001+02'", "timestamptz", datetime(2024, 6, 1, 0, 0, 0, 1, tzinfo=UTC)),
    ("interval", "'1 year 2 days 03:04:05.6'", "string", "P1Y2DT3H4M5.6S"),
    ("uuid", "'0e37df36-f698-11e6-8dd4-cb9ced3df976'", "string", "0e37df36-f698-11e6-8dd4-cb9ced3df976"),
    ("json", """'{"b":1.10, "a":1}'""", "string", '{"b":1.10, "a":1}'),
    ("jsonb", """'{"b":1.10, "a":1}'""", "string", '{"a": 1, "b": 1.10}'),
    ("int[]", "'{1,NULL,3}'", "list<int>", [1, None, 3]),
    ("bigint[]", "'{}'", "list<long>", []),
    ("text[]", """'{"a b",NULL,"q\\"uote"}'""", "list<string>", ["a b", None, 'q"uote']),
    ("numeric(10,2)[]", "'{1.50}'", "string", "[1.50]"),
    ("inet", "'10.0.0.1/24'", "string", "10.0.0.1/24"),
    ("bit(3)", "'101'", "string", "101"),
    ("point", "'(1,2)'", "string", "(1,2)"),
    ("int4range", "'[1,5)'", "string", "[1,5)"),
    ("money", "'12.34'", "string", "$12.34"),
]


def test_every_type_arrives_as_it_is(connection: SourceConnection, source: Any, extensions: Path) -> None:
    columns = ", ".join(f"c{number} {kind}" for number, (kind, *_rest) in enumerate(CASES))
    values = ", ".join(literal for _kind, literal, *_rest in CASES)
    source.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    source.execute(f"INSERT INTO t VALUES (1, {values})")
    source.execute("INSERT INTO t (id) VALUES (2)")
    types, rows = read(connection, extensions, "t")
    for number, (kind, literal, iceberg, value) in enumerate(CASES):
        assert types[f"c{number}"] == iceberg, kind
        arrived = rows[0][number + 1]
        assert type(arrived) is type(value), kind
        assert arrived == value, (kind, literal)
        assert rows[1][number + 1] is None, kind


def test_enums_domains_and_composites(connection: SourceConnection, source: Any, extensions: Path) -> None:
    source.execute("CREATE TYPE mood AS ENUM ('sad', 'glücklich')")
    source.execute("CREATE TYPE pair AS (a int, b text)")
    source.execute("CREATE DOMAIN price AS numeric(10,2) CHECK (VALUE > 0)")
    source.execute("CREATE DOMAIN best AS price")
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, m mood, p pair, d price, e best, "
        "g int GENERATED ALWAYS AS (id * 2) STORED)"
    )
    source.execute("INSERT INTO t VALUES (1, 'glücklich', ROW(1, 'x'), 9.5, 8)")
    types, rows = read(connection, extensions, "t")
    assert rows == [(1, "glücklich", "(1,x)", Decimal("9.50"), Decimal("8.00"), 2)]
    assert (types["d"], types["e"]) == ("decimal(10, 2)", "decimal(10, 2)")


@pytest.mark.parametrize(
    ("kind", "literal", "said"),
    [
        ("numeric(8,2)", "'NaN'", "NaN or infinity"),
        ("timestamptz", "'infinity'", "infinite, BC or far timestamptz"),
        ("timestamp", "'0044-03-15 BC'", "infinite, BC or far timestamp"),
        ("date", "'-infinity'", "infinite, BC or far date"),
        ("date", "'20000-01-01'", "infinite, BC or far date"),
        ("int[]", "'{{1,2},{3,4}}'", "array of several dimensions"),
        ("int[]", "'[0:1]={1,2}'", "array of several dimensions or another lower bound"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(
    connection: SourceConnection, source: Any, extensions: Path, kind: str, literal: str, said: str
) -> None:
    source.execute(f'CREATE TABLE t (id int PRIMARY KEY, "Wert" {kind})')
    source.execute(f"INSERT INTO t VALUES (41, NULL), (42, {literal})")
    with pytest.raises(DataQualityError, match=said) as caught:
        read(connection, extensions, "t")
    assert '"Wert"' in str(caught.value) and "key 42" in str(caught.value)


@pytest.mark.parametrize(
    "relation",
    [
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(8,2) STORAGE PLAIN)",
        "CREATE TABLE t (id int PRIMARY KEY, filler text, n numeric(8,2))",
    ],
)
def test_nan_is_found_however_it_is_stored(
    connection: SourceConnection, source: Any, extensions: Path, relation: str
) -> None:
    source.execute(relation)
    source.execute("INSERT INTO t (id, n) VALUES (1, 0), (2, 1.5), (3, NULL), (42, 'NaN')")
    with pytest.raises(DataQualityError, match=r"NaN or infinity in numeric in column \"n\", key 42"):
        read(connection, extensions, "t")


def test_nan_that_a_view_computes_is_found(connection: SourceConnection, source: Any, extensions: Path) -> None:
    source.execute("CREATE TABLE base (id int PRIMARY KEY, n numeric(8,2))")
    source.execute("INSERT INTO base VALUES (1, 0), (2, 7)")
    source.execute("CREATE VIEW v AS SELECT id, (n * 'NaN'::numeric)::numeric(8,2) AS n FROM base")
    with pytest.raises(DataQualityError, match="NaN or infinity in numeric"):
        read(connection, extensions, "v")


def test_a_read_takes_one_process_of_the_server(connection: SourceConnection, extensions: Path) -> None:
    connector = create_connector(connection, application="mozart/test")
    with connector.open() as reader, connect(extensions=connector.extensions, extension_folder=extensions) as duck:
        reader.attach(duck)
        asked = "SELECT name, setting FROM pg_settings WHERE name IN ('max_parallel_workers_per_gather', 'jit')"
        told = duck.execute("SELECT * FROM postgres_query('source', ?) ORDER BY 1", [asked]).fetchall()
    assert told == [("jit", "off"), ("max_parallel_workers_per_gather", "0")]


SCALARS = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20),
    st.none() | st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=40),
    st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    st.none() | st.binary(max_size=30),
    st.none() | st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=5),
)


@given(st.lists(SCALARS, min_size=1, max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_rows_arrive_as_they_are(
    connection: SourceConnection, source: Any, extensions: Path, rows: list[tuple[Any, ...]]
) -> None:
    source.execute("DROP TABLE IF EXISTS t")
    source.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a bigint, b numeric(30,6), c text, d timestamptz, e bytea, f int[])"
    )
    with source.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s, %s)", [(n, *row) for n, row in enumerate(rows)]
        )
    _types, arrived = read(connection, extensions, "t")
    assert arrived == [(n, *row) for n, row in enumerate(rows)]


def test_names_that_differ_only_by_case_are_refused(
    connection: SourceConnection, source: Any, extensions: Path
) -> None:
    source.execute('CREATE TABLE t (id int, "Name" text, name text)')
    with pytest.raises(TerminalError, match="differ only by case"):
        read(connection, extensions, "t")


def test_logins_that_fail_say_why_and_hold_no_password(connection: SourceConnection) -> None:
    wrong = connection.model_copy(update={"password": SecretStr("Wr0ng-secret")})
    with pytest.raises(TerminalError, match="refuses the login") as refused:
        create_connector(wrong).check()
    assert "Wr0ng-secret" not in str(refused.value)
    with pytest.raises(TransientError, match="cannot be reached"):
        create_connector(connection.model_copy(update={"port": 1})).check()
    with pytest.raises(TerminalError, match="unknown option 'sslmod'"):
        create_connector(connection.model_copy(update={"options": {"sslmod": "x"}}))


def test_a_login_that_may_not_read_is_told_so(
    place: Any, connection: SourceConnection, source: Any, extensions: Path
) -> None:
    source.execute("CREATE TABLE t (id int)")
    role = f"reader_{place.name}"
    source.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'r'")
    reader = connection.model_copy(update={"username": role, "password": SecretStr("r")})
    try:
        with pytest.raises(TerminalError, match=r"public\.t may not be read by 'reader_.*grant SELECT"):
            read(reader, extensions, "t")
    finally:
        source.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_an_ordinary_login_does_not_claim_to_see_transactions(
    place: Any, connection: SourceConnection, source: Any
) -> None:
    role = f"plain_{place.name}"
    source.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'r'")
    plain = connection.model_copy(update={"username": role, "password": SecretStr("r")})
    try:
        with create_connector(plain).open() as reader:
            assert not reader.position.sees_transactions
        with create_connector(connection).open() as reader:
            assert reader.position.sees_transactions
    finally:
        source.execute(f"DROP ROLE {role}")
