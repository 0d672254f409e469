"""Two tenants that would have one login on Trino: one of them is left as it was, the others are deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mozart.cli.deploy import _read_tenants
from mozart.fleet.logins import apply_logins
from mozart.services.trino_logins import TrinoLogins, access_folder
from mozart.settings import Settings, load_settings
from mozart.tenancy.names import Namespaces, namespaces
from tests.unit.services.test_trino_of_the_stack import OPERATOR

TENANT = """\
tenant:
  id: {id}
  source: {{type: postgresql, host: h, database: d, username: u, password: "${{{variable}}}"}}
  schedule: "0 3 * * *"
{place}tables: [{{name: cases, source_schema: public, source_table: cases}}]
"""
OWN = """\
  storage: {{bucket: {id}-landing, access_key_id: "${{PW}}", secret_access_key: "${{PW}}"}}
  iceberg: {{catalog: {id}_lake, schema: {schema}, warehouse: {id}-warehouse}}
"""


def _write(root: Path, tenant_id: str, place: str = "", variable: str = "PW") -> None:
    folder = root / "tenants" / tenant_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tenant.yaml").write_text(TENANT.format(id=tenant_id, place=place, variable=variable))


def _own(tenant_id: str, schema: str) -> str:
    return OWN.format(id=tenant_id, schema=schema)


def _settings(root: Path, **more: str) -> Settings:
    (root / "pyproject.toml").touch()
    trino = {"MOZART_ENGINE": "trino", "MOZART_TRINO_PASSWORD": "operator-password", "MOZART_TRINO_PORT": "1"}
    return load_settings(root, environ={**trino, "PW": "p", **more})


def _deploy(settings: Settings) -> tuple[dict[str, str], set[Namespaces]]:
    """The mistakes by tenant and everybody who has a login after the deploy's two steps that deal with them."""
    tenants = _read_tenants(settings)
    apply_logins(settings, [one.namespaces(settings.suffix) for _, one in tenants.good], keep=bool(tenants.broken))
    found = {tenant_id: "; ".join(map(str, problems)) for tenant_id, problems in tenants.broken.items()}
    return found, set(TrinoLogins(access_folder(settings), OPERATOR).tenants())


@pytest.mark.parametrize(("holder", "broken"), [(None, "beta"), ("iceberg", "beta"), ("beta_lake", "acme")])
def test_of_two_forms_with_one_schema_the_one_with_the_login_keeps_it(
    tmp_path: Path, holder: str | None, broken: str
) -> None:
    _write(tmp_path, "acme")
    _write(tmp_path, "beta", _own("beta", "acme"))
    _write(tmp_path, "harbor")
    settings = _settings(tmp_path)
    if holder:
        apply_logins(settings, [namespaces(holder, "acme")])
    problems, logins = _deploy(settings)
    assert set(problems) == {broken}
    assert problems[broken].startswith(f"tenants/{broken}/tenant.yaml: tenant.iceberg.schema: ")
    assert all(words in problems[broken] for words in ("'acme'", "'beta'", "another schema"))
    kept = namespaces("iceberg" if broken == "beta" else "beta_lake", "acme")
    assert logins == {kept, namespaces("iceberg", "harbor")}


def test_a_tenant_moves_to_its_own_lake_while_another_is_broken(tmp_path: Path) -> None:
    _write(tmp_path, "acme", _own("acme", "acme"))
    _write(tmp_path, "harbor", variable="NOT_SET")
    settings = _settings(tmp_path)
    apply_logins(settings, [namespaces("iceberg", "acme"), namespaces("iceberg", "harbor")])
    problems, logins = _deploy(settings)
    assert set(problems) == {"harbor"}
    assert logins == {namespaces("acme_lake", "acme"), namespaces("iceberg", "harbor")}


def test_nobody_takes_the_login_of_a_tenant_that_lacks_a_value(tmp_path: Path) -> None:
    _write(tmp_path, "acme", variable="NOT_SET")
    _write(tmp_path, "beta", _own("beta", "acme"))
    settings = _settings(tmp_path)
    apply_logins(settings, [namespaces("iceberg", "acme")])
    problems, logins = _deploy(settings)
    assert set(problems) == {"acme", "beta"}
    assert logins == {namespaces("iceberg", "acme")}


def test_a_schema_with_the_operators_name_breaks_its_tenant_only(tmp_path: Path) -> None:
    _write(tmp_path, "acme", "  iceberg: {catalog: iceberg, schema: mozart}\n")
    _write(tmp_path, "harbor")
    problems, logins = _deploy(_settings(tmp_path))
    assert "the operator's login" in problems.pop("acme")
    assert (problems, logins) == ({}, {namespaces("iceberg", "harbor")})


def test_a_branchs_name_that_production_has_breaks_its_tenant_only(tmp_path: Path) -> None:
    _write(tmp_path, "acme")
    _write(tmp_path, "harbor")
    apply_logins(_settings(tmp_path), [namespaces("iceberg", "acme_dev")])
    problems, logins = _deploy(_settings(tmp_path, MOZART_BRANCH="dev"))
    assert "a tenant of production" in problems.pop("acme")
    assert problems == {}
    assert logins == {namespaces("iceberg", "acme_dev"), namespaces("iceberg", "harbor", "_dev")}
