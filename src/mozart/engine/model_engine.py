"""What computing a tenant's models needs of an engine, and which engine a project uses.

`mozart.engine.dbt_run` plans, talks to dbt's process, judges and reports; the same on every engine. An engine says how
dbt's process reaches the data (`build_message`) and makes a candidate that passed the published table (`Candidates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pyiceberg.catalog import Catalog

from mozart.engine.choice import TRINO, engine_name
from mozart.engine.dbt_graph import Node
from mozart.engine.dbt_plan import Plan
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.publish import Publication, Published
from mozart.settings import Settings
from mozart.tenancy.product_schema import ProductSchema

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class LakeTable:
    """A table of the lake that the models of a run read, at one state. `snapshot_id` None: it has no rows yet."""

    unique_id: str
    schema: str
    table: str
    metadata_location: str
    snapshot_id: int | None


@dataclass(frozen=True)
class Delta:
    """What the changed rows of an incremental model are computed beside: the published table as it was planned on.

    `version` stands for its rows (`LakeState.version`), `columns` are its columns' names, `key` names a row.
    """

    base: LakeTable
    version: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What one dbt run computes: `plan.to_build`, from `tables` of `lakehouse`, begun at `began` (seconds, epoch).

    `deltas` by the unique id of each model that is computed as one. `folder` is the run's own, on this machine.
    """

    run_id: str
    began: int
    lakehouse: Lakehouse
    namespace: str
    plan: Plan
    tables: tuple[LakeTable, ...]
    folder: Path
    memory: str
    threads: int
    deltas: Mapping[str, Delta] = field(default_factory=dict[str, Delta])


class Candidates(Protocol):
    """What dbt has built, until it is published or thrown away."""

    def relation(self, node: Node) -> str:
        """All rows of a model's candidate, as quoted SQL; of a delta, merged with those it was computed beside."""
        ...

    def delta(self, node: Node) -> str | None:
        """The changed rows alone, as `mozart.lake.publish` reads them; None of a model that was computed whole."""
        ...

    def publish(self, catalog: Catalog, publication: Publication, product: ProductSchema | None) -> Published:
        """Put the candidate in the place of the published table, or merge its delta, if it satisfies `product`.

        Raises DataQualityError when it does not, TransientError or TerminalError when it cannot be done; then the
        published table is as it was.
        """
        ...


class ModelEngine(Protocol):
    """One engine, for the models of one tenant."""

    @property
    def name(self) -> str: ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be seen in anything that dbt's process says."""
        ...

    def build_message(self, catalog: Catalog, work: Work) -> Mapping[str, Any]:
        """What dbt's process is told beside the selection; sent over its stdin.

        Under `deltas`: by unique id, where each delta goes and what is merged (`mozart.engine.model_delta`).
        """
        ...

    def is_transient(self, message: str) -> bool:
        """Whether dbt's message about a model tells of something that may pass by itself."""
        ...

    def retried(self, call: Callable[[], Answer]) -> Answer:
        """The answer of `call`, tried as often after a TransientError as this engine deserves."""
        ...

    def candidates(self, work: Work) -> AbstractContextManager[Candidates]:
        """The candidates of a build that has ended; what is left of them goes when the context ends."""
        ...


def create_model_engine(settings: Settings, lakehouse: Lakehouse, catalog: str, namespace: str) -> ModelEngine:
    """The engine that the settings name, for the models of the tenant whose tables lie in `namespace` of `catalog`."""
    if engine_name(settings) == TRINO:
        from mozart.engine.trino_client import tenant_login, trino_from_settings  # noqa: PLC0415 - as it is used
        from mozart.engine.trino_models import TrinoModels  # noqa: PLC0415

        return TrinoModels(tenant_login(trino_from_settings(settings), namespace, catalog))
    from mozart.engine.duckdb_models import DuckDBModels  # noqa: PLC0415 - an engine's packages are imported as it is used

    return DuckDBModels(lakehouse)
