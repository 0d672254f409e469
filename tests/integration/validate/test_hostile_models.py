"""Broken models of a real tenant through real dbt on empty tables: everything at once, each mistake one line."""

from __future__ import annotations

import json
import shutil

import duckdb
import pytest
from click.testing import CliRunner

from mozart.cli import sync, validate
from mozart.engine.validate_models import ModelCheck
from tests.integration.validate.conftest import ROOT, Copy

CASE_SQL, CASE_YML = "mart/acme__mart_case.sql", "mart/acme__mart_case.yml"
FLOW_SQL, PARTY_SQL = "mart/acme__mart_cashflow_monthly.sql", "mart/acme__mart_stakeholder.sql"


def test_the_sample_tenant_is_right_and_nothing_is_left_in_the_checkout(copy: Copy) -> None:
    shutil.rmtree(copy.models)
    shutil.copytree(ROOT / "tenants" / "acme" / "models", copy.models)
    before = sorted(path.relative_to(copy.root) for path in copy.root.rglob("*"))
    check = copy.check()
    assert (check.problems, check.models, check.was_built) == ((), 12, True)
    assert sorted(path.relative_to(copy.root) for path in copy.root.rglob("*")) == before
    database = copy.state / "dbt" / "acme" / "validate" / "runs" / "check" / "candidates.duckdb"
    with duckdb.connect(str(database), read_only=True) as built:
        tables = dict(built.execute("SELECT table_name, estimated_size FROM duckdb_tables()").fetchall())
    assert len(tables) == 12 and set(tables.values()) == {0}, "the models were really built, on no rows"


def test_everything_is_told_at_once(copy: Copy) -> None:
    copy.edit("staging/acme__stg_assets.sql", "with source as", "with source ass")
    copy.edit("staging/acme__stg_case_types.sql", "{{ config(alias='stg_case_types') }}", "")
    copy.edit("staging/acme__stg_organisations.sql", "region,", "regio,")
    # The compiled SQL has other lines than the file; a model that all marts read fails, and the marts are checked.
    loop = "{% for number in [1, 2, 3] %}\n-- {{ number }}\n{% endfor %}\nwith source as"
    copy.edit("staging/acme__stg_organisations.sql", "with source as", loop)
    copy.edit("staging/acme__stg_cases.sql", "due_on", "due_onn")
    copy.edit(FLOW_SQL, "{{ ref('acme__stg_cases') }}", "{{ ref('acme__stg_cases') }")
    copy.edit(CASE_SQL, "cast(null as varchar) as channel", "cases.chanel as channel")
    copy.edit(PARTY_SQL, "cast(null as bigint) as case_count", "cast(null as varchar) as case_count")
    copy.edit(PARTY_SQL, "as admitted_count,", "as admitted_count,\n    1 as surplus,")
    (copy.models / "staging" / "acme__stg_stakeholder_types.sql").write_bytes(b"select '\xff'")
    lines = copy.said()
    expected = [
        f"{CASE_SQL}:19: ",
        f"{FLOW_SQL}:5: is not a valid template",
        f"{PARTY_SQL}:17: column case_count is VARCHAR; its contract says BIGINT",
        f"{PARTY_SQL}:19: column surplus is selected but not declared",
        "staging/acme__stg_assets.sql:3: Parser Error: syntax error at or near",
        "staging/acme__stg_case_types.sql:1: names no table; add {{ config(alias='stg_case_types') }}",
        "staging/acme__stg_cases.sql:",
        'staging/acme__stg_organisations.sql:23: Binder Error: Referenced column "regio" not found',
        "staging/acme__stg_stakeholder_types.sql:1: is not UTF-8 (byte 8)",
    ]
    assert len(lines) == len(expected), lines
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start), (line, start)
    assert "chanel" in lines[0] and "due_onn" in lines[6]


def test_a_tenant_who_removes_its_contract_is_still_caught(copy: Copy) -> None:
    config = "{{{{ config(alias='{}', contract={{'enforced': false}}) }}}}"
    for file, alias in ((CASE_SQL, "mart_case"), (PARTY_SQL, "mart_stakeholder"), (FLOW_SQL, "mart_cashflow_monthly")):
        copy.edit(file, f"{{{{ config(alias='{alias}') }}}}", config.format(alias))
    email, country = "    cast(null as varchar) as email,\n", "    cast(null as varchar) as country,\n"
    copy.edit(CASE_SQL, "cast(null as integer) as priority", "cast(null as bigint) as priority")
    copy.edit(PARTY_SQL, email + country, country + email)
    copy.edit(FLOW_SQL, "    cast(null as bigint) as entry_count,\n", "")
    lines = copy.said()
    assert lines[0] == f"{CASE_SQL}:20: mart_case: column priority is long, not int"
    assert lines[1] == f"{FLOW_SQL}:1: mart_cashflow_monthly: column entry_count is missing"
    assert lines[2].startswith(f"{PARTY_SQL}:1: mart_stakeholder: its columns stand in another order than party_no,")
    assert len(lines) == 3, lines


def test_what_only_dbt_sees_is_told_and_the_rest_is_built(copy: Copy) -> None:
    copy.edit(
        "staging/acme__stg_assets.sql", "select * from {{ source", "select * from {{ no_such_macro() }} {{ source"
    )
    copy.edit("_sources.yml", "schema: \"{{ env_var('MOZART_SCHEMA', 'acme') }}_raw\"", "schema: acme_raw")
    copy.edit(CASE_YML, "- unique\n", "- unique\n          - no_such_test\n")
    lines = copy.said()
    assert any("no_such_macro" in line and line.startswith("staging/acme__stg_assets.sql:1:") for line in lines), lines
    assert any("no_such_test" in line for line in lines), lines


def test_an_incremental_model_is_built_whole_on_empty_tables(copy: Copy) -> None:
    file = "staging/acme__stg_cases.sql"
    copy.edit(file, "alias='stg_cases'", "alias='stg_cases', materialized='incremental', unique_key='case_id'")
    newer = "where updated_at > (select max(updated_at) from {{ this }})"
    path = copy.models / file
    path.write_text(f"{path.read_text()}\n{{% if is_incremental() %}}{newer}{{% endif %}}\n")
    assert copy.check() == ModelCheck(12, (), was_built=True)


def test_a_schema_that_ignores_the_environment_is_refused(copy: Copy) -> None:
    copy.edit("_sources.yml", "schema: \"{{ env_var('MOZART_SCHEMA', 'acme') }}_raw\"", "schema: acme_raw")
    copy.edit(CASE_SQL, "alias='mart_case'", "alias='mart_case', schema='harbor'")
    copy.edit(PARTY_SQL, "alias='mart_stakeholder'", "alias='mart_stakeholder', materialized='ephemeral'")
    copy.edit(FLOW_SQL, "alias='mart_cashflow_monthly'", "alias='mart_cashflow_monthly', enabled=false")
    lines = copy.said()
    assert f"{CASE_SQL}: chooses its own schema or database; a tenant's models all lie in its own namespace" in lines
    assert any(line.startswith("_sources.yml:4: schema: must follow the environment") for line in lines)
    for file in (PARTY_SQL, FLOW_SQL):
        assert f"{file}: makes no table; a mart is neither disabled nor ephemeral" in lines


def test_a_model_that_reads_past_its_own_tables_finds_nothing(copy: Copy) -> None:
    """Written out instead of by source(): in the stand-in lake there is no other tenant, and no file can be read."""
    copy.edit("staging/acme__stg_assets.sql", "{{ source('acme_raw', 'assets') }}", "lake.harbor_raw.assets")
    copy.edit("staging/acme__stg_case_types.sql", "{{ source('acme_raw', 'case_types') }}", "read_csv('/etc/passwd')")
    lines = copy.said()
    assert len(lines) == 2, lines
    assert lines[0].startswith(
        'staging/acme__stg_assets.sql:5: Catalog Error: Table with name "harbor_raw.assets" does not exist'
    )
    assert lines[1].startswith("staging/acme__stg_case_types.sql:") and "Permission Error" in lines[1]


def test_a_test_that_asks_for_an_unknown_column_is_told(copy: Copy) -> None:
    copy.edit("mart/acme__mart_cashflow_monthly.yml", "    columns:\n", UNKNOWN_KEY)
    (line,) = copy.said()
    assert line.startswith("mart/acme__mart_cashflow_monthly.yml:4: test unique_together_")
    assert "no_such_column" in line


UNKNOWN_KEY = """\
      - unique_together:
          arguments:
            columns: [no_such_column]
    columns:
"""


def test_one_tenants_broken_files_do_not_touch_another(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """beta is a twin of acme whose models cannot even be read; acme is still found right, by the same command."""
    twin = copy.root / "tenants" / "beta"
    shutil.copytree(copy.root / "tenants" / "acme", twin)
    config = twin / "tenant.yaml"
    config.write_text(config.read_text().replace("acme", "beta"))
    (twin / "models" / "_sources.yml").write_text("sources: [\n")
    runner = CliRunner()
    assert runner.invoke(sync.command, ["--root", str(copy.root)]).exit_code == 0
    result = runner.invoke(validate.command, ["--root", str(copy.root), "--json"])
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    acme, beta = report["tenants"]
    assert (acme["ok"], acme["built"], acme["problems"]) == (True, True, [])
    assert not beta["built"]
    assert {"file": "tenants/beta/models/_sources.yml", "line": 2} in [
        {"file": problem["file"], "line": problem["line"]} for problem in beta["problems"]
    ]
    assert report["problems"] == []
    parsed = runner.invoke(validate.command, ["--root", str(copy.root), "acme", "--parse-only"])
    assert (parsed.exit_code, parsed.output) == (0, "acme: ok, 12 models\n")


def test_the_sources_types_are_needed(copy: Copy) -> None:
    copy.edit("_sources.yml", '{name: amount, data_type: "decimal(14,2)"}', "{name: amount, data_type: money}")
    copy.edit("_sources.yml", "{name: code, data_type: varchar}", "{name: code}")
    lines = copy.said()
    assert any(line.endswith("amount: 'money' is no type of DuckDB's") for line in lines), lines
    assert any("code: has no data_type" in line for line in lines), lines
    assert len(lines) == 2, lines


def test_no_state_is_shared_with_the_runs(copy: Copy) -> None:
    copy.check(parse_only=True)
    assert {path.name for path in (copy.state / "dbt" / "acme").iterdir()} == {"validate"}
