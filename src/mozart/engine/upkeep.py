"""Which engine keeps the tables of a project small: the one that also computes its models."""

from __future__ import annotations

from mozart.engine.choice import TRINO, engine_name
from mozart.lake.maintenance import EmbeddedUpkeep, TableUpkeep
from mozart.settings import Settings


def create_upkeep(settings: Settings, catalog: str) -> TableUpkeep:
    """The upkeep of the engine that the settings name, for the tables of `catalog`.

    Raises ConfigurationError for settings that are wrong.
    """
    if engine_name(settings) == TRINO:
        from mozart.engine.trino_client import trino_from_settings  # noqa: PLC0415 - as it is used
        from mozart.engine.trino_maintenance import TrinoUpkeep  # noqa: PLC0415

        return TrinoUpkeep(trino_from_settings(settings).model_copy(update={"catalog": catalog}))
    return EmbeddedUpkeep()
