"""What the steps connect to, each a Prefect block. Load them by class inside a task, never at import.

`SourceDatabase` and `TenantLakehouse` carry one tenant's credentials; `mozart deploy` writes them, workers read them.
"""

from blocks.lakehouse import TenantLakehouse
from blocks.source_database import SourceDatabase

__all__ = ["SourceDatabase", "TenantLakehouse"]
