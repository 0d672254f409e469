"""Secrets are made once, kept, and private."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values

from mozart.services.secrets import STACK_SECRETS, ensure_secrets, write_private


def test_made_at_random_once(tmp_path: Path) -> None:
    assert ensure_secrets(tmp_path) == list(STACK_SECRETS)
    first = dotenv_values(tmp_path / ".env")
    assert len({first[name] for name in STACK_SECRETS}) == len(STACK_SECRETS)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert ensure_secrets(tmp_path) == []
    assert dotenv_values(tmp_path / ".env") == first


@pytest.mark.parametrize("line", ["A_PASSWORD=", "A_PASSWORD=   ", "export A_PASSWORD=", "A_PASSWORD=  # your own"])
def test_empty_value_is_filled_in_place(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# kept\n{line}\nB=1\n")
    assert ensure_secrets(tmp_path, ["A_PASSWORD"]) == ["A_PASSWORD"]
    values = dotenv_values(tmp_path / ".env")
    assert values["B"] == "1"
    assert len(values["A_PASSWORD"] or "") > 20
    assert (tmp_path / ".env").read_text().startswith("# kept\n")


def test_value_of_a_person_is_kept_and_its_file_made_private(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A_PASSWORD='mine'\n")
    (tmp_path / ".env").chmod(0o644)
    assert ensure_secrets(tmp_path, ["A_PASSWORD"]) == []
    assert dotenv_values(tmp_path / ".env")["A_PASSWORD"] == "mine"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_private_file_replaces_an_open_one(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "new")
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
