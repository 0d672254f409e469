"""Where the OLAP database is: the local stack unless the settings say otherwise; the password never shows."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from mozart.errors import ConfigurationError, DataQualityError, MozartError, TerminalError, TransientError
from mozart.olap.database import olap_database_from_settings, translate
from mozart.settings import load_settings


def test_local_stack_by_default(tmp_path: Path) -> None:
    place = olap_database_from_settings(load_settings(tmp_path, environ={"MOZART_POSTGRES_PASSWORD": "hidden-pw"}))
    assert (place.host, place.port, place.database, place.username) == ("127.0.0.1", 5433, "axiom", "mozart")
    assert (place.source_schema, place.view_schema) == ("public", "axiom_vision")
    assert place.password.get_secret_value() == "hidden-pw" and "hidden-pw" not in repr(place)


def test_settings_of_its_own(tmp_path: Path) -> None:
    environ = {
        "MOZART_POSTGRES_PASSWORD": "stack",
        "MOZART_OLAP_HOST": "db.example",
        "MOZART_OLAP_PORT": "6432",
        "MOZART_OLAP_PASSWORD": "own",
        "MOZART_OLAP_SSLMODE": "verify-full",
    }
    place = olap_database_from_settings(load_settings(tmp_path, environ=environ))
    assert (place.host, place.port, place.sslmode) == ("db.example", 6432, "verify-full")
    assert place.password.get_secret_value() == "own"


def test_unknown_sslmode_is_refused(tmp_path: Path) -> None:
    environ = {"MOZART_POSTGRES_PASSWORD": "x", "MOZART_OLAP_SSLMODE": "maybe"}
    with pytest.raises(ConfigurationError, match="MOZART_OLAP_SSLMODE"):
        olap_database_from_settings(load_settings(tmp_path, environ=environ))


def test_server_that_does_not_answer_is_worth_a_retry(tmp_path: Path) -> None:
    environ = {"MOZART_POSTGRES_PASSWORD": "hidden-pw", "MOZART_OLAP_PORT": "1"}
    with pytest.raises(TransientError, match="does not answer") as caught:
        olap_database_from_settings(load_settings(tmp_path, environ=environ)).connect()
    assert "hidden-pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.SerializationFailure, TransientError),
        (psycopg.errors.LockNotAvailable, TransientError),
        (psycopg.errors.QueryCanceled, TransientError),
        (psycopg.errors.AdminShutdown, TransientError),
        (psycopg.OperationalError, TransientError),
        (psycopg.errors.UniqueViolation, DataQualityError),
        (psycopg.errors.CardinalityViolation, DataQualityError),
        (psycopg.errors.CheckViolation, DataQualityError),
        (psycopg.errors.InsufficientPrivilege, ConfigurationError),
        (psycopg.errors.UndefinedColumn, TerminalError),
    ],
)
def test_only_what_may_go_through_later_is_transient(error: type[psycopg.Error], kind: type[MozartError]) -> None:
    assert type(translate(error("it failed"), "refresh of x")) is kind
