"""acme's models, run by dbt on a DuckDB file that stands in for the lake, against PostgreSQL asked the same questions.

The stand-in has the schemas the real lake has: acme_raw, filled with the types that the PostgreSQL loader gives, and
acme, filled by copying candidates as publishing does. dbt runs in processes of its own, as it does in a pipeline.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
import yaml

from mozart.engine import duckdb as engine
from mozart.services.postgres import Database, Postgres
from mozart.sql import quote_identifier, quote_literal
from samples import axiom_core

ROOT = Path(__file__).parents[3]
SCALE = 0.05

# What the loader makes of types that the lake does not have.
_LOADED_AS = {
    "smallint": "integer",
    "uuid": "text",
    "jsonb": "text",
    "inet": "text",
    "interval": "text",
    "character": "text",
    "USER-DEFINED": "text",
}

# Asked of the source by other means than the models use: a subquery a figure instead of joins of grouped tables.
QUESTIONS = {
    "mart_case": """
        SELECT c.case_id, c.reference::text, btrim(c.title), c.status::text, btrim(t.code), t.name, o.code::text,
            o.name, o.country::text, c.attributes->>'channel', c.priority::int, c.is_confidential,
            c.amount::numeric(18,2), c.opened_at, to_char(c.opened_at AT TIME ZONE 'UTC', 'YYYYMM')::int, c.closed_at,
            (c.closed_at AT TIME ZONE 'UTC')::date - (c.opened_at AT TIME ZONE 'UTC')::date,
            (SELECT count(*) FROM stakeholders s WHERE s.case_id = c.case_id),
            (SELECT count(DISTINCT party_no) FROM stakeholders s WHERE s.case_id = c.case_id),
            (SELECT count(*) FROM stakeholders s WHERE s.case_id = c.case_id AND admitted_at IS NOT NULL),
            (SELECT count(*) FROM cash_flow_entries e WHERE e.case_id = c.case_id),
            (SELECT coalesce(sum(amount), 0) FROM cash_flow_entries e
                WHERE e.case_id = c.case_id AND flow_type = 'in')::numeric(18,2),
            (SELECT coalesce(sum(amount), 0) FROM cash_flow_entries e
                WHERE e.case_id = c.case_id AND flow_type = 'out')::numeric(18,2),
            (SELECT coalesce(sum(CASE flow_type WHEN 'in' THEN amount ELSE -amount END), 0) FROM cash_flow_entries e
                WHERE e.case_id = c.case_id)::numeric(18,2),
            (SELECT entry_date FROM cash_flow_entries e WHERE e.case_id = c.case_id ORDER BY entry_date DESC LIMIT 1),
            c.updated_at
        FROM cases c JOIN case_types t USING (case_type_id) JOIN organisations o USING (org_id)""",
    "mart_cashflow_monthly": """
        SELECT btrim(max(t.code)), max(t.name), max(o.code)::text, max(o.name),
            to_char(min(entry_date), 'YYYYMM')::int, to_char(min(entry_date), 'YYYY-MM-01')::date,
            count(DISTINCT case_id), count(*),
            coalesce(sum(e.amount) FILTER (WHERE flow_type = 'in'), 0)::numeric(18,2),
            coalesce(sum(e.amount) FILTER (WHERE flow_type = 'out'), 0)::numeric(18,2),
            sum(e.amount * CASE flow_type WHEN 'in' THEN 1 ELSE -1 END)::numeric(18,2)
        FROM cash_flow_entries e JOIN cases USING (case_id) JOIN case_types t USING (case_type_id)
        JOIN organisations o USING (org_id) GROUP BY case_type_id, org_id, to_char(entry_date, 'YYYY-MM')""",
    "mart_stakeholder": """
        SELECT DISTINCT ON (party_no) party_no, btrim(s.name), lower(btrim(email)), country::text, is_organisation,
            (SELECT string_agg(role, ', ' ORDER BY role COLLATE "C") FROM stakeholder_types r WHERE EXISTS (
                SELECT FROM stakeholders x WHERE x.party_no = s.party_no AND x.stk_type_id = r.stk_type_id
                    AND NOT EXISTS (SELECT FROM stakeholders y JOIN stakeholder_types q USING (stk_type_id)
                        WHERE y.party_no = s.party_no AND q.role = r.role AND q.stk_type_id < r.stk_type_id))),
            count(*) OVER party, (SELECT count(DISTINCT case_id) FROM stakeholders x WHERE x.party_no = s.party_no),
            count(admitted_at) OVER party, coalesce(sum(claim_amount) OVER party, 0)::numeric(18,2), case_id,
            min(registered_at) OVER party, max(registered_at) OVER party, min(admitted_at) OVER party
        FROM stakeholders s WINDOW party AS (PARTITION BY party_no)
        ORDER BY party_no, registered_at DESC, stakeholder_id DESC""",
}


@dataclass(frozen=True)
class Project:
    """A copy of the dbt project and the tenant, its stand-in lake, and the source it was loaded from."""

    root: Path
    source: Database

    @property
    def lake(self) -> Path:
        return self.root / "lake.duckdb"

    @property
    def candidates(self) -> Path:
        return self.root / "candidates.duckdb"

    def dbt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "MOZART_TENANT": "acme",
            "DBT_PROFILES_DIR": str(self.root),
            "DBT_TARGET_PATH": str(self.root / "target"),
            "DBT_LOG_PATH": str(self.root / "logs"),
        }
        command = [sys.executable, "-m", "dbt.cli.main", "--no-use-colors", *arguments]
        return subprocess.run(
            command, cwd=self.root / "dbt", env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def build(self, *models: str) -> str:
        self.candidates.unlink(missing_ok=True)
        done = self.dbt("build", *(["--select", *models] if models else []))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def compiled(self, pattern: str) -> str:
        (path,) = (self.root / "target" / "compiled").rglob(pattern)
        return path.read_text(encoding="utf-8")

    def open(self) -> duckdb.DuckDBPyConnection:
        """The stand-in lake as `lake` (to write), the candidates as `candidates`, the source as `source`."""
        connection = engine.connect(extensions=["postgres"], extension_folder=self.root / "ext")
        password = quote_literal(self.source.password)
        connection.execute(
            f"CREATE SECRET pg (TYPE postgres, HOST '127.0.0.1', PORT {self.source.port}, DATABASE"
            f" {quote_literal(self.source.name)}, USER {quote_literal(self.source.user)}, PASSWORD {password})"
        )
        connection.execute("ATTACH '' AS source (TYPE postgres, SECRET pg, READ_ONLY)")
        connection.execute(f"ATTACH {quote_literal(str(self.lake))} AS lake")
        if self.candidates.exists():
            connection.execute(f"ATTACH {quote_literal(str(self.candidates))} AS candidates (READ_ONLY)")
        return connection

    def publish(self) -> None:
        with self.open() as connection:
            for name in _tables(connection, "candidates", "acme"):
                connection.execute(f"CREATE OR REPLACE TABLE lake.acme.{name} AS FROM candidates.acme.{name}")


def _tables(connection: duckdb.DuckDBPyConnection, database: str, schema: str) -> list[str]:
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = ?"
    return sorted(name for (name,) in connection.execute(query, [database, schema]).fetchall())


def _load_raw(project: Project) -> None:
    tables = yaml.safe_load((project.root / "tenants" / "acme" / "tenant.yaml").read_text(encoding="utf-8"))["tables"]
    with project.open() as connection, project.source.connect() as source:
        connection.execute("CREATE SCHEMA lake.acme; CREATE SCHEMA lake.acme_raw")
        for table in tables:
            types = dict(
                source.execute(
                    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s"
                    " ORDER BY ordinal_position",
                    (table["source_table"],),
                ).fetchall()
            )
            names: Sequence[str] = table.get("columns") or list(types)
            columns = ", ".join(_loaded(name, types[name]) for name in names)
            query = quote_literal(f"SELECT {columns} FROM {quote_identifier(table['source_table'])}")
            connection.execute(f"CREATE TABLE lake.acme_raw.{table['name']} AS FROM postgres_query('source', {query})")


def _loaded(name: str, data_type: str) -> str:
    column = quote_identifier(name)
    return f"{column}::{_LOADED_AS[data_type]} AS {column}" if data_type in _LOADED_AS else column


def _profile(root: Path) -> dict[str, object]:
    return {
        "mozart": {
            "target": "dev",
            "outputs": {
                "dev": {
                    "type": "duckdb",
                    "path": str(root / "candidates.duckdb"),
                    "schema": "acme",
                    "threads": 2,
                    "settings": {"TimeZone": "UTC"},
                    "attach": [{"path": str(root / "lake.duckdb"), "alias": "lake", "read_only": True}],
                }
            },
        }
    }


@pytest.fixture(scope="module")
def source(postgres: Postgres) -> Iterator[Database]:
    """A small Axiom Core in which business has gone on."""
    name = f"t_{secrets.token_hex(6)}"
    database = postgres.create_database(name, owner=f"{name}_owner", password="owner-pw")
    with database.connect(autocommit=True) as connection:
        axiom_core.create(connection, scale=SCALE)
        axiom_core.apply_changes(connection, seed=11, inserts=40, updates=40, deletes=12)
    yield database
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def project(source: Database, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything built once and published to the stand-in lake."""
    root = tmp_path_factory.mktemp("acme")
    shutil.copytree(ROOT / "dbt", root / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(ROOT / "tenants" / "acme", root / "tenants" / "acme")
    (root / "profiles.yml").write_text(yaml.safe_dump(_profile(root)), encoding="utf-8")
    made = Project(root, source)
    _load_raw(made)
    made.build()
    made.publish()
    return made


@pytest.mark.parametrize("mart", sorted(QUESTIONS))
def test_a_mart_says_what_the_source_says(project: Project, mart: str) -> None:
    with project.open() as connection:
        columns = ", ".join(row[0] for row in connection.execute(f"DESCRIBE lake.acme.{mart}").fetchall())
        question = quote_literal(f"SELECT * FROM ({QUESTIONS[mart]}) AS answer ({columns})")
        ours, theirs = f"FROM lake.acme.{mart}", f"FROM postgres_query('source', {question})"
        types = [[row[1] for row in connection.execute(f"DESCRIBE {side}").fetchall()] for side in (ours, theirs)]
        assert types[0] == types[1]
        assert connection.execute(f"SELECT count(*) {ours}").fetchone()[0] > 1000  # type: ignore[index]
        for left, right in ((ours, theirs), (theirs, ours)):
            assert connection.execute(f"({left}) EXCEPT ALL ({right}) LIMIT 3").fetchall() == []


def test_staging_cleans_and_keeps_every_row(project: Project) -> None:
    with project.open() as connection:
        for table in _tables(connection, "lake", "acme_raw"):
            staged, raw = (
                connection.execute(f"SELECT count(*) FROM lake.{name}").fetchone()
                for name in (f"acme.stg_{table}", f"acme_raw.{table}")
            )
            assert staged == raw, table
        query = "SELECT count(*) FILTER (WHERE name <> trim(name) OR email <> lower(email)) FROM lake.{}"
        assert connection.execute(query.format("acme.stg_stakeholders")).fetchone() == (0,)
        assert connection.execute(query.format("acme_raw.stakeholders")).fetchone() != (0,)
        assert connection.execute("SELECT min(length(code)) FROM lake.acme.stg_case_types").fetchone() == (5,)
        row = connection.execute(
            "SELECT count(channel), count(*) FILTER (WHERE tags LIKE '%, %'), count(*) FILTER (WHERE tags IS NULL)"
            " FROM lake.acme.stg_cases"
        ).fetchone()
        assert row is not None and min(row) > 0
        assert connection.execute("SELECT max(sample_count) FROM lake.acme.stg_performance_records").fetchone() == (
            3,
        ), "NULL elements count"


def test_a_partial_build_reads_the_rest_as_published(project: Project) -> None:
    """stg_stakeholder_types is published with a mark; only a build that does not select it may see the mark."""
    unneeded = ("assets", "performance_records", "case_user_roles")
    with project.open() as connection:
        connection.execute("UPDATE lake.acme.stg_stakeholder_types SET role = 'published'")
        # Raw tables that the marts do not need are gone, as after a failed first load.
        for table in unneeded:
            connection.execute(f"ALTER TABLE lake.acme_raw.{table} RENAME TO gone_{table}")
    try:
        marts = ["acme__mart_case", "acme__mart_cashflow_monthly", "acme__mart_stakeholder"]
        shutil.rmtree(project.root / "target" / "compiled")
        project.build("acme__stg_stakeholders", *marts)
        with project.open() as connection:
            assert _tables(connection, "candidates", "acme") == [
                "mart_case", "mart_cashflow_monthly", "mart_stakeholder", "stg_stakeholders"
            ]  # fmt: skip
            roles = connection.execute("SELECT DISTINCT roles FROM candidates.acme.mart_stakeholder").fetchall()
            assert roles == [("published",)]
        mart = project.compiled("acme__mart_stakeholder.sql")
        assert '"candidates"."acme"."stg_stakeholders"' in mart
        assert '"lake"."acme"."stg_stakeholder_types"' in mart
        relationships = (project.root / "target" / "compiled").rglob("relationships_acme__stg_stakeh*.sql")
        tested = "\n".join(path.read_text(encoding="utf-8") for path in relationships)
        assert '"candidates"."acme"."stg_stakeholders"' in tested and '"lake"."acme"."stg_cases"' in tested
        assert '"candidates"."acme"."mart_stakeholder"' in project.compiled(
            "unique_acme__mart_stakeholder_party_no.sql"
        )
    finally:
        with project.open() as connection:
            for table in unneeded:
                connection.execute(f"ALTER TABLE lake.acme_raw.gone_{table} RENAME TO {table}")


def test_bad_rows_fail_the_tests_of_the_candidate(project: Project) -> None:
    with project.open() as connection:
        connection.execute("CREATE TABLE lake.acme_raw.kept AS FROM lake.acme_raw.cash_flow_entries")
        connection.execute("INSERT INTO lake.acme_raw.cash_flow_entries FROM lake.acme_raw.kept LIMIT 1")
        connection.execute("UPDATE lake.acme_raw.cash_flow_entries SET amount = -1 WHERE entry_id = 2")
    try:
        project.candidates.unlink(missing_ok=True)
        done = project.dbt("build", "--select", "acme__stg_cash_flow_entries")
        assert done.returncode == 1
        assert "Failure in test unique_acme__stg_cash_flow_entries_entry_id" in done.stdout
        assert "Failure in test non_negative_acme__stg_cash_flow_entries_amount" in done.stdout
        assert "ERROR=2" in done.stdout
    finally:
        with project.open() as connection:
            connection.execute("CREATE OR REPLACE TABLE lake.acme_raw.cash_flow_entries AS FROM lake.acme_raw.kept")


def test_a_model_whose_table_is_not_named_as_its_file_is_refused(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path, project.source)
    shutil.copytree(project.root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.duckdb"))
    model = tmp_path / "tenants" / "acme" / "models" / "mart" / "acme__mart_case.sql"
    text = model.read_text(encoding="utf-8")
    model.write_text(text.replace("alias='mart_case'", "alias='cases'"), encoding="utf-8")
    done = other.dbt("parse")
    assert done.returncode == 2
    assert "alias 'cases' must be 'mart_case', as the file is named" in done.stdout
