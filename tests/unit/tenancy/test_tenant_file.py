"""tenant.yaml → Tenant: what a good file gives, and that each mistake is one line with file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mozart.errors import ConfigurationError
from mozart.tenancy.load import load_tenant
from mozart.tenancy.model import Tenant, TenantFilter

TYPES = ("mysql", "postgresql", "sqlite")
WriteTenant = Callable[..., Path]


def mistakes(folder: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_tenant(folder, TYPES)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(caught.value.problems), "one line for each mistake"
    return lines


def test_a_good_file_gives_the_whole_model(write_tenant: WriteTenant, acme: str) -> None:
    tenant = load_tenant(write_tenant(acme), TYPES)
    assert tenant.id == "acme"
    assert tenant.source.type == "postgresql"
    assert tenant.source.connection["password"] == "${ACME_DB_PASSWORD}"
    assert tenant.source.params == {"project_id": "7f0c"}
    assert (tenant.storage.bucket, tenant.storage.prefix) == ("${S3_BUCKET:warehouse}", "raw/acme")
    assert (tenant.iceberg.catalog, tenant.iceberg.schema_name) == ("iceberg", "acme")
    assert (tenant.schedule, tenant.timezone) == ("0 */2 * * *", "UTC")
    (table,) = tenant.tables
    assert table.tenant_filter == TenantFilter(column="project_id", param="project_id")
    assert (table.primary_key, table.columns) == (("id",), ("id", "status", "updated_at"))
    assert (table.mode, table.incremental_column) == ("incremental", "updated_at")


def test_what_may_be_left_out_has_its_default(write_tenant: WriteTenant) -> None:
    text = (
        "tenant:\n  id: lite\n  source: {type: sqlite, database: data/lite.db}\ntables: [{name: t, source_table: T}]\n"
    )
    tenant = load_tenant(write_tenant(text, "lite"), TYPES)
    assert (tenant.storage.prefix, tenant.iceberg.schema_name, tenant.schedule) == ("raw/lite", "lite", None)
    assert (tenant.tables[0].mode, tenant.tables[0].columns) == ("full_refresh", None)


def test_a_filter_may_name_another_column(write_tenant: WriteTenant, acme: str) -> None:
    text = acme.replace("tenant_filter: project_id", "tenant_filter: {column: customer_no, param: project_id}")
    tenant = load_tenant(write_tenant(text), TYPES)
    assert tenant.tables[0].tenant_filter == TenantFilter(column="customer_no", param="project_id")


def test_a_tenant_cannot_be_changed(write_tenant: WriteTenant, acme: str) -> None:
    tenant: Tenant = load_tenant(write_tenant(acme), TYPES)
    with pytest.raises(ValueError, match="frozen"):
        tenant.id = "beta"


# (what to replace, by what, the line the mistake must give after "tenants/acme/tenant.yaml:")
MISTAKES = [
    ("id: acme", "id: Acme", "2: tenant.id: 'Acme' must match"),
    ("id: acme", "id: beta", "2: tenant.id: must equal the folder's name 'acme'"),
    ("id: acme", 'id: "${ID:acme}"', "2: tenant.id: ${…} is not allowed here"),
    ("  id: acme\n", "", "2: tenant.id: is missing"),
    ("type: postgresql", "type: postgres", "4: tenant.source.type: 'postgres' is no registered connector"),
    ("    type: postgresql\n", "", "4: tenant.source.type: is missing"),
    ('    host: "${ACME_DB_HOST:localhost}"\n', "", "4: tenant.source.host: is missing"),
    ("${ACME_DB_PORT:5432}", "${ACME_DB_PORT:54x32}", "6: tenant.source.port: with its default, must be a port"),
    ('"${ACME_DB_PORT:5432}"', "70000", "6: tenant.source.port: must be a port"),
    ("${ACME_DB_HOST:localhost}", "${ACME_DB_HOST", "5: tenant.source.host: has a '${' without its '}'"),
    ("${ACME_DB_HOST:localhost}", "${ACME-DB}", "5: tenant.source.host: a variable is written"),
    ("${ACME_DB_HOST:localhost}", "${H:-localhost}", "5: tenant.source.host: the default of ${H} starts with '-'"),
    ("    password:", "    pasword:", "9: tenant.source.pasword: unknown key; did you mean 'password'?"),
    ("    password:", "    sslmode: require\n    password:", "9: tenant.source.sslmode: unknown key"),
    ('"7f0c"', "no", "10: tenant.params.project_id: must be text, but YAML reads it as a boolean"),
    ("{project_id:", "{api_token:", "10: tenant.params.api_token: a parameter is a filter's value"),
    ("prefix: raw/acme", "prefix: ../acme", "11: tenant.storage.prefix: must be a path like raw/acme"),
    ("prefix: raw/acme", "prefix: /acme", "11: tenant.storage.prefix: must be a path like raw/acme"),
    ("schema: acme", "schema: acme_raw", "12: tenant.iceberg.schema: must not end in _raw"),
    ("schema: acme", "schemas: acme", "12: tenant.iceberg.schemas: unknown key; did you mean 'schema'?"),
    ('"0 */2 * * *"', '"0 25 * * *"', "13: tenant.schedule: the hour '25'"),
    ('"0 */2 * * *"', '"${CRON:0 2 * * *}"', "13: tenant.schedule: ${…} is not allowed here"),
    (
        '"0 */2 * * *"',
        '"0 2 * * *"\n  timezone: Europe/Berln',
        "14: tenant.timezone: 'Europe/Berln' is not a time zone",
    ),
    ("name: cases", "name: Cases", "15: tables[0].name: 'Cases' must match"),
    ("source_table: cases", 'source_table: " cases"', "17: tables[0].source_table: begins or ends with a blank"),
    ("name: cases", 'name: "${T}"', "15: tables[0].name: ${…} is not allowed here"),
    ("    source_table: cases\n", "", "15: tables[0].source_table: is missing"),
    ("primary_key: [id]", "primary_key: [idd]", "18: tables[0].primary_key[0]: 'idd' is not among columns"),
    ("primary_key: [id]", "primary_key: [ID]", "18: tables[0].primary_key[0]: 'ID' is not among columns; did you mean"),
    ("primary_key: [id]", 'primary_key: ["${K}"]', "18: tables[0].primary_key[0]: ${…} is not allowed here"),
    ("primary_key: [id]", "primary_key: id", "18: tables[0].primary_key: must be a list; is text"),
    ("primary_key: [id]", "primary_key: []", "18: tables[0].primary_key: is an empty list"),
    ("    primary_key: [id]\n", "", "15: tables[0].primary_key: is missing; mode incremental needs it"),
    ("[id, status,", "[id, status, status,", "19: tables[0].columns[2]: 'status' is listed twice"),
    ("[id, status,", "[id, status, Status,", "19: tables[0].columns[2]: 'Status' and 'status' differ only by case"),
    ("[id, status,", "[id, status, 3,", "19: tables[0].columns[2]: must be text, but YAML reads it as an integer"),
    ("tenant_filter: project_id", "tenant_filter: projectid", "20: tables[0].tenant_filter: 'projectid' is not a key"),
    ("tenant_filter: project_id", "tenant_filter: {column: a}", "20: tables[0].tenant_filter.param: is missing"),
    (
        "incremental_column: updated_at",
        "incremental_column: seen_at",
        "21: tables[0].incremental_column: 'seen_at' is not",
    ),
    ("    incremental_column: updated_at\n", "", "15: tables[0].incremental_column: is missing; mode incremental"),
    ("mode: incremental", "mode: incr", "22: tables[0].mode: 'incr' is not one of full_refresh, incremental"),
    (
        "mode: incremental",
        "mode: incremental\n    watermark_lag_seconds: -1",
        "23: tables[0].watermark_lag_seconds: must",
    ),
    ("mode: incremental", "mode:", "22: tables[0].mode: is empty"),
    ("tables:", "table:", "14: table: unknown key; did you mean 'tables'?"),
]


@pytest.mark.parametrize(("old", "new", "expected"), MISTAKES, ids=[expected[:60] for _, _, expected in MISTAKES])
def test_each_mistake_says_where_it_is(write_tenant: WriteTenant, acme: str, old: str, new: str, expected: str) -> None:
    assert acme.count(old) >= 1
    found = mistakes(write_tenant(acme.replace(old, new, 1)))
    assert any(line.startswith(f"tenants/acme/tenant.yaml:{expected}") for line in found), found


def test_all_mistakes_come_at_once_in_the_order_of_the_file(write_tenant: WriteTenant, acme: str) -> None:
    text = acme.replace("id: acme", "id: Acme").replace("0 */2 * * *", "x").replace("mode: incremental", "mode: x")
    lines = [int(line.split(":")[1]) for line in mistakes(write_tenant(text))]
    assert lines == sorted(lines)
    assert {2, 13, 22} <= set(lines)


def test_two_tables_of_one_name_are_refused(write_tenant: WriteTenant, acme: str) -> None:
    found = mistakes(write_tenant(acme + "  - {name: cases, source_table: other}\n"))
    assert found == ["tenants/acme/tenant.yaml:23: tables[1].name: tables[0] is called 'cases' already"]


@pytest.mark.parametrize(
    "tenant_id", ["acme_raw", "main", "information_schema", "a__b", "a_", "a" * 38, "1a", "ä", "a-b"]
)
def test_ids_that_would_collide_are_refused(write_tenant: WriteTenant, acme: str, tenant_id: str) -> None:
    text = acme.replace("id: acme", f"id: {tenant_id}")
    assert any(f": tenant.id: '{tenant_id}' " in line for line in mistakes(write_tenant(text, tenant_id)))


@pytest.mark.parametrize("secret", ["hunter2", "${P:hunter2}", "pre${P}hunter2", "123456"])
def test_a_secret_in_the_file_is_refused_and_never_repeated(write_tenant: WriteTenant, acme: str, secret: str) -> None:
    found = mistakes(write_tenant(acme.replace("${ACME_DB_PASSWORD}", secret)))
    assert any(":9: tenant.source.password: " in line for line in found), found
    assert not any("hunter2" in line or "123456" in line for line in found)


@pytest.mark.parametrize("key", ["sslkey_passphrase", "api_key", "auth-token", "client_secret", "PWD"])
def test_secrets_among_the_options_are_known_by_their_names(write_tenant: WriteTenant, acme: str, key: str) -> None:
    text = acme.replace("    password:", f"    options: {{{key}: hunter2}}\n    password:")
    (found,) = mistakes(write_tenant(text))
    assert f"tenant.source.options.{key}: is a secret" in found
    assert "hunter2" not in found
    good = acme.replace("    password:", f'    options: {{{key}: "${{X}}", sslmode: require}}\n    password:')
    assert load_tenant(write_tenant(good), TYPES).source.options["sslmode"] == "require"


def test_a_login_inside_an_address_is_refused(write_tenant: WriteTenant, acme: str) -> None:
    found = mistakes(write_tenant(acme.replace("${ACME_DB_HOST:localhost}", "postgres://u:hunter2@h/db")))
    assert any("holds a login inside an address" in line for line in found)
    assert not any("hunter2" in line for line in found)


def test_sources_come_from_the_registry_unless_given(write_tenant: WriteTenant, acme: str) -> None:
    folder = write_tenant(acme)
    assert load_tenant(folder).source.type == "postgresql"
    with pytest.raises(ConfigurationError, match="registered: mysql"):
        load_tenant(folder, ("mysql",))
