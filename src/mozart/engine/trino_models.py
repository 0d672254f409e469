"""Models on Trino: dbt builds candidates in a namespace beside the tenant's, what passed replaces the published table.

A candidate is a table `{namespace}__candidates.{table}__{run}`, of this run alone. Contract, data tests and product
schema are checked on it; then one `CREATE OR REPLACE TABLE … AS SELECT` makes it the published table, so readers see
the old rows or the new ones, and a commit of ours gives it the record of what it was built from. Everything runs with
the tenant's own login, so a model cannot read, and a hook cannot touch, what belongs to somebody else.

Trino sets no summary properties, hence two commits. Between them the new rows are there without a record: whoever
dies then makes the next run build the model again, no more. Pitfall: candidates of a killed run stay for a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from pyiceberg.catalog import Catalog

from mozart.engine.choice import TRINO
from mozart.engine.dbt_graph import Node
from mozart.engine.model_engine import Answer, LakeTable, Work
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
from mozart.lake.commit import CommitRecord, TableHead, read_head, stamp
from mozart.lake.head import FINGERPRINT
from mozart.lake.publish import Publication, Published
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
            }
        }

    def is_transient(self, message: str) -> bool:
        return is_transient_text(message)

    def retried(self, call: Callable[[], Answer]) -> Answer:
        return retrying(call, pauses=self._pauses)

    @contextlib.contextmanager
    def candidates(self, work: Work) -> Generator[TrinoCandidates]:
        with open_trino(self._address) as session:
            candidates = TrinoCandidates(session, work, self._pauses)
            try:
                yield candidates
            finally:
                candidates.drop()


class TrinoCandidates:
    """The candidates of one run, over one connection."""

    def __init__(self, session: TrinoSession, work: Work, pauses: Sequence[float] = RETRY_PAUSES) -> None:
        self._session = session
        self._work = work
        self._pauses = pauses
        self._suffix = _run_suffix(work)

    def relation(self, node: Node) -> str:
        return self._qualified(candidates_namespace(self._work.namespace), f"{node.alias}{self._suffix}")

    def publish(self, catalog: Catalog, publication: Publication, product: ProductSchema | None) -> Published:
        columns = self._columns(catalog, publication)

        def first_row(sql: str) -> Sequence[Any]:
            return retrying(lambda: self._session.fetch_one(sql), pauses=self._pauses)

        require_mart(product, publication, columns, first_row)
        names = ", ".join(quote_identifier(name) for name, _ in columns)
        target = self._qualified(publication.namespace, publication.table)
        sql = (
            f"CREATE OR REPLACE TABLE {target} WITH (format = 'PARQUET', format_version = 2) "
            f"AS SELECT {names} FROM {publication.relation}"
        )
        return retrying(lambda: self._replace(catalog, publication, sql), pauses=self._pauses)

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

    def _columns(self, catalog: Catalog, publication: Publication) -> list[tuple[str, str]]:
        """Names and Iceberg types of the candidate."""
        name = f"{publication.table}{self._suffix}"
        head = read_head(catalog, (candidates_namespace(self._work.namespace), name))
        if head.table is None:
            raise TerminalError(f"model {publication.name}: its candidate {name} is gone; run it again")
        fields = head.table.schema().fields
        return [(field.name, portable_type(str(field.field_type)) or str(field.field_type)) for field in fields]

    def _replace(self, catalog: Catalog, publication: Publication, sql: str) -> Published:
        result = self._session.stream(sql)
        rows = int(next(iter(result.rows))[0])
        head = read_head(catalog, (publication.namespace, publication.table))
        if _statement_of(head) != result.query_id:
            raise CommitConflictError(f"table {publication.name} was changed by somebody else while it was published")
        record = CommitRecord(
            load_id=_load_id(publication, result.query_id),
            watermark=None,
            base=None,
            rows=rows,
            run_id=publication.run_id,
            mode="publish",
            details={**publication.details, FINGERPRINT: publication.fingerprint},
        )
        outcome = stamp(catalog, head, record)
        return Published(outcome.snapshot_id, rows, "committed")


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
