"""`${VAR}`: what is accepted, and that resolution gives typed values or every mistake at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mozart.errors import ConfigurationError
from mozart.tenancy.load import load_tenant
from mozart.tenancy.resolve import resolve
from mozart.tenancy.templates import is_secret_key, missing_variables, resolve_text, secret_mistake, template_mistake

WriteTenant = Callable[..., Path]


def test_values_defaults_and_text_around_them() -> None:
    assert resolve_text("${A}-${B:b}/${C:}", {"A": "1", "C": "3"}) == "1-b/3"
    assert resolve_text("plain $A {B} }", {"A": "1"}) == "plain $A {B} }"
    assert missing_variables("${A}${B:b}${C}", {"C": ""}) == ("A", "C"), "an empty value counts as not set"
    with pytest.raises(KeyError, match="A"):
        resolve_text("${A}", {})


@given(st.text(alphabet="${}:AB", max_size=12))
def test_a_value_is_never_read_as_a_template_again(value: str) -> None:
    assert resolve_text("<${A}|${A}>", {"A": value or "x", "B": "leaked"}) == f"<{value or 'x'}|{value or 'x'}>"


@pytest.mark.parametrize(
    "text", ["${", "${A", "a${}", "${A B}", "${1A}", "${A-}", "${:x}", "${A:${B}}", "${A:-x}", "${ä}"]
)
def test_malformed_variables_are_refused(text: str) -> None:
    assert template_mistake(text) is not None


@pytest.mark.parametrize("text", ["", "$", "$A", "{A}", "${A}", "${A:}", "${a_1:x:y}", "x${A}y${B:z}"])
def test_well_formed_variables_are_accepted(text: str) -> None:
    assert template_mistake(text) is None


@pytest.mark.parametrize(
    "key", ["password", "PASSWORD", "db_password", "auth_token", "api_key", "client-secret", "dsn"]
)
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)
    assert secret_mistake(key, "literal") is not None
    assert secret_mistake(key, "${A:default}") is not None
    assert secret_mistake(key, "${A}${B}") is None


@pytest.mark.parametrize(
    "key", ["username", "host", "business_key", "access_key_id", "secret_name", "keyspace", "sslmode"]
)
def test_keys_that_are_no_secrets(key: str) -> None:
    assert not is_secret_key(key)


def test_resolution_types_the_values_and_hides_the_secret(write_tenant: WriteTenant, acme: str) -> None:
    tenant = load_tenant(write_tenant(acme), ("postgresql",))
    values = {"ACME_DB_PASSWORD": "hunter2", "ACME_DB_PORT": "6000", "UNUSED": "x"}
    resolved = resolve(tenant, values)
    assert (resolved.source.host, resolved.source.port, resolved.source.database) == ("localhost", 6000, "acme")
    assert resolved.source.password is not None
    assert resolved.source.password.get_secret_value() == "hunter2"
    assert resolved.storage.bucket == "warehouse"
    assert "hunter2" not in repr(resolved) + str(resolved.model_dump()) + resolved.model_dump_json()
    spaces = resolved.namespaces("_dev")
    assert (str(spaces.raw_table("cases")), spaces.core) == ("iceberg.acme_dev_raw.cases", "acme_dev")


def test_every_missing_variable_and_wrong_value_comes_at_once(write_tenant: WriteTenant, acme: str) -> None:
    text = acme.replace("${ACME_DB_HOST:localhost}", "${ACME_DB_HOST}").replace('"7f0c"', '"${PROJECT}"')
    tenant = load_tenant(write_tenant(text), ("postgresql",))
    with pytest.raises(ConfigurationError) as caught:
        resolve(tenant, {"ACME_DB_PORT": "sixty-secret", "S3_BUCKET": "Bad_Bucket"})
    found = {problem.key: problem.message for problem in caught.value.problems}
    assert set(found) == {
        "tenant.source.host",
        "tenant.source.port",
        "tenant.source.password",
        "tenant.params.project_id",
        "tenant.storage.bucket",
    }
    assert "${ACME_DB_PASSWORD} is not set" in found["tenant.source.password"]
    assert "sixty-secret" not in str(caught.value)


@pytest.mark.parametrize("port", ["0", "65536", "1.5", "", " ", "٣", "9" * 5000])
def test_a_wrong_port_never_becomes_a_number(write_tenant: WriteTenant, acme: str, port: str) -> None:
    text = acme.replace("${ACME_DB_PORT:5432}", "${ACME_DB_PORT}")
    with pytest.raises(ConfigurationError, match=r"source\.port"):
        resolve(load_tenant(write_tenant(text), ("postgresql",)), {"ACME_DB_PASSWORD": "x", "ACME_DB_PORT": port})


def test_secret_options_are_secrets(write_tenant: WriteTenant, acme: str) -> None:
    text = acme.replace("    password:", '    options: {sslmode: require, auth_token: "${TOKEN}"}\n    password:')
    resolved = resolve(load_tenant(write_tenant(text), ("postgresql",)), {"ACME_DB_PASSWORD": "x", "TOKEN": "hunter2"})
    assert resolved.source.options == {"sslmode": "require"}
    assert resolved.source.secret_options["auth_token"].get_secret_value() == "hunter2"
    assert "hunter2" not in repr(resolved)
