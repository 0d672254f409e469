"""Which engine a project uses: MOZART_ENGINE, or MOZART_ENGINE_LOCAL, _BRANCH or _PROD for one environment alone."""

from __future__ import annotations

from mozart.errors import ConfigurationError, Problem
from mozart.settings import Settings

DUCKDB = "duckdb"
TRINO = "trino"
ENGINES = (DUCKDB, TRINO)
SETTING = "MOZART_ENGINE"


def engine_name(settings: Settings) -> str:
    """The engine of this environment. Raises ConfigurationError naming the setting for one that nobody knows."""
    for setting in (f"{SETTING}_{settings.environment.upper()}", SETTING):
        name = settings.values.get(setting)
        if name and name not in ENGINES:
            raise ConfigurationError(Problem(".env", setting, f"{name!r} is not one of {', '.join(ENGINES)}"))
        if name:
            return name
    return DUCKDB
