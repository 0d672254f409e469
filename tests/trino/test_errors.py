"""What Trino's errors mean, and how often what is transient is tried again. Needs no server."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from pydantic import SecretStr
from trino import exceptions as failures

from mozart.engine.choice import engine_name
from mozart.engine.trino_client import (
    RETRY_PAUSES,
    RETRY_WITHIN,
    TrinoAddress,
    is_transient_text,
    retrying,
    translate,
    trino_from_settings,
)
from mozart.errors import ConfigurationError, MozartError, TerminalError, TransientError
from mozart.settings import load_settings

ADDRESS = TrinoAddress(host="trino.example", port=443, username="acme", password=SecretStr("pw-secret"))


def _query_error(name: str, message: str = "why\nso", cause: str | None = None) -> failures.TrinoQueryError:
    behind = {"cause": {"message": "in between", "cause": {"message": cause}}} if cause else {}
    error = {"errorName": name, "errorType": "X", "message": message, "failureInfo": {"message": message, **behind}}
    return failures.TrinoQueryError(error, "q1")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (_query_error("ICEBERG_CATALOG_ERROR"), TransientError, "ICEBERG_CATALOG_ERROR: why so"),
        (_query_error("GENERIC_INTERNAL_ERROR", "Service unavailable: busy"), TransientError, "busy"),
        (_query_error("GENERIC_INTERNAL_ERROR", "a mistake"), TerminalError, "a mistake"),
        (_query_error("ICEBERG_CATALOG_ERROR", "Not authorized: expired"), TerminalError, "ICEBERG_CATALOG_CREDENTIAL"),
        (_query_error("ICEBERG_CATALOG_ERROR", "failed", "Not authorized: expired"), TerminalError, "(Not authorized"),
        (_query_error("ICEBERG_CATALOG_ERROR", "failed", "Service unavailable: x"), TransientError, "unavailable: x"),
        (_query_error("NO_NODES_AVAILABLE"), TransientError, "query q1"),
        (_query_error("REMOTE_HOST_GONE"), TransientError, "trino.example:443"),
        (_query_error("SYNTAX_ERROR"), TerminalError, "SYNTAX_ERROR"),
        (_query_error("PERMISSION_DENIED"), TerminalError, "PERMISSION_DENIED"),
        (failures.TrinoConnectionError("failed to execute: refused"), TransientError, "does not answer"),
        (failures.Http503Error("error 503: overloaded"), TransientError, "error 503"),
        (failures.HttpError("error 401: Unauthorized"), TerminalError, "MOZART_TRINO_PASSWORD"),
        (failures.TrinoConnectionError("SSL: CERTIFICATE_VERIFY_FAILED"), TerminalError, "MOZART_TRINO_CERTIFICATE"),
    ],
)
def test_errors_are_sorted(error: Exception, kind: type[MozartError], says: str) -> None:
    found = translate(error, ADDRESS)
    assert type(found) is kind
    assert says in str(found)
    assert "pw-secret" not in str(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Database Error TrinoQueryError(type=EXTERNAL, name=ICEBERG_CATALOG_ERROR, message="x")', True),
        ("TrinoUserError(type=USER_ERROR, name=SYNTAX_ERROR, message=Max retries exceeded)", False),
        ('TrinoQueryError(type=INTERNAL_ERROR, name=GENERIC_INTERNAL_ERROR, message="Server error: x")', True),
        ('TrinoQueryError(type=INTERNAL_ERROR, name=GENERIC_INTERNAL_ERROR, message="x")', False),
        ('TrinoQueryError(type=EXTERNAL, name=ICEBERG_CATALOG_ERROR, message="Not authorized: x")', False),
        ("Max retries exceeded with url: /v1/statement", True),
        ("This model has an enforced contract that failed.", False),
    ],
)
def test_errors_of_which_only_the_text_is_left(text: str, expected: bool) -> None:
    assert is_transient_text(text) is expected


def test_what_is_transient_is_tried_again_three_times() -> None:
    pauses: list[float] = []
    calls = itertools.count()

    def fail() -> None:
        next(calls)
        raise TransientError("down")

    with pytest.raises(TransientError, match=r"down \(tried 4 times\)"):
        retrying(fail, sleep=pauses.append)
    assert next(calls) == 4
    assert len(pauses) == 3
    assert sum(pauses) <= RETRY_WITHIN
    assert all(low <= pause <= low * 1.5 for low, pause in zip(RETRY_PAUSES, pauses, strict=True))


def test_it_goes_on_when_a_retry_succeeds() -> None:
    answers = iter([TransientError("down"), TransientError("down"), "answer"])

    def call() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retrying(call, sleep=lambda _seconds: None) == "answer"


def test_what_is_terminal_is_said_at_once() -> None:
    def fail() -> None:
        raise TerminalError("wrong")

    def never(_seconds: float) -> None:
        raise AssertionError("a terminal error is not worth a pause")

    with pytest.raises(TerminalError, match="wrong"):
        retrying(fail, sleep=never)


def test_nothing_is_retried_beyond_the_time_allowed() -> None:
    def fail() -> None:
        raise TransientError("down")

    pauses: list[float] = []
    with pytest.raises(TransientError, match="tried 1 times"):
        retrying(fail, pauses=(5.0,), within=1.0, sleep=pauses.append)
    assert pauses == []


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "tenants").mkdir()
    (root / "pyproject.toml").touch()
    return root


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "duckdb"),
        ({"MOZART_ENGINE": "trino"}, "trino"),
        ({"MOZART_ENGINE": "trino", "MOZART_ENGINE_BRANCH": "duckdb"}, "trino"),
        ({"MOZART_ENGINE": "trino", "MOZART_ENGINE_BRANCH": "duckdb", "MOZART_BRANCH": "b"}, "duckdb"),
        ({"MOZART_ENGINE_PROD": "trino", "MOZART_ENV": "prod"}, "trino"),
    ],
)
def test_the_engine_is_a_setting_of_the_environment(project: Path, environ: dict[str, str], expected: str) -> None:
    assert engine_name(load_settings(project, environ)) == expected


def test_an_engine_that_nobody_knows_is_named_with_its_setting(project: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MOZART_ENGINE: 'spark' is not one of duckdb, trino"):
        engine_name(load_settings(project, {"MOZART_ENGINE": "spark"}))


def test_the_server_is_found_by_its_settings(project: Path) -> None:
    known = {"MOZART_TRINO_PASSWORD": "p", "MOZART_TRINO_HOST": "t", "MOZART_TRINO_PORT": "443"}
    address = trino_from_settings(load_settings(project, known))
    assert (address.host, address.port, address.certificate) == ("t", 443, None)
    with pytest.raises(ConfigurationError, match="MOZART_TRINO_PASSWORD"):
        trino_from_settings(load_settings(project, {}))
    with pytest.raises(ConfigurationError, match="MOZART_TRINO_PORT"):
        trino_from_settings(load_settings(project, known | {"MOZART_TRINO_PORT": "x"}))
