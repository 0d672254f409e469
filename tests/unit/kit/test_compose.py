"""docker-compose.yml as far as it can be judged without Docker: nothing here starts a container."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from dotenv import dotenv_values
from jsonschema.validators import validator_for

from mozart.settings import DEFAULTS
from tests.unit.kit.kit_files import (
    MOZART_IMAGE,
    ROOT,
    compose,
    config_text,
    mozart_services,
    programs,
    runs_once,
    services,
    texts,
    trino_variables,
    variables,
)

SECRET = re.compile(r"(PASSWORD|SECRET|ACCESS_KEY|CREDENTIAL)")
# Each stands alone: 127.0.0.1:${VARIABLE:-port of the specification}:port in the container.
PUBLISHED = {
    "postgres": {("MOZART_POSTGRES_PORT", "5433", "5432")},
    "valkey": {("MOZART_VALKEY_PORT", "6379", "6379")},
    "seaweedfs": {("MOZART_S3_PORT", "9000", "9000"), ("MOZART_CATALOG_PORT", "8181", "8181")},
    "minio": {("MOZART_S3_PORT", "9000", "9000"), ("MOZART_MINIO_CONSOLE_PORT", "9001", "9001")},
    "iceberg-rest": {("MOZART_CATALOG_PORT", "8181", "8181")},
    "trino": {("MOZART_TRINO_PORT", "8080", "8080")},
    "prefect": {("MOZART_PREFECT_PORT", "4200", "4200")},
}
VALUES = {
    **dict.fromkeys(("MOZART_POSTGRES_PASSWORD", "MOZART_VALKEY_PASSWORD", "MOZART_TRINO_PASSWORD"), "a-Z_0"),
    **dict.fromkeys(("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY", "PREFECT_DB_PASSWORD"), "a-Z_1"),
    **dict.fromkeys(("ACME_DB_PASSWORD", "HARBOR_DB_PASSWORD"), "$HOME#${x}"),
}


def test_the_file_follows_the_compose_specification() -> None:
    """By the schema that check-jsonschema ships."""
    schema = get_builtin_schema("vendor.compose-spec")
    validator = validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(compose())] == []
    misspelt = {**compose(), "services": {**services(), "trino": {**services()["trino"], "healthchek": {}}}}
    assert len(list(validator.iter_errors(misspelt))) == 1


@pytest.mark.parametrize("name", services())
def test_every_image_is_pinned(name: str) -> None:
    image, _, tag = services()[name]["image"].partition(":")
    assert tag
    assert re.search(r"\d", tag), f"{image}:{tag} names no version"


def test_mozarts_image_has_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {service["image"] for service in mozart_services().values()} == {f"{MOZART_IMAGE}:{project['version']}"}


def test_ports_are_those_of_the_specification_and_on_loopback_only() -> None:
    found: dict[str, set[tuple[str, ...]]] = {}
    for name, service in services().items():
        for port in service.get("ports", ()):
            match = re.fullmatch(r"127\.0\.0\.1:\$\{(\w+):-(\d+)\}:(\d+)", port)
            assert match, f"{name} publishes {port}"
            found.setdefault(name, set()).add(match.groups())
    assert found == PUBLISHED


def test_defaults_are_those_of_the_settings() -> None:
    given = {(name, text) for name, kind, text in variables(compose()) if kind == ":-" and name in DEFAULTS}
    assert given
    different = {name: text for name, text in given if DEFAULTS[name] != text}
    assert different == {"MOZART_ENGINE": "trino"}  # what this stack is for


def test_every_variable_is_explained() -> None:
    explained = (ROOT / ".env.example").read_text() + (ROOT / "docs" / "guides" / "deployment.md").read_text()
    missing = {name for name, _, _ in variables(compose()) if not re.search(rf"\b{name}\b", explained)}
    assert missing == set()


def test_secrets_have_no_default_and_stand_nowhere_literally() -> None:
    optional = {name for name, _, _ in variables(compose()) if name.startswith("MOZART_ALERT_")}
    for name, kind, text in variables(compose()):
        if SECRET.search(name) and name not in optional:
            assert kind == ":?", f"{name} may stay empty"
        if name in optional:
            assert text == ""
    for service in services().values():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert re.fullmatch(r"(\$\{\w+:\?[^}]*\}:?)+", value), f"{key} is {value!r}"


def test_mozarts_own_containers_have_no_secret_in_their_environment() -> None:
    """A flow run has its worker's environment; secrets come as a file."""
    for name, service in mozart_services().items():
        found = [key for key in service["environment"] if SECRET.search(key)]
        found += [used for used, _, _ in variables(service["environment"]) if SECRET.search(used)]
        assert found == [], name


def test_settings_files_give_the_values_exactly(tmp_path: Path) -> None:
    """Also with characters that the reader of .env files has a use for."""
    file = tmp_path / ".env"
    file.write_text(config_text("operator-settings", VALUES))
    read = dotenv_values(file, interpolate=False)
    assert read["MOZART_REDIS_PASSWORD"] == VALUES["MOZART_VALKEY_PASSWORD"]
    assert {name: read[name] for name in VALUES if name in read} == {
        name: value for name, value in VALUES.items() if name in read
    }
    file.write_text(config_text("worker-settings", VALUES))
    assert dotenv_values(file) == {"MOZART_TRINO_PASSWORD": VALUES["MOZART_TRINO_PASSWORD"]}


def test_the_stores_identity_is_json() -> None:
    (identity,) = json.loads(config_text("seaweedfs", VALUES))["identities"]
    assert identity["credentials"] == [{"accessKey": "a-Z_1", "secretKey": "a-Z_1"}]


@pytest.mark.parametrize("name", ["trino", "trino-worker"])
def test_trino_gets_exactly_the_variables_that_its_files_take(name: str) -> None:
    assert set(services()[name]["environment"]) == trino_variables()


def test_trinos_nodes_differ_in_their_role_only() -> None:
    coordinator, worker = services()["trino"], services()["trino-worker"]
    differing = {key for key, value in coordinator["environment"].items() if worker["environment"][key] != value}
    assert differing == {"TRINO_COORDINATOR", "TRINO_COORDINATOR_WORKS"}
    assert "ports" not in worker  # else there could be one of it
    assert "container_name" not in worker


@pytest.mark.parametrize("name", services())
def test_who_waits_waits_for_something_that_comes(name: str) -> None:
    """`healthy` needs a check, `completed` needs an end; what a profile leaves out must not be required."""
    for needed, condition in services()[name].get("depends_on", {}).items():
        other = services()[needed]
        if condition["condition"] == "service_healthy":
            assert "healthcheck" in other, f"{needed} has no health check"
        else:
            assert condition["condition"] == "service_completed_successfully"
            assert runs_once(other), f"{needed} never ends"
        own = set(services()[name].get("profiles", ()))
        if not set(other.get("profiles", ())) <= own:
            assert condition.get("required") is False, f"{needed} may be left out"


def test_every_server_has_a_health_check() -> None:
    assert [
        name for name, service in services().items() if not runs_once(service) and "healthcheck" not in service
    ] == []


def test_one_of_the_two_stores_answers_to_both_names() -> None:
    def aliases(profile: str) -> list[str]:
        chosen = [service for service in services().values() if profile in service.get("profiles", ())]
        return sorted(
            alias for each in chosen for alias in each.get("networks", {}).get("default", {}).get("aliases", ())
        )

    assert aliases("seaweedfs") == aliases("minio") == ["catalog", "s3"]


def test_what_is_mounted_is_there() -> None:
    declared = compose()
    for name, service in services().items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            known = (ROOT / source).exists() if source.startswith(".") else source in declared["volumes"]
            assert known, f"{name} mounts {source}"
        for config in service.get("configs", ()):
            assert config["source"] in declared["configs"], name
        build = service.get("build")
        if build:
            assert (ROOT / build["dockerfile"]).is_file()
    used = {config["source"] for service in services().values() for config in service.get("configs", ())}
    assert used == set(declared["configs"])


def test_files_that_compose_copies_have_no_owner_and_can_be_read() -> None:
    """With a uid or gid, an engine before 28 looks the image's user up on the host and starts nothing."""
    for service in services().values():
        for config in service.get("configs", ()):
            assert set(config) <= {"source", "target", "mode"}
            assert config.get("mode", 0o444) == 0o444


def test_the_prefect_server_has_a_file_of_passwords_of_its_own() -> None:
    """A client of PostgreSQL passes over a file that others may read."""
    prefect = services()["prefect"]
    (config,) = prefect["configs"]
    own = prefect["environment"]["PGPASSFILE"]
    assert next(iter(programs(prefect["command"]))) == ["install", "-m", "0600", config["target"], own]


def test_deploy_sees_all_that_a_worker_sees() -> None:
    """`mozart deploy` and `mozart doctor` run there: sources, and Trino's certificate."""

    def folders(name: str) -> set[str]:
        return {volume.removesuffix(":ro") for volume in services()[name]["volumes"]}

    assert folders("worker") <= folders("deploy")


def test_no_port_of_a_host_is_in_an_address() -> None:
    """Within the network a service listens where its image does, whatever .env publishes."""
    addresses = [text for name in mozart_services() for text in texts(services()[name]["environment"]) if "://" in text]
    inner = {"postgres": "5432", "s3": "9000", "catalog": "8181", "prefect": "4200"}
    for address in addresses:
        match: Any = re.search(r"://(?:\w+@)?([a-z0-9.]+):([^/]+)", address)
        if match[1] != "127.0.0.1":  # for the browser
            assert inner[match[1]] == match[2], address
