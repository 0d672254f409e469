"""What the steps connect to, each a Prefect block. Load them by class inside a task, never at import.

`SourceDatabase` and `TenantLakehouse` carry one tenant's credentials, `OlapDatabase`, `OlapCache` and `AlertMail`
those of the OLAP layer; `mozart deploy` writes them, workers read them. Each is imported when it is first named: a run
pays for the integrations it uses and for no others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocks.alert_mail import AlertMail
    from blocks.lakehouse import TenantLakehouse
    from blocks.olap_cache import OlapCache
    from blocks.olap_database import OlapDatabase
    from blocks.source_database import SourceDatabase

__all__ = ["AlertMail", "OlapCache", "OlapDatabase", "SourceDatabase", "TenantLakehouse"]

_MODULES = {
    "AlertMail": "blocks.alert_mail",
    "OlapCache": "blocks.olap_cache",
    "OlapDatabase": "blocks.olap_database",
    "SourceDatabase": "blocks.source_database",
    "TenantLakehouse": "blocks.lakehouse",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'blocks' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
