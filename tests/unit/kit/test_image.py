"""The image: what is copied exists, what is not needed or secret does not get in, and nobody is root."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from tests.unit.kit.kit_files import ROOT, mozart_services

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text().splitlines()
TAKEN = [line[1:] for line in IGNORE if line.startswith("!")]
LEFT_OUT = [line for line in IGNORE if line and not line.startswith(("#", "!"))]


def is_in_context(path: str) -> bool:
    """By the last line of .dockerignore that matches the path or a folder above it, as Docker decides."""
    taken = True
    for line in IGNORE:
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        places = [PurePosixPath(path), *PurePosixPath(path).parents]
        if any(_matches(place, pattern) for place in places if place != PurePosixPath(".")):
            taken = line.startswith("!")
    return taken


def _matches(place: PurePosixPath, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return place.match(pattern.removeprefix("**/"))
    return len(place.parts) == len(PurePosixPath(pattern).parts) and place.match(pattern)


@pytest.mark.parametrize(
    "path",
    [
        *("src/mozart/cli/main.py", "flows/tenant_pipeline.py", "tasks/lake.py", "blocks/lakehouse.py"),
        *("samples/axiom_core.py", "tenants/acme/tenant.yaml", "views/mv_business_fact/view.sql"),
        *("dbt/dbt_project.yml", "dbt/product_schema.yml", "docker/trino/config.properties"),
        *("pyproject.toml", "prefect.yaml", "README.md", "requirements/runtime.txt", "requirements/trino.txt"),
    ],
)
def test_what_a_container_needs_gets_in(path: str) -> None:
    assert (ROOT / path).is_file()
    assert is_in_context(path)


@pytest.mark.parametrize(
    "path",
    [
        *(".env", "tenants/acme/.env", ".git/config", ".mozart/trino/server.pem", ".venv/bin/python"),
        *("tests/conftest.py", "src/mozart/__pycache__/errors.cpython-311.pyc", "dbt/target/manifest.json"),
        *("trino-access/server.pem", "dbt/.user.yml"),
    ],
)
def test_what_is_secret_or_local_stays_out(path: str) -> None:
    assert not is_in_context(path)


def test_what_is_taken_exists() -> None:
    assert [name for name in TAKEN if not (ROOT / name).exists()] == []
    assert LEFT_OUT[0] == "*"


def test_the_base_is_pinned_and_the_user_is_not_root() -> None:
    base = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base
    assert re.fullmatch(r"3\.11\.\d+-slim-\w+", base[1])
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:${PYTHON}"}
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)[-1] == "1000:1000"
    for service in mozart_services().values():
        assert "user" not in service
        assert "privileged" not in service


def test_packages_come_from_the_lock_files_by_hash() -> None:
    installs = re.findall(r"(?:pip install|uv pip \w+)(?:[^&\n\\]|\\\n|\\)*", DOCKERFILE)
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-build-isolation" in install
    for name in ("installer", "runtime", "trino"):
        assert (ROOT / "requirements" / f"{name}.txt").is_file()
    assert re.search(r"^ARG REQUIREMENTS=runtime$", DOCKERFILE, re.MULTILINE)


def test_no_secret_is_an_argument_of_the_build() -> None:
    assert not re.search(r"(?i)(ARG|ENV) \S*(PASSWORD|SECRET|KEY|TOKEN)", DOCKERFILE)
