"""Where the project is, which environment it runs in, and the values a person may set.

Values come from the process environment, then from `.env` in the project's root, then from the defaults in
`DEFAULTS` (documented one by one in `.env.example`). Nothing is read at import: callers ask `load_settings()`.
The environment (local, branch, prod) is detected here and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values

from mozart.errors import ConfigurationError, Problem

Environment = Literal["local", "branch", "prod"]

DEFAULTS: Mapping[str, str] = {
    "MOZART_HOST": "127.0.0.1",
    "MOZART_POSTGRES_PORT": "5433",
    "MOZART_VALKEY_PORT": "6379",
    "MOZART_S3_PORT": "9000",
    "MOZART_CATALOG_PORT": "8181",
    "MOZART_PREFECT_PORT": "4200",
    "MOZART_SEAWEEDFS_PORT_BASE": "9330",
    "MOZART_WORKER_LIMIT": "4",
    "MOZART_INLINE_LIMIT": "8",
    "MOZART_ENGINE": "duckdb",
    "MOZART_TRINO_PORT": "8080",
    "MOZART_TRINO_INNER_PORT": "8081",
    "S3_BUCKET": "landing",
    "S3_REGION": "us-east-1",
    "ICEBERG_WAREHOUSE": "warehouse",
    "MOZART_OLAP_DATABASE": "axiom",
    "MOZART_OLAP_USERNAME": "mozart",
    "MOZART_OLAP_SSLMODE": "prefer",
    "MOZART_OLAP_SOURCE_SCHEMA": "public",
    "MOZART_OLAP_VIEW_SCHEMA": "axiom_vision",
}

_BRANCH_NAME = re.compile(r"[a-z][a-z0-9_]{0,20}")


@dataclass(frozen=True)
class Settings:
    """The project's root and its resolved values.

    `values` holds DEFAULTS, overlaid by `.env`, overlaid by the process environment. `secret_names` are the keys
    that stand in `.env` and whose values must never reach a child process, a log or a file.
    """

    root: Path
    values: Mapping[str, str]
    environment: Environment
    branch: str | None

    @property
    def state(self) -> Path:
        """The folder of all local state, ignored by git."""
        return self.root / ".mozart"

    @property
    def env_file(self) -> Path:
        return self.root / ".env"

    @property
    def tenants_folder(self) -> Path:
        return self.root / "tenants"

    @property
    def suffix(self) -> str:
        """What a branch environment appends to namespaces and deployment names; empty elsewhere."""
        return f"_{self.branch}" if self.environment == "branch" and self.branch else ""

    def get(self, name: str) -> str:
        """The value of a setting; raises ConfigurationError naming it when it is not set."""
        value = self.values.get(name, "")
        if not value:
            raise ConfigurationError(Problem(".env", name, "is not set; see .env.example for its meaning"))
        return value

    def port(self, name: str) -> int:
        text = self.get(name)
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise ConfigurationError(Problem(".env", name, f"{text!r} is not a port number"))
        return int(text)

    def number(self, name: str) -> int:
        """The value of a setting that counts something, at least 1."""
        text = self.get(name)
        if not text.isdigit() or int(text) < 1:
            raise ConfigurationError(Problem(".env", name, f"{text!r} is not a whole number above 0"))
        return int(text)

    @property
    def prefect_api_url(self) -> str:
        """The Prefect API: PREFECT_API_URL where set (Cloud, another server), else the local stack's."""
        configured = self.values.get("PREFECT_API_URL")
        return configured or f"http://{self.get('MOZART_HOST')}:{self.port('MOZART_PREFECT_PORT')}/api"


def find_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds `tenants/` and `pyproject.toml`; MOZART_ROOT overrides."""
    override = os.environ.get("MOZART_ROOT")
    if override:
        return Path(override).resolve()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "tenants").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise ConfigurationError(
        f"no Mozart project in {here} or above it; run from the project's folder or set MOZART_ROOT"
    )


def load_settings(root: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings once, on request. `environ` stands in for the process environment in tests."""
    project = root.resolve() if root else find_root()
    process = dict(os.environ if environ is None else environ)
    file_values = {key: value for key, value in dotenv_values(project / ".env").items() if value is not None}
    values = {**DEFAULTS, **file_values, **process}
    environment, branch = _detect_environment(values)
    return Settings(root=project, values=values, environment=environment, branch=branch)


def _detect_environment(values: Mapping[str, str]) -> tuple[Environment, str | None]:
    branch = values.get("MOZART_BRANCH") or None
    name = values.get("MOZART_ENV") or ("branch" if branch else "local")
    if name not in ("local", "branch", "prod"):
        raise ConfigurationError(Problem("environment", "MOZART_ENV", f"{name!r} is not one of local, branch, prod"))
    if name == "branch":
        if not branch:
            raise ConfigurationError(Problem("environment", "MOZART_BRANCH", "is needed when MOZART_ENV is branch"))
        if not _BRANCH_NAME.fullmatch(branch):
            raise ConfigurationError(
                Problem(
                    "environment",
                    "MOZART_BRANCH",
                    f"{branch!r} must match [a-z][a-z0-9_]* (21 characters at most)",
                )
            )
    return name, branch if name == "branch" else None
