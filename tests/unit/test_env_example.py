"""`.env.example` names every setting with its default, and every variable that a tenant's file uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mozart.settings import DEFAULTS

ROOT = Path(__file__).parents[2]
LINES = dict(
    line.lstrip("#").split("=", 1)
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    if re.fullmatch(r"#?[A-Z][A-Z0-9_]*=.*", line)
)


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_stands_there(name: str) -> None:
    assert LINES.get(name) == DEFAULTS[name]


@pytest.mark.parametrize("file", sorted((ROOT / "tenants").glob("*/tenant.yaml")), ids=lambda file: file.parent.name)
def test_every_variable_of_a_tenant_stands_there(file: Path) -> None:
    used = re.findall(r"\$\{([A-Z0-9_]+)(?::([^}]*))?\}", file.read_text(encoding="utf-8"))
    assert used
    assert {name: LINES.get(name) for name, _ in used} == dict(used)
