"""What is done to the lake in the fault suite: one job is one run of a loader or of maintenance, in any process.

A job is plain data and can be pickled, so that the same one runs here, in a thread, or in a child that is killed.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from mozart.connectors.base import BaseConnector, SourceConnection
from mozart.connectors.registry import create_connector
from mozart.lake.catalog_client import Deadline, set_deadline
from mozart.lake.compaction import CompactionPolicy, compact_table
from mozart.lake.delete_pass import DeleteOptions, remove_deleted_rows
from mozart.lake.expiry import ExpiryPolicy, expire_snapshots
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.load import load_table
from mozart.lake.load_plan import LoadRequest
from mozart.lake.session import LakeSession, open_lake
from mozart.lake.sweep import Sweep
from mozart.tenancy.model import TableSpec
from mozart.tenancy.names import Namespaces

Kind = Literal["load", "delete pass", "compact", "fold", "expire", "sweep"]

ORDERS = TableSpec(
    name="orders",
    source_schema="public",
    source_table="orders",
    primary_key=("id",),
    incremental_column="updated_at",
    mode="incremental",
)

DEADLINE = Deadline(connect=5, read=4)
"""Of the catalog: short, so that a reply that never comes costs a test seconds."""

FOLDING = CompactionPolicy(small_files=1, delete_files=1, small_bytes=2_500)
"""Folds at every second merge: a file of some dozen rows is small, one of 200 is not."""

EAGER = replace(FOLDING, small_files=3, delete_files=3)
"""Folds at every fourth merge or so."""


@dataclass(frozen=True)
class Job:
    """One run on one table. `options` are the load request's; `compaction` None: the load never compacts."""

    kind: Kind
    connection: SourceConnection
    lakehouse: Lakehouse
    namespace: str
    folder: Path
    spec: TableSpec = ORDERS
    compaction: CompactionPolicy | None = EAGER
    memory: str = "256MB"
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def run(self) -> Any:
        """Do it, under a run id of its own; the result of the core's function."""
        run_id = f"run-{secrets.token_hex(4)}"
        if self.kind == "load":
            return self._load(run_id)
        if self.kind == "delete pass":
            options = DeleteOptions(consent=True)
            request = LoadRequest("test", self.namespace, self.spec, run_id)
            return remove_deleted_rows(request, self.connector(), self.session, options)
        with self.session() as lake:
            return self._maintain(lake, run_id)

    def _load(self, run_id: str) -> Any:
        request = LoadRequest("test", self.namespace, self.spec, run_id, **self.options)
        with self.session() as lake, self.connector().open() as reader:
            reader.attach(lake.connection)
            return load_table(request, reader, lake, compaction=self.compaction)

    def _maintain(self, lake: LakeSession, run_id: str) -> Any:
        table = (self.namespace, self.spec.name)
        if self.kind == "compact":
            return compact_table(lake, table, run_id=run_id, force=True)
        if self.kind == "fold":
            return compact_table(lake, table, run_id=run_id, policy=FOLDING)
        if self.kind == "expire":
            policy = ExpiryPolicy(snapshots=1, age=timedelta())
            return expire_snapshots(lake.catalog, table, run_id=run_id, policy=policy)
        names = Namespaces(catalog="lake", core=f"{self.namespace}_core", raw=self.namespace)
        # days from now: everything that no snapshot needs is old enough
        later = datetime.now(UTC) + timedelta(days=30)
        return Sweep(self.lakehouse, lake.catalog, names, clock=lambda: later).run()

    def connector(self) -> BaseConnector:
        return create_connector(self.connection, application="mozart/test")

    @contextmanager
    def session(self) -> Generator[LakeSession]:
        with open_lake(
            self.lakehouse,
            scratch=self.folder / f"scratch-{secrets.token_hex(4)}",
            extensions=self.connector().extensions,
            extension_folder=self.folder / "extensions",
            memory=self.memory,
        ) as lake:
            set_deadline(lake.catalog, DEADLINE)
            yield lake
