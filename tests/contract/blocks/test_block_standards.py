"""What every block of the project keeps to, whoever wrote it: found by looking, so a new one cannot stay outside.

A block is the one place where a secret may lie, and its slug and fields are what stored documents are read by: both
are compared with what is written here, so that neither changes unnoticed.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from prefect.blocks.core import Block
from prefect_aws.credentials import AwsCredentials
from prefect_email import EmailServerCredentials
from prefect_sqlalchemy.credentials import ConnectionComponents
from prefect_sqlalchemy.database import SqlAlchemyConnector
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import blocks
from blocks import AlertMail, OlapCache, OlapDatabase, SourceDatabase, TenantLakehouse
from blocks.declared import DeclaredBlock

MARK = "hunter2-must-not-be-seen"
"""Stands in every secret field of the examples, and nowhere else."""

SECRET_NAME = re.compile(r"password|secret|token|credential|private", re.IGNORECASE)


def _login() -> SqlAlchemyConnector:
    components: dict[str, Any] = {
        "driver": "postgresql+psycopg",
        "database": "acme",
        "username": "loader",
        "password": SecretStr(MARK),
        "host": "db.example.org",
        "port": 5432,
    }
    return SqlAlchemyConnector(connection_info=ConnectionComponents(**components))


def _source_database() -> Block:
    return SourceDatabase(
        tenant="acme",
        connector="postgresql",
        login=_login(),
        options={"sslmode": "require"},
        secret_options=cast(Any, {"sslpassword": MARK}),
        params={"project_id": "7"},
    )


def _tenant_lakehouse() -> Block:
    return TenantLakehouse(
        tenant="acme",
        credentials=AwsCredentials(aws_access_key_id="key", aws_secret_access_key=SecretStr(MARK)),
        s3_endpoint="http://s3.example.org",
        catalog_uri="http://catalog.example.org",
        warehouse="warehouse",
        bucket="landing",
        prefix="raw/acme",
        schema_name="acme",
    )


def _olap_database() -> Block:
    return OlapDatabase(login=_login())


def _olap_cache() -> Block:
    return OlapCache(host="cache.example.org", password=SecretStr(MARK))


def _alert_mail() -> Block:
    server = EmailServerCredentials(username="ops", password=SecretStr(MARK), smtp_server="mail.example.org")
    return AlertMail(server=server, sender="mozart@example.org", recipients="ops@example.org")


EXAMPLES: Mapping[str, Callable[[], Block]] = {
    "mozart-alert-mail": _alert_mail,
    "mozart-olap-cache": _olap_cache,
    "mozart-olap-database": _olap_database,
    "mozart-source-database": _source_database,
    "mozart-tenant-lakehouse": _tenant_lakehouse,
}
"""One filled block of each type, by the slug under which its documents are stored. A slug never changes."""

FIELDS: Mapping[str, set[str]] = {
    "mozart-alert-mail": {"recipients", "sender", "server"},
    "mozart-olap-cache": {"database", "host", "password", "port", "tls", "username"},
    "mozart-olap-database": {"login", "reader_role", "source_schema", "sslmode", "view_schema"},
    "mozart-source-database": {
        "branch", "connector", "login", "options", "params", "secret_options", "tenant",
    },
    "mozart-tenant-lakehouse": {
        "branch", "bucket", "catalog", "catalog_uri", "credentials", "prefix", "s3_endpoint", "schema_name", "tenant",
        "warehouse",
    },
}  # fmt: skip
"""The fields of each type; one that is taken away or renamed makes stored documents unreadable."""


def _found() -> Iterator[type[Block]]:
    for module in pkgutil.iter_modules(blocks.__path__, "blocks."):
        for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(value, Block) and value.__module__ == module.name and value is not DeclaredBlock:
                yield value


BLOCKS = sorted(_found(), key=lambda block: block.__name__)


@pytest.fixture(params=BLOCKS, ids=lambda block: block.__name__)
def block_type(request: pytest.FixtureRequest) -> type[Block]:
    return request.param


@pytest.fixture
def example(block_type: type[Block]) -> Block:
    return EXAMPLES[block_type.get_block_type_slug()]()


def test_every_block_has_an_example_and_every_example_a_block() -> None:
    assert {block.get_block_type_slug() for block in BLOCKS} == set(EXAMPLES) == set(FIELDS)


def test_reads_nested_blocks_as_declared(block_type: type[Block]) -> None:
    assert issubclass(block_type, DeclaredBlock)


def test_is_registered_by_the_package(block_type: type[Block]) -> None:
    assert block_type.__name__ in blocks.__all__
    assert getattr(blocks, block_type.__name__) is block_type


def test_introduces_itself(block_type: type[Block]) -> None:
    assert re.fullmatch(r"mozart-[a-z]+(-[a-z]+)*", block_type.get_block_type_slug())
    assert block_type.get_block_type_name().startswith("Mozart ")
    assert (block_type.__doc__ or "").strip()
    description = block_type.get_description() or ""
    assert description.endswith(".")
    assert 20 < len(description) < 120


def test_says_what_each_field_is(block_type: type[Block]) -> None:
    for name, field in _own_fields(block_type).items():
        assert (field.description or "").endswith("."), f"{name} has no description"
    assert set(_own_fields(block_type)) == FIELDS[block_type.get_block_type_slug()]


def test_a_field_named_like_a_secret_is_one(block_type: type[Block]) -> None:
    for name, field in _own_fields(block_type).items():
        if SECRET_NAME.search(name):
            kind = str(field.annotation)
            assert "Secret" in kind or "Credentials" in kind, f"{name} is {kind}"


def test_shows_no_secret_in_any_text(example: Block) -> None:
    texts = (repr(example), str(example), example.model_dump_json(), str(example.model_dump()), f"{vars(example)!r}")
    assert not [text for text in texts if MARK in text]
    assert MARK in json.dumps(example.model_dump(mode="json", context={"include_secrets": True}))


def test_comes_back_from_the_server_as_it_was(prefect_api: str, example: Block) -> None:
    name = f"example-{example.get_block_type_slug()}"
    block_type = type(example)
    asyncio.run(example.asave(name))
    assert _values(asyncio.run(block_type.aload(name))) == _values(example)
    asyncio.run(example.asave(name, overwrite=True))
    assert _values(asyncio.run(block_type.aload(name))) == _values(example)
    shown = httpx.post(f"{prefect_api}/block_documents/filter", json={"limit": 200}).raise_for_status().json()
    document = next(row for row in shown if row["name"] == name)
    assert MARK not in json.dumps(document)
    assert document["block_type"]["slug"] == example.get_block_type_slug()


@pytest.mark.usefixtures("prefect_api")
def test_a_name_that_is_not_there_is_an_error_of_its_own(block_type: type[Block]) -> None:
    with pytest.raises(ValueError, match="nobody-made-this"):
        asyncio.run(block_type.aload("nobody-made-this"))


def test_loading_one_imports_no_integration_that_it_does_not_use(prefect_api: str) -> None:
    asyncio.run(_source_database().asave("example-lean"))
    program = (
        "import asyncio, sys; from blocks import SourceDatabase;"
        " asyncio.run(SourceDatabase.aload('example-lean'));"
        " print(sorted({name.split('.')[0] for name in sys.modules} & {'dbt', 'prefect_dbt', 'prefect_aws'}))"
    )
    environment = {**os.environ, "PREFECT_API_URL": prefect_api}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(blocks.__path__[0]).parent, env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_all_are_found_by_prefects_own_registration(prefect_api: str) -> None:
    program = Path(sys.executable).with_name("prefect")
    environment = {**os.environ, "PREFECT_API_URL": prefect_api}
    done = subprocess.run(
        [str(program), "block", "register", "-m", "blocks"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    types = httpx.post(f"{prefect_api}/block_types/filter", json={"limit": 200}).raise_for_status().json()
    assert set(EXAMPLES) <= {row["slug"] for row in types}


def _own_fields(block_type: type[Block]) -> dict[str, FieldInfo]:
    return {name: field for name, field in block_type.model_fields.items() if name not in Block.model_fields}


def _values(block: Block) -> Any:
    return _without_identity(block.model_dump(mode="json", context={"include_secrets": True}))


def _without_identity(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: _without_identity(inner) for key, inner in cast(dict[str, Any], value).items() if not key.startswith("_")
    }
