"""The tenants' logins on Trino as part of a deploy: who is deployed has one, who left has none.

Does nothing on another engine. Waits until the server has taken new ones over, for a run may start right after; a
server that does not answer is told of in a note, and nothing fails by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from mozart.engine.choice import TRINO, engine_name
from mozart.errors import TransientError
from mozart.fleet.changes import Applied
from mozart.settings import Settings
from mozart.tenancy.names import Namespaces

_WAIT_SECONDS = 30.0
_PAUSE = 0.5

Report = Callable[[Applied], None]


def apply_logins(
    settings: Settings, tenants: Sequence[Namespaces], report: Report = lambda _item: None, *, keep: bool = False
) -> list[Applied]:
    """Give exactly these tenants of the environment a login; one item for each change, in their order.

    `keep`: nobody loses one, for it is not known who has left. Raises ConfigurationError when two would have the same.
    """
    if engine_name(settings) != TRINO:
        return []
    from mozart.engine.trino_client import is_login_known, tenant_login, trino_from_settings  # noqa: PLC0415 - as it is used
    from mozart.services.trino_logins import TrinoLogins, access_folder  # noqa: PLC0415

    operator, folder = trino_from_settings(settings), access_folder(settings)
    change = TrinoLogins(folder, operator).put(settings.suffix, tenants, keep=keep)
    note = ""
    if change.added:
        newest = tenant_login(operator, change.added[-1].core, change.added[-1].catalog)
        note = _note(lambda: is_login_known(newest), folder, operator.name)
    done = [Applied("login", spaces.core, "created", note) for spaces in change.added]
    done += [Applied("login", spaces.core, "removed") for spaces in change.removed]
    for item in done:
        report(item)
    return done


def find_login_clashes(
    settings: Settings, tenants: Sequence[Namespaces], held: Collection[Namespaces] = ()
) -> Mapping[Namespaces, Namespaces | str]:
    """The tenants that cannot have a login, each with the one that has its name; see `TrinoLogins.clashes`."""
    if engine_name(settings) != TRINO:
        return {}
    from mozart.engine.trino_client import trino_from_settings  # noqa: PLC0415 - as it is used
    from mozart.services.trino_logins import TrinoLogins, access_folder  # noqa: PLC0415

    logins = TrinoLogins(access_folder(settings), trino_from_settings(settings))
    return logins.clashes(settings.suffix, tenants, held)


def _note(is_known: Callable[[], bool], folder: Path, server: str) -> str:
    """What an operator should know when the server has not taken the logins over; empty when it has."""
    end = time.monotonic() + _WAIT_SECONDS
    try:
        while not is_known():
            if time.monotonic() > end:
                return f"{server} does not know it yet; its coordinator must read {folder}"
            time.sleep(_PAUSE)
    except TransientError:
        return f"{server} does not answer; it will read {folder} when it starts"
    return ""
