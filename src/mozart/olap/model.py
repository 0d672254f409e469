"""What a view is, as its folder `views/{view}/` says: frozen models without I/O.

A view without `measures` is exactly its `view.sql`. A view with `measures` is `view.sql` grouped by `unique_key`: the
SQL gives the rows, the measures say how they add up. `per` names the column of those rows that a change is followed
by (a case); with it, strategy `incremental` keeps the view up to date without reading what did not change.

Does not talk to a database and does not read files: see `mozart.olap.registry`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["dimension", "fact"]
Strategy = Literal["refresh", "incremental"]

REFRESH_INTERVAL_SECONDS = 300.0
INCREMENTAL_INTERVAL_SECONDS = 0.0


class Measure(BaseModel):
    """One aggregated column of a view: `function` of `argument` (`*`, or a column of view.sql)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    function: str
    argument: str
    distinct: bool = False

    @property
    def is_row_count(self) -> bool:
        """Whether this is `count(*)`, which tells when a group has no rows left."""
        return self.function == "count" and self.argument == "*"

    def __str__(self) -> str:
        return f"{self.function}({'distinct ' if self.distinct else ''}{self.argument})"


class View(BaseModel):
    """One view. Seconds everywhere; `sources` are tables of the OLTP schema, `depends_on` are other views."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    schema_name: str
    description: str
    strategy: Strategy
    unique_key: tuple[str, ...]
    index_name: str
    measures: tuple[Measure, ...] = ()
    per: str | None = None
    depends_on: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    min_interval_seconds: float
    debounce_seconds: float = 10.0
    debounce_max_wait_seconds: float = 60.0
    lag_target_seconds: float
    timeout_seconds: float
    step_name: str | None = None
    sql: str

    @property
    def definition_hash(self) -> str:
        """Changes when what is installed in the database would differ, not when an interval does."""
        parts = {
            "sql": self.sql,
            "schema": self.schema_name,
            "key": self.unique_key,
            "index": self.index_name,
            "measures": [f"{measure.name}={measure}" for measure in self.measures],
            "per": self.per,
            "sources": self.sources,
        }
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class SourceTable(BaseModel):
    """What validation expects of an OLTP table: `references` maps a column to `table.column`; shares are 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    columns: tuple[str, ...] = ()
    minimum_rows: int = 0
    minimum_share_of_last: float = 0.5
    references: tuple[tuple[str, str, str], ...] = ()
    maximum_orphan_share: float = 0.0
