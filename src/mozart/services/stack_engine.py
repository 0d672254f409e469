"""What the engine setting adds to the local stack: Trino, its secret, and what workers have to be told of the choice.

Trino belongs to the stack when MOZART_ENGINE says trino and MOZART_TRINO_HOST names nobody else's server; also while a
record says that this stack started one, so that `mozart down` stops it after the setting has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mozart.engine.choice import TRINO, engine_name
from mozart.lake.lakehouse import Lakehouse
from mozart.services.ledger import Ledger
from mozart.services.secrets import STACK_SECRETS
from mozart.settings import Settings

if TYPE_CHECKING:
    from mozart.services.trino import Trino

TRINO_SECRET = "MOZART_TRINO_PASSWORD"  # noqa: S105 - a setting's name
_TOLD = ("MOZART_TRINO_HOST", "MOZART_TRINO_PORT", "MOZART_TRINO_USERNAME", "MOZART_TRINO_CERTIFICATE")


def runs_trino(settings: Settings) -> bool:
    """Whether the local stack has a Trino of its own."""
    return engine_name(settings) == TRINO and not settings.values.get("MOZART_TRINO_HOST")


def stack_secrets(settings: Settings) -> tuple[str, ...]:
    """The settings that get a random value when they have none."""
    return (*STACK_SECRETS, TRINO_SECRET) if runs_trino(settings) else STACK_SECRETS


def create_trino(ledger: Ledger, settings: Settings, lakehouse: Lakehouse) -> Trino | None:
    """The stack's Trino; None when it has none. Raises ConfigurationError for a setting that is wrong."""
    if not runs_trino(settings) and ledger.get("trino") is None:
        return None
    # As it is used: a stack without Trino must not wait for its packages.
    from mozart.engine.trino_client import DEFAULT_USERNAME  # noqa: PLC0415
    from mozart.services.trino import Trino  # noqa: PLC0415
    from mozart.services.trino_download import trino_folder  # noqa: PLC0415
    from mozart.services.trino_logins import access_folder  # noqa: PLC0415

    return Trino(
        ledger,
        lakehouse=lakehouse,
        home=trino_folder(settings.values),
        config=settings.root / "docker" / "trino",
        port=settings.port("MOZART_TRINO_PORT"),
        inner_port=settings.port("MOZART_TRINO_INNER_PORT"),
        username=settings.values.get("MOZART_TRINO_USERNAME") or DEFAULT_USERNAME,
        password=settings.values.get(TRINO_SECRET) or "not-set",
        access=access_folder(settings),
    )


def engine_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The choice of an engine that stands in this process' environment alone, for workers; no secret is among it."""
    return {name: value for name, value in environ.items() if name.startswith("MOZART_ENGINE") or name in _TOLD}
