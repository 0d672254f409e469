"""Many tenants: one that is broken breaks no other, and no two write into the same place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mozart.errors import ConfigurationError, Problem
from mozart.tenancy.footprint import check_resolved
from mozart.tenancy.load import Fleet, load_fleet, load_tenants
from mozart.tenancy.resolve import resolve

WriteTenant = Callable[..., Path]
TYPES = ("sqlite",)
OWN_STORAGE = '{bucket: own, access_key_id: "${OWN_KEY}", secret_access_key: "${OWN_SECRET}"}'
OWN_LAKE = {"OWN_KEY": "key", "OWN_SECRET": "secret"}


def minimal(tenant_id: str, **places: str) -> str:
    lines = [f"tenant:\n  id: {tenant_id}\n  source: {{type: sqlite, database: x.db}}"]
    lines += [f"  {area}: {text}" for area, text in places.items()]
    return "\n".join([*lines, "tables: [{name: t, source_table: t}]\n"])


def test_a_broken_tenant_is_set_apart(write_tenant: WriteTenant, tmp_path: Path) -> None:
    write_tenant(minimal("beta"), "beta")
    write_tenant(minimal("acme"), "acme")
    write_tenant(b"\xff\xfe", "zulu")
    (tmp_path / "tenants" / "empty").mkdir()
    (tmp_path / "tenants" / ".hidden").mkdir()
    (tmp_path / "tenants" / "__pycache__").mkdir()
    (tmp_path / "tenants" / "README.md").write_text("not a tenant")
    fleet = load_fleet(tmp_path, TYPES)
    assert [tenant.id for tenant in fleet.tenants] == ["acme", "beta"]
    assert set(fleet.broken) == {"zulu", "empty"}
    assert fleet.tenant("acme").id == "acme"
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        fleet.tenant("zulu")
    with pytest.raises(ConfigurationError, match="no tenant 'nobody'; known: acme, beta"):
        fleet.tenant("nobody")
    with pytest.raises(ConfigurationError) as caught:
        load_tenants(tmp_path, TYPES)
    assert {problem.file.split(":")[0] for problem in caught.value.problems} == {
        "tenants/zulu/tenant.yaml",
        "tenants/empty/tenant.yaml",
    }


def test_no_tenants_is_no_mistake(tmp_path: Path) -> None:
    assert load_tenants(tmp_path, TYPES) == []


@pytest.mark.parametrize(
    ("places", "key"),
    [
        ({"iceberg": "{schema: acme}"}, "tenant.iceberg.schema"),
        ({"iceberg": "{catalog: own, schema: acme}"}, "tenant.iceberg.schema"),  # the shared lake by another name
        ({"storage": "{prefix: raw/acme}"}, "tenant.storage.prefix"),
        ({"storage": "{prefix: raw/acme/}"}, "tenant.storage.prefix"),
        ({"storage": "{prefix: raw/acme/inner}"}, "tenant.storage.prefix"),
        ({"storage": "{prefix: raw}"}, "tenant.storage.prefix"),
        ({"storage": '{bucket: landing, prefix: "${P:raw/acme}"}'}, "tenant.storage.prefix"),
    ],
)
def test_the_tenant_that_left_its_name_is_to_blame(
    write_tenant: WriteTenant, tmp_path: Path, places: dict[str, str], key: str
) -> None:
    write_tenant(minimal("acme"), "acme")
    # Before and after acme in the alphabet: the order must not matter.
    for intruder in ("aaa", "zzz"):
        write_tenant(minimal(intruder, **places), intruder)
        fleet = load_fleet(tmp_path, TYPES)
        assert [tenant.id for tenant in fleet.tenants] == ["acme"]
        assert {(p.file, p.key) for p in fleet.problems} == {(f"tenants/{intruder}/tenant.yaml", key)}
        (tmp_path / "tenants" / intruder / "tenant.yaml").unlink()
        (tmp_path / "tenants" / intruder).rmdir()


@pytest.mark.parametrize(
    "places",
    [
        {"storage": "{prefix: raw/acme2}"},
        {"storage": "{bucket: other, prefix: raw/acme}"},
        {"storage": OWN_STORAGE, "iceberg": "{catalog: own, schema: acme, warehouse: beta-warehouse}"},
    ],
)
def test_near_misses_are_fine(write_tenant: WriteTenant, tmp_path: Path, places: dict[str, str]) -> None:
    write_tenant(minimal("acme"), "acme")
    write_tenant(minimal("beta", **places), "beta")
    assert not load_fleet(tmp_path, TYPES).broken


def test_when_both_left_their_names_both_are_named(write_tenant: WriteTenant, tmp_path: Path) -> None:
    write_tenant(minimal("acme", iceberg="{schema: shared}"), "acme")
    write_tenant(minimal("beta", iceberg="{schema: shared}"), "beta")
    assert set(load_fleet(tmp_path, TYPES).broken) == {"acme", "beta"}


def test_collisions_that_only_values_show_are_found_after_resolution(write_tenant: WriteTenant, tmp_path: Path) -> None:
    write_tenant(minimal("acme"), "acme")
    write_tenant(minimal("beta", iceberg='{schema: "${BETA_SCHEMA}"}'), "beta")
    fleet = load_fleet(tmp_path, TYPES)
    assert not fleet.broken
    assert not _check(fleet, {"BETA_SCHEMA": "beta"})
    assert set(_check(fleet, {"BETA_SCHEMA": "acme"})) == {"beta"}


@pytest.mark.parametrize(("warehouse", "blamed"), [("own", set[str]()), ("shared", {"beta"})])
def test_a_lake_of_its_own_is_not_the_shared_one(
    write_tenant: WriteTenant, tmp_path: Path, warehouse: str, blamed: set[str]
) -> None:
    write_tenant(minimal("acme"), "acme")
    place = f"{{catalog: own, schema: acme, warehouse: {warehouse}}}"
    write_tenant(minimal("beta", storage=OWN_STORAGE, iceberg=place), "beta")
    assert set(_check(load_fleet(tmp_path, TYPES), OWN_LAKE)) == blamed


def test_two_lakes_in_one_warehouse_are_one(write_tenant: WriteTenant, tmp_path: Path) -> None:
    for tenant_id in ("acme", "beta"):
        place = f"{{catalog: {tenant_id}_lake, schema: acme, warehouse: one}}"
        write_tenant(minimal(tenant_id, storage=OWN_STORAGE.replace("own", tenant_id), iceberg=place), tenant_id)
    assert set(load_fleet(tmp_path, TYPES).broken) == {"beta"}


def _check(fleet: Fleet, values: dict[str, str]) -> dict[str, tuple[Problem, ...]]:
    return check_resolved([resolve(tenant, values) for tenant in fleet.tenants], "shared")
