"""`.env.example` says what the code does: every default stands there, with its value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mozart.errors import ConfigurationError
from mozart.services.secrets import STACK_SECRETS, ensure_secrets
from mozart.services.stack import Stack, local_lakehouse
from mozart.settings import DEFAULTS, load_settings
from tests.projects import PROJECT, make_project

EXAMPLE = (PROJECT / ".env.example").read_text()


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_default_is_in_the_example(name: str) -> None:
    assert re.search(rf"(?m)^#{name}={re.escape(DEFAULTS[name])}$", EXAMPLE)


def test_copied_example_gets_every_secret(tmp_path: Path) -> None:
    make_project(tmp_path)
    (tmp_path / ".env").write_text(EXAMPLE)
    assert ensure_secrets(tmp_path) == list(STACK_SECRETS)
    settings = load_settings(tmp_path, environ={})
    assert local_lakehouse(settings).access_key_id == settings.get("S3_ACCESS_KEY_ID")


def test_stack_without_secrets_can_be_looked_at_but_not_started(tmp_path: Path) -> None:
    make_project(tmp_path)
    stack = Stack(load_settings(tmp_path, environ={}))
    assert {status.state for status in stack.status()} == {"stopped"}
    with pytest.raises(ConfigurationError, match="MOZART_POSTGRES_PASSWORD"):
        stack.up()


def test_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    make_project(tmp_path)
    settings = load_settings(tmp_path, environ={"MOZART_WORKER_LIMIT": "many"})
    with pytest.raises(ConfigurationError, match="MOZART_WORKER_LIMIT"):
        Stack(settings)
