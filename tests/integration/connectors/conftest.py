"""Real source databases for tests of types."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.connectors.mariadb import mariadb

__all__ = ("mariadb",)


@pytest.fixture(scope="session")
def extensions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extensions")
