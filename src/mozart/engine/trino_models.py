"""Models on Trino: dbt builds candidates in a namespace beside the tenant's, what passed replaces the published table.

A candidate is a table `{namespace}__candidates.{table}__{run}`, of this run alone. Contract, data tests and product
schema are checked on it; then one `CREATE OR REPLACE TABLE … AS SELECT` makes it the published table, so readers see
the old rows or the new ones, and a commit of ours gives it the record of what it was built from. Everything runs with
the tenant's own login, so a model cannot read, and a hook cannot touch, what belongs to somebody else.

The delta of an incremental model is a candidate as well. It is published as on DuckDB, in one commit of ours and, like
raw tables, by Mozart's own credentials: ADR 24 says what a lost answer to a MERGE of Trino leaves behind.

Trino sets no summary properties, hence two commits. Between them the new rows are there without a record: whoever
dies then makes the next run build the model again, no more. Pitfall: candidates of a killed run stay for a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog

from mozart.engine.choice import TRINO
from mozart.engine.dbt_graph import Node
from mozart.engine.duckdb import LAKE, Limits, connect
from mozart.engine.model_delta import delta_message, merged_rows
from mozart.engine.model_engine import Answer, Delta, LakeTable, Work
from mozart.engine.product_check import require_mart
from mozart.engine.trino_client import (
    RETRY_PAUSES,
    TrinoAddress,
    TrinoSession,
    is_transient_text,
    open_trino,
    retrying,
)
from mozart.errors import CommitConflictError, MozartError, TerminalError
from mozart.lake.commit import Column, TableHead, read_head, stamp, take_back
from mozart.lake.duckdb_errors import duckdb_translated
from mozart.lake.head import is_readable
from mozart.lake.publish import Publication, Published, publish
from mozart.sql import quote_identifier, quote_qualified
from mozart.tenancy.names import candidates_namespace
from mozart.tenancy.product_schema import ProductSchema, portable_type

_KEPT_SECONDS = 24 * 3600
_TRINO_QUERY = "trino_query_id"
"""The property of a snapshot's summary in which Trino names the statement that made it."""


class TrinoModels:
    """The distributed engine (see `mozart.engine.model_engine.ModelEngine`).

    `address` has the tenant's login; `pauses` are the seconds before each retry of what failed for a passing reason.
    """

    def __init__(self, address: TrinoAddress, pauses: Sequence[float] = RETRY_PAUSES) -> None:
        self._address = address
        self._pauses = pauses

    @property
    def name(self) -> str:
        return TRINO

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._address.password.get_secret_value(),)

    def build_message(self, catalog: Catalog, work: Work) -> Mapping[str, Any]:
        spaces = (work.namespace, candidates_namespace(work.namespace))
        for space in spaces:
            catalog.create_namespace_if_not_exists(space)
        with open_trino(self._address, attempts=1) as session:
            # Who is gone or refuses us is one clear error here; in dbt it is one a model, and without its cause.
            session.execute(f"SHOW TABLES FROM {quote_qualified(self._address.catalog, spaces[0])}")
        run = _run_suffix(work)
        address = self._address
        return {
            "trino": {
                "host": address.host,
                "port": address.port,
                "username": address.username,
                "password": address.password.get_secret_value(),
                "certificate": str(address.certificate) if address.certificate else None,
                "catalog": address.catalog,
                "candidates": spaces[1],
                "suffix": run,
                "snapshots": {table.unique_id: table.snapshot_id for table in _pinned(work.tables)},
                "bases": {unique_id: delta.base.snapshot_id for unique_id, delta in work.deltas.items()},
            },
            "deltas": {
                unique_id: delta_message(
                    (address.catalog, spaces[1], f"{delta.base.table}{run}"),
                    _published(address.catalog, delta),
                    delta.columns,
                    delta.key,
                )
                for unique_id, delta in work.deltas.items()
            },
        }

    def is_transient(self, message: str) -> bool:
        return is_transient_text(message)

    def retried(self, call: Callable[[], Answer]) -> Answer:
        return retrying(call, pauses=self._pauses)

    @contextlib.contextmanager
    def candidates(self, work: Work) -> Generator[TrinoCandidates]:
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(open_trino(self._address))
            candidates = TrinoCandidates(session, work, self._pauses)
            stack.callback(candidates.drop)
            if work.deltas:
                limits = Limits(work.memory, work.threads, work.folder / "spill")
                with duckdb_translated(f"opening the lake at {work.lakehouse.catalog_uri}"):
                    candidates.lake = stack.enter_context(connect(lakehouse=work.lakehouse, limits=limits))
            yield candidates


class TrinoCandidates:
    """The candidates of one run, over one connection. `lake` reads them on DuckDB; only deltas need it."""

    def __init__(self, session: TrinoSession, work: Work, pauses: Sequence[float] = RETRY_PAUSES) -> None:
        self._session = session
        self._work = work
        self._pauses = pauses
        self._suffix = _run_suffix(work)
        self.lake: DuckDBPyConnection | None = None

    def relation(self, node: Node) -> str:
        delta, rows = self._work.deltas.get(node.unique_id), self._candidate(node)
        if delta is None:
            return rows
        return f"({merged_rows(_published(self._session.address.catalog, delta), rows, delta.columns, delta.key)})"

    def delta(self, node: Node) -> str | None:
        if node.unique_id not in self._work.deltas:
            return None
        return quote_qualified(LAKE, candidates_namespace(self._work.namespace), f"{node.alias}{self._suffix}")

    def publish(self, catalog: Catalog, publication: Publication, product: ProductSchema | None) -> Published:
        columns = self._columns(catalog, publication)
        shape = [(column.name, portable_type(str(column.type)) or str(column.type)) for column in columns]
        require_mart(product, publication, shape, self._first_row)
        if publication.merge and self.lake:
            return publish(self.lake, self._work.lakehouse, catalog, publication)
        names = ", ".join(quote_identifier(column.name) for column in columns)
        target = self._qualified(publication.namespace, publication.table)
        sql = (
            f"CREATE OR REPLACE TABLE {target} WITH (format = 'PARQUET', format_version = 2) "
            f"AS SELECT {names} FROM {publication.relation}"
        )
        before = read_head(catalog, (publication.namespace, publication.table))
        return retrying(lambda: self._replace(catalog, before, publication, sql), pauses=self._pauses)

    def drop(self) -> None:
        """Remove this run's candidates and those that killed runs left a day ago or earlier.

        What cannot be removed is left to a later run: the models are published, and nobody reads these.
        """
        namespace = candidates_namespace(self._work.namespace)
        with contextlib.suppress(MozartError):
            for (name,) in self._session.execute(f"SHOW TABLES FROM {self._qualified(namespace)}"):
                if name.endswith(self._suffix) or _is_abandoned(name):
                    self._session.execute(f"DROP TABLE IF EXISTS {self._qualified(namespace, name)}")

    def _qualified(self, *names: str) -> str:
        return quote_qualified(self._session.address.catalog, *names)

    def _candidate(self, node: Node) -> str:
        return self._qualified(candidates_namespace(self._work.namespace), f"{node.alias}{self._suffix}")

    def _first_row(self, sql: str) -> Sequence[Any]:
        return retrying(lambda: self._session.fetch_one(sql), pauses=self._pauses)

    def _columns(self, catalog: Catalog, publication: Publication) -> list[Column]:
        """Names and Iceberg types of the candidate."""
        name = f"{publication.table}{self._suffix}"
        head = read_head(catalog, (candidates_namespace(self._work.namespace), name))
        if head.table is None:
            raise TerminalError(f"model {publication.name}: its candidate {name} is gone; run it again")
        return [Column(field.name, field.field_type) for field in head.table.schema().fields]

    def _replace(self, catalog: Catalog, before: TableHead, publication: Publication, sql: str) -> Published:
        try:
            result = self._session.stream(sql)
            rows = int(next(iter(result.rows))[0])
        except MozartError:
            _serve_last_version(catalog, before)
            raise
        head = read_head(catalog, before.identifier)
        if _statement_of(head) != result.query_id:
            raise CommitConflictError(f"table {publication.name} was changed by somebody else while it was published")
        outcome = stamp(catalog, head, publication.record(_load_id(publication, result.query_id), rows))
        return Published(outcome.snapshot_id, rows, "committed")


def _serve_last_version(catalog: Catalog, before: TableHead) -> None:
    """Put back what readers had, where Trino took the catalog's answer for a refusal and removed what was committed.

    ADR 24 says when. What cannot be put back now, the next attempt replaces.
    """
    with contextlib.suppress(MozartError):
        head = read_head(catalog, before.identifier)
        if before.snapshot_id is not None and head.snapshot_id != before.snapshot_id and not is_readable(head):
            take_back(catalog, head, before.snapshot_id)


def _published(catalog: str, delta: Delta) -> str:
    """The published table as it was planned on, as a FROM item."""
    return f"{quote_qualified(catalog, delta.base.schema, delta.base.table)} FOR VERSION AS OF {delta.base.snapshot_id}"


def _run_suffix(work: Work) -> str:
    """`__{when it began}_{run}`: names of different runs differ, and say when to throw them away."""
    return f"__{work.began:x}_{hashlib.sha256(work.run_id.encode()).hexdigest()[:8]}"


def _is_abandoned(name: str) -> bool:
    began = name.rpartition("__")[2].partition("_")[0]
    try:
        return int(began, 16) < time.time() - _KEPT_SECONDS
    except ValueError:
        return False


def _pinned(tables: Sequence[LakeTable]) -> list[LakeTable]:
    return [table for table in tables if table.snapshot_id is not None]


def _statement_of(head: TableHead) -> str | None:
    snapshot = head.table.current_snapshot() if head.table else None
    return snapshot.summary.additional_properties.get(_TRINO_QUERY) if snapshot and snapshot.summary else None


def _load_id(publication: Publication, query_id: str) -> str:
    parts = ("publish", publication.name, publication.fingerprint, publication.run_id, query_id)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
