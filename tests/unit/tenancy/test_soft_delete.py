"""`soft_delete` of a table: read, and refused where it could have no effect."""

from __future__ import annotations

import pytest

from mozart.errors import ConfigurationError
from mozart.tenancy.load import load_tenant
from mozart.tenancy.model import SoftDelete
from tests.unit.tenancy.conftest import WriteTenant

MODE = "    mode: incremental\n"


def with_option(acme: str, text: str) -> str:
    assert acme.count(MODE) >= 1
    return acme.replace(MODE, f"{MODE}    {text}\n", 1)


def test_a_column_is_read(write_tenant: WriteTenant, acme: str) -> None:
    tenant = load_tenant(write_tenant(with_option(acme, "soft_delete: {column: status}")))
    assert tenant.tables[0].soft_delete == SoftDelete(column="status")
    assert load_tenant(write_tenant(acme)).tables[0].soft_delete is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("soft_delete: status", "tables[0].soft_delete: must be a mapping"),
        ("soft_delete: {}", "tables[0].soft_delete.column: is missing"),
        ("soft_delete: {column: gone}", "tables[0].soft_delete: 'gone' is not among columns"),
        ("soft_delete: {colum: status}", "tables[0].soft_delete.colum: unknown key; did you mean 'column'?"),
    ],
)
def test_a_mistake_says_where_it_is(write_tenant: WriteTenant, acme: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_tenant(write_tenant(with_option(acme, text)))
    assert expected in str(caught.value)


def test_a_full_refresh_has_no_use_for_it(write_tenant: WriteTenant, acme: str) -> None:
    text = acme.replace(MODE, "    mode: full_refresh\n    soft_delete: {column: status}\n", 1)
    with pytest.raises(ConfigurationError, match="soft_delete: has a meaning for mode incremental only"):
        load_tenant(write_tenant(text))
