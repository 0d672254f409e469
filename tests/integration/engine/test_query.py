"""`mozart query` on a real lake: exact values in every format, nothing but reading, one clear line for a mistake."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mozart.cli.query import command
from mozart.engine.base import create_engine
from mozart.engine.duckdb import connect, create_store_secret
from mozart.engine.query import QuerySession, open_session
from mozart.errors import ConfigurationError, MozartError, TerminalError, TransientError
from mozart.lake.commit import read_head
from mozart.lake.lakehouse import Lakehouse, lakehouse_from_settings
from mozart.lake.publish import Publication, publish
from mozart.settings import load_settings


@pytest.fixture
def mart(lakehouse: Lakehouse, namespace: str) -> str:
    """`namespace.mart`: two rows of values that are easily damaged."""
    with connect(extensions=("httpfs",)) as connection:
        create_store_secret(connection, lakehouse)
        connection.execute(
            "CREATE TABLE mart AS FROM (VALUES "
            "(1, 12345678901234567.10::DECIMAL(38,2), TIMESTAMPTZ '2024-02-29 12:00:00.000001+00', 'é, \"☃\"', true), "
            "(2, NULL, NULL, '', NULL)) t(id, amount, moment, text, is_new)"
        )
        publish(connection, lakehouse, lakehouse.catalog(), Publication(namespace, "mart", "mart", "run", "print"))
    return f"{namespace}.mart"


@pytest.fixture
def session(lakehouse: Lakehouse, mart: str) -> Iterator[QuerySession]:
    with open_session(lakehouse) as opened:
        yield opened


@pytest.fixture
def invoke(lakehouse: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command in a project whose settings name the running lake."""
    (tmp_path / "tenants").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for name, value in {
        "MOZART_ROOT": str(tmp_path),
        "S3_ENDPOINT": lakehouse.s3_endpoint,
        "ICEBERG_CATALOG_URI": lakehouse.catalog_uri,
        "S3_ACCESS_KEY_ID": lakehouse.access_key_id,
        "S3_SECRET_ACCESS_KEY": lakehouse.secret_access_key.get_secret_value(),
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, list(arguments))

    return run


def test_json_loses_nothing(invoke: Any, mart: str) -> None:
    result = invoke(f"select * from iceberg.{mart} order by id", "--format", "json")
    assert json.loads(result.stdout) == [
        {
            "id": 1,
            "amount": "12345678901234567.10",
            "moment": "2024-02-29T12:00:00.000001+00:00",
            "text": 'é, "☃"',
            "is_new": True,
        },
        {"id": 2, "amount": None, "moment": None, "text": "", "is_new": None},
    ]
    assert json.loads(invoke("select 1 where false", "--format", "json").stdout) == []
    assert json.loads(invoke("select 'nan'::double as n", "--format", "json").stdout) == [{"n": "nan"}]


def test_csv_tells_null_from_empty(invoke: Any, mart: str) -> None:
    result = invoke(f"select * from {mart} order by id", "--format", "csv")
    header, first, second = csv.reader(io.StringIO(result.stdout))
    assert header == ["id", "amount", "moment", "text", "is_new"]
    assert first == ["1", "12345678901234567.10", "2024-02-29T12:00:00.000001+00:00", 'é, "☃"', "true"]
    assert second == ["2", "", "", "", ""]
    assert result.stdout.splitlines()[2] == '2,,,"",'


def test_a_table_says_what_it_left_out(invoke: Any) -> None:
    result = invoke("select range as n, NULL as nothing from range(7) order by n", "--limit", "2")
    assert result.stdout.splitlines() == ["n  nothing", "-  -------", "0  NULL", "1  NULL"]
    assert result.stderr.startswith("(5 more rows are not shown")
    many = invoke("select * from range(1000000000)")
    assert many.stderr.startswith("(more than 100000 more rows are not shown")
    assert invoke("select 1 as one").stderr == "(1 row)\n"


@pytest.mark.parametrize(
    "sql",
    [
        "insert into {mart} select * from {mart}",
        "with x as (select 1) insert into {mart} select * from {mart}",
        "create table iceberg.other.t as select 1 as a",
        "drop table iceberg.{mart}",
        "call set_iceberg_table_properties('iceberg.{mart}', {{'w': '1'}})",
        "select * from set_iceberg_table_properties('iceberg.{mart}', {{'w': '1'}})",
        "explain analyze insert into {mart} select * from {mart}",
        "copy (select 1) to 's3://landing/stolen.parquet'",
        "copy (select 1) to '{local}/stolen.csv'",
        "select * from read_text('{local}/secret.txt')",
        "select * from glob('{local}/*')",
        "select * from '{local}/secret.csv'",
        "attach '{local}/x.db'",
        "set threads = 8",
        "set enable_external_access = true",
        "select 1; select 2",
        "",
    ],
)
def test_nothing_but_a_query_of_the_lake_runs(
    session: QuerySession, lakehouse: Lakehouse, mart: str, sql: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("local")
    (tmp_path / "secret.csv").write_text("local")
    before = read_head(lakehouse.catalog(), tuple(mart.split("."))).table  # type: ignore[arg-type]
    with pytest.raises(TerminalError) as caught:
        list(session.run(sql.format(mart=mart, local=tmp_path)).rows)
    assert "\n" not in str(caught.value)
    after = read_head(lakehouse.catalog(), tuple(mart.split("."))).table  # type: ignore[arg-type]
    assert before is not None
    assert after is not None
    assert after.metadata_location == before.metadata_location
    assert {path.name for path in tmp_path.iterdir()} == {"secret.txt", "secret.csv"}


@pytest.mark.parametrize(
    "sql", ["from {mart}", "with x as (from {mart}) select * from x", "describe {mart}", "summarize {mart}"]
)
def test_queries_in_every_spelling_run(session: QuerySession, mart: str, sql: str) -> None:
    assert list(session.run(sql.format(mart=mart)).rows)
    assert list(session.run("EXPLAIN " + f"select * from {mart}").rows)
    assert list(session.run(f"explain analyze select count(*) from {mart}").rows)


def test_a_sort_larger_than_memory_spills(lakehouse: Lakehouse) -> None:
    with open_session(lakehouse, memory="100MB") as session:
        sql = "select n, row_number() over (order by md5(n::varchar)) from range(1500000) t(n)"
        assert sum(1 for _ in session.run(f"select count(*) from ({sql})").rows) == 1


def test_mistakes_are_one_line_with_an_exit_code_of_their_kind(invoke: Any, mart: str, monkeypatch: Any) -> None:
    unknown = invoke(f"select nonsense from {mart}")
    assert isinstance(unknown.exception, TerminalError)
    assert "nonsense" in str(unknown.exception)
    assert "\n" not in str(unknown.exception)
    assert isinstance(invoke("selec 1").exception, TerminalError)
    late = invoke("select (case when range > 5000 then 'x' else '1' end)::int from range(6000)", "--format", "csv")
    assert isinstance(late.exception, TerminalError)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "")
    assert isinstance(invoke("select 1").exception, ConfigurationError)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"catalog_uri": "http://127.0.0.1:9"}, TransientError),
        ({"secret_access_key": "wrong"}, TerminalError),
    ],
    ids=["down", "wrong secret"],
)
def test_a_lake_that_cannot_be_attached(
    lakehouse: Lakehouse, changes: dict[str, str], error: type[MozartError]
) -> None:
    broken = Lakehouse(**{**lakehouse.model_dump(), **changes})
    with pytest.raises(error) as caught, open_session(broken):
        pass
    assert broken.catalog_uri in str(caught.value)
    assert broken.secret_access_key.get_secret_value() not in str(caught.value)


def test_the_engine_reads_small_results_as_arrow(lakehouse: Lakehouse, mart: str) -> None:
    engine = create_engine("duckdb", lakehouse)
    assert engine.query(f"select id from {mart} order by id").to_pydict() == {"id": [1, 2]}
    assert engine.dbt_output()["type"] == "duckdb"
    with pytest.raises(ConfigurationError, match="'spark' is not an engine"):
        create_engine("spark", lakehouse)


def test_the_local_stack_is_the_default_lake(tmp_path: Path) -> None:
    environ = {"S3_ACCESS_KEY_ID": "key", "S3_SECRET_ACCESS_KEY": "secret", "MOZART_S3_PORT": "9123"}
    lakehouse = lakehouse_from_settings(load_settings(tmp_path, environ))
    assert lakehouse.s3_endpoint == "http://127.0.0.1:9123"
    assert lakehouse.catalog_uri == "http://127.0.0.1:8181"
    with pytest.raises(ConfigurationError, match="S3_SECRET_ACCESS_KEY"):
        lakehouse_from_settings(load_settings(tmp_path, {"S3_ACCESS_KEY_ID": "key"}))
