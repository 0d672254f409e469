"""What `mozart doctor` looks at where models run on Trino: the server, its version, each tenant's login.

Only asked when the settings name Trino. Changes nothing.
"""

from __future__ import annotations

from mozart.errors import MozartError
from mozart.settings import Settings
from mozart.tenancy.names import Namespaces


def find_server_problem(settings: Settings) -> str | None:
    """What is wrong with the server, with the cure; None when nothing is."""
    from mozart.engine.trino_client import open_trino, trino_from_settings  # noqa: PLC0415 - as it is used
    from mozart.services.trino_download import TRINO_VERSION  # noqa: PLC0415

    try:
        with open_trino(trino_from_settings(settings), attempts=1) as session:
            (version,) = session.fetch_one("SELECT version()")
    except MozartError as error:
        return str(error)
    if version != TRINO_VERSION:
        return f"is version {version}, this project is tested with {TRINO_VERSION}; bring them together"
    return None


def find_login_problem(settings: Settings, spaces: Namespaces) -> str | None:
    """Why the tenant whose tables lie in `spaces` cannot log in, with the cure; None when it can."""
    from mozart.engine.trino_client import is_login_known, tenant_login, trino_from_settings  # noqa: PLC0415
    from mozart.services.trino_logins import access_folder  # noqa: PLC0415

    try:
        if is_login_known(tenant_login(trino_from_settings(settings), spaces.core, spaces.catalog)):
            return None
    except MozartError as error:
        return str(error)
    return f"the server does not know it; run `mozart deploy`, and let its coordinator read {access_folder(settings)}"
