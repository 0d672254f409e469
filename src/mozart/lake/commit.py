"""The only committer of the lake's tables: append, merge, replace, fold, restamp, expire, take back.

DuckDB writes, this sends.

One call makes at most one snapshot, which holds schema, data, deletes and the commit record together, and which lands
only on the head it was planned on (`assert-ref-snapshot-id`; a new table: `assert-create`). Nothing is rebased: the
staged updates go to the catalog once, without pyiceberg's retry loop.

What a reply means is never taken from the reply alone. After anything but a clean success the table is read again:
- our snapshot is among the head's ancestors: committed;
- another snapshot there names our load id: already done;
- the head moved without us: CommitConflictError, plan again on the new head;
- a new table is read back always, for catalogs let two creators both believe they won;
- the head is as before: CommitInDoubtError. The request may still be under way. Plan again *with the same load id
  and new file paths*: only one of the two can land, and the other will find its load id.

Does not delete: no file, manifest or table, in any case. What a failed commit leaves behind belongs to the sweep.
Does not deduplicate: a merge takes one row per key, and deletes that were found on the very same head.
Why DuckDB never commits: when the catalog had committed and the reply was lost or a 5xx, it deleted the files it had
written (10 of 10 cases), which left the table unreadable. pyiceberg's own loop deletes manifests after a 409, which a
gateway that sends a request twice turns into the same loss.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import Literal, cast

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NoSuchNamespaceError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TableAlreadyExistsError,
)
from pyiceberg.schema import Schema
from pyiceberg.table import CreateTableTransaction, StagedTable, Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AssertCreate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    RemoveStatisticsUpdate,
    SetCurrentSchemaUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)

from mozart.errors import CommitConflictError, CommitInDoubtError, TerminalError, TransientError
from mozart.lake.catalog_client import FAILURES, describe, translate, translated
from mozart.lake.head import (
    CommitRecord,
    Identifier,
    TableHead,
    find_load,
    has_ancestor,
    has_foreign_rows,
    is_readable,
    keeps_record,
    read_head,
)
from mozart.lake.schema_plan import (
    Column,
    check_plan,
    name_mapping,
    plan_schema,
    schema_changes,
    stage_schema,
)
from mozart.lake.snapshots import (
    Change,
    DataFileRef,
    DeleteFileRef,
    LiveFiles,
    LoadSnapshot,
    LoadTransaction,
    describe_data_files,
    describe_delete_files,
)

__all__ = [
    "TABLE_PROPERTIES",
    "Column",
    "CommitOutcome",
    "CommitRecord",
    "DataFileRef",
    "DeleteFileRef",
    "Identifier",
    "TableHead",
    "append",
    "expire",
    "find_load",
    "fold",
    "merge",
    "plan_schema",
    "read_head",
    "replace",
    "restamp",
    "stamp",
    "take_back",
]

TABLE_PROPERTIES: Mapping[str, str] = {
    "format-version": "2",
    "write.format.default": "parquet",
    "write.parquet.compression-codec": "zstd",
    "write.delete.mode": "merge-on-read",
    "write.update.mode": "merge-on-read",
    "write.merge.mode": "merge-on-read",
    # for other writers; our own commits are never retried whatever stands here
    "commit.retry.num-retries": "0",
    # readers that planned on an older metadata file must still find it
    "write.metadata.delete-after-commit.enabled": "false",
}
"""What a table is created with; readable by Trino, Spark and DuckDB."""

_PAUSES = (0.0, 0.3, 1.0)
"""Seconds before each reading of the head after an unclear reply: a commit under way often shows within a second."""

_CREATION_PAUSES = (0.3, 0.3, 1.0)
"""The same after a creation, which is read back even when the catalog said yes: SeaweedFS 4.48 checks and then writes,
so that in 22 of 80 races of three creators more than one heard yes (200 of 200 races on existing tables had one
winner). The pause lets the others' writes end; a creator whose table was overwritten hears of a conflict."""

_UNKNOWN_OUTCOME = (CommitStateUnknownException, ServerError, ServiceUnavailableError)


@dataclass(frozen=True)
class CommitOutcome:
    """What became of a load: `committed` by this call, `already_done` by an earlier one, `empty` (nothing to do).

    `snapshot_id` holds the load (for `empty`: the head as it is). `rows_added` are rows in new files; `rows_deleted`
    rows taken away, of which a merge brings back those it updates. Both are 0 unless committed.
    """

    status: Literal["committed", "already_done", "empty"]
    snapshot_id: int | None
    rows_added: int = 0
    rows_deleted: int = 0


@dataclass(frozen=True)
class _Load:
    """One call, with all it was given."""

    catalog: Catalog
    head: TableHead
    schema: Schema
    record: CommitRecord
    files: Sequence[DataFileRef] = ()
    deletes: Sequence[DeleteFileRef] = ()
    replaces_all: bool = False
    folded: frozenset[str] | None = None
    seen: LiveFiles | None = None
    is_forced: bool = False


@dataclass(frozen=True)
class _Staged:
    """A snapshot whose manifests are written and whose updates are ready to send."""

    table: Table
    updates: tuple[TableUpdate, ...]
    requirements: tuple[TableRequirement, ...]
    producer: LoadSnapshot

    @property
    def snapshot_id(self) -> int:
        return self.producer.snapshot_id

    @property
    def outcome(self) -> CommitOutcome:
        return CommitOutcome(
            "committed", self.snapshot_id, rows_added=self.producer.rows_added, rows_deleted=self.producer.rows_deleted
        )


def append(
    catalog: Catalog, head: TableHead, schema: Schema, files: Sequence[DataFileRef], record: CommitRecord
) -> CommitOutcome:
    """Add files. Creates the table (and its namespace) when it does not exist.

    Raises CommitConflictError, CommitInDoubtError or another TransientError (see the module), TerminalError when the
    plan or a file does not fit the table or the catalog refuses. Nothing is deleted in any case.
    """
    return _commit(_Load(catalog, head, schema, record, files))


def merge(  # noqa: PLR0917 - the order of the three verbs is one
    catalog: Catalog,
    head: TableHead,
    schema: Schema,
    files: Sequence[DataFileRef],
    deletes: Sequence[DeleteFileRef],
    record: CommitRecord,
) -> CommitOutcome:
    """Add files and take away the rows that `deletes` name, in one snapshot. Errors as for `append`.

    `deletes` come from `mozart.lake.deltas.write_position_deletes` on the same head; the files hold one row per key.
    """
    return _commit(_Load(catalog, head, schema, record, files, deletes))


def replace(
    catalog: Catalog, head: TableHead, schema: Schema, files: Sequence[DataFileRef], record: CommitRecord
) -> CommitOutcome:
    """Put these files in the place of everything the table holds, in one snapshot; no files: empty the table.

    With a record of mode `maintenance` the rows must stay as many as they were. One of mode `publish` is committed even
    when nothing changes: an empty mart must carry the fingerprint of what it was built from, or it is built again by
    every run. Errors as for `append`.
    """
    is_forced = record.mode == "publish"
    return _commit(_Load(catalog, head, schema, record, files, replaces_all=True, is_forced=is_forced))


def fold(  # noqa: PLR0917 - the order of the three verbs is one
    catalog: Catalog,
    head: TableHead,
    files: Sequence[DataFileRef],
    deletes: Sequence[DeleteFileRef],
    folded: Collection[str],
    record: CommitRecord,
    *,
    seen: LiveFiles | None = None,
) -> CommitOutcome:
    """Put `files` in the place of the data files at the addresses `folded`, and `deletes` in that of all position
    deletes, in one snapshot that keeps every row; the other data files stay.

    `deletes` name the same rows of the files that stay as the deletes before, and were found on the same head. The rows
    are counted as for `replace` in maintenance. `seen`: the head's live files, where the caller has read them. Raises
    TerminalError when a file of `folded` is not in the head, otherwise as `append`.
    """
    if head.table is None:
        raise TerminalError(f"table {head.name} does not exist; there is nothing to fold")
    load = _Load(catalog, head, head.table.schema(), record, files, deletes, is_forced=True)
    return _commit(with_changes(load, folded=frozenset(folded), seen=seen))


def restamp(catalog: Catalog, head: TableHead, *, run_id: str) -> CommitOutcome:
    """Carry the record over a foreign commit, so that expiring older snapshots does not lose it.

    Where the foreign commit changed rows, the watermark and the load's id are carried, but not as those of the rows.
    `empty` when the head's own snapshot has a record or there is none to carry. Errors as for `append`.
    """
    if head.table is None or head.record is None or not head.is_foreign:
        return CommitOutcome("empty", head.snapshot_id)
    load_id = f"restamp-{head.snapshot_id}"
    record = head.record.carry_forward(load_id=load_id, run_id=run_id, rows_changed=has_foreign_rows(head))
    return _commit(_Load(catalog, head, head.table.schema(), record, is_forced=True))


def stamp(catalog: Catalog, head: TableHead, record: CommitRecord) -> CommitOutcome:
    """Give the rows that another engine has just committed their record, in a snapshot without files.

    For engines that cannot write it into their own snapshot. The caller knows that the head is that very commit. Errors
    as for `append`; TerminalError when there is no table.
    """
    if head.table is None:
        raise TerminalError(f"table {head.name} does not exist; there is nothing to stamp")
    return _commit(_Load(catalog, head, head.table.schema(), record, is_forced=True))


def expire(catalog: Catalog, head: TableHead, snapshot_ids: Collection[int]) -> CommitOutcome:
    """Forget these snapshots of the head's table, with their statistics; no file is removed, no snapshot made.

    `already_done` when none of them is there. Lands on this head only, like every commit; said again after a lost
    reply, it does no harm. Raises TerminalError when the current snapshot, one that a tag or branch names, or the
    only commit record would go; otherwise errors as for `append`.
    """
    known = {snapshot.snapshot_id for snapshot in head.table.metadata.snapshots} if head.table else set[int]()
    ids = sorted(known & set(snapshot_ids))
    if head.table is None or not ids:
        return CommitOutcome("already_done", head.snapshot_id)
    metadata = head.table.metadata
    if any(ref.snapshot_id in ids for ref in metadata.refs.values()) or head.snapshot_id in ids:
        raise TerminalError(f"table {head.name}: a snapshot that is current or has a name cannot be expired")
    if not keeps_record(head, ids):
        raise TerminalError(f"table {head.name}: expiring {ids} would lose the commit record; restamp the table first")
    requirements = (
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertRefSnapshotId.model_validate({"ref": "main", "snapshot-id": head.snapshot_id}),
    )
    updates: list[TableUpdate] = [RemoveSnapshotsUpdate.model_validate({"snapshot-ids": ids})]
    for statistics in metadata.statistics:
        if statistics.snapshot_id in ids:
            updates.append(RemoveStatisticsUpdate.model_validate({"snapshot-id": statistics.snapshot_id}))
    try:
        catalog.commit_table(head.table, requirements, tuple(updates))
    except Exception as error:  # noqa: BLE001 - whatever was raised, only the table knows what landed
        return _find_out_expired(catalog, head, ids, error)
    return CommitOutcome("committed", head.snapshot_id)


def _find_out_expired(catalog: Catalog, head: TableHead, ids: Sequence[int], error: Exception) -> CommitOutcome:
    now = read_head(catalog, head.identifier)
    left = {snapshot.snapshot_id for snapshot in now.table.metadata.snapshots} if now.table else set[int]()
    if now.table is not None and not left & set(ids):
        return CommitOutcome("committed", now.snapshot_id)
    if _identity(now) != _identity(head) or isinstance(error, CommitFailedException):
        raise CommitConflictError(
            f"table {head.name} changed while its old snapshots were being expired; try again on the new head"
        ) from error
    if isinstance(error, FAILURES):
        raise translate(error, f"expiring snapshots of {head.name}") from error
    raise error


def take_back(catalog: Catalog, head: TableHead, snapshot_id: int) -> CommitOutcome:
    """Make an earlier snapshot current again, with its columns, and forget the head's own, whose files are gone.

    For engines that remove the files of a commit which the catalog has made. Lands on this head only, makes no snapshot
    and removes no file. Raises TerminalError when the head can be read or there is no such snapshot, otherwise errors
    as for `append`.
    """
    broken = head.table.current_snapshot() if head.table else None
    target = head.table.snapshot_by_id(snapshot_id) if head.table else None
    if head.table is None or broken is None or target is None or is_readable(head):
        raise TerminalError(f"table {head.name}: only a snapshot without its files is taken back, onto an earlier one")
    metadata = head.table.metadata
    requirements = (
        AssertTableUUID(uuid=metadata.table_uuid),
        AssertRefSnapshotId.model_validate({"ref": "main", "snapshot-id": head.snapshot_id}),
    )
    updates: list[TableUpdate] = [
        SetSnapshotRefUpdate.model_validate({"ref-name": "main", "type": "branch", "snapshot-id": snapshot_id}),
        RemoveSnapshotsUpdate.model_validate({"snapshot-ids": [broken.snapshot_id]}),
    ]
    if target.schema_id is not None and target.schema_id != metadata.current_schema_id:
        updates.append(SetCurrentSchemaUpdate.model_validate({"schema-id": target.schema_id}))
    try:
        catalog.commit_table(head.table, requirements, tuple(updates))
    except Exception as error:
        if read_head(catalog, head.identifier).snapshot_id == snapshot_id:
            return CommitOutcome("committed", snapshot_id)
        if isinstance(error, FAILURES):
            raise translate(error, f"taking back a commit of {head.name}") from error
        raise
    return CommitOutcome("committed", snapshot_id)


def _commit(load: _Load) -> CommitOutcome:
    head = load.head
    load = with_changes(load, record=with_changes(load.record, base=head.snapshot_id))
    done = find_load(head, load.record.load_id)
    if done is not None:
        return CommitOutcome("already_done", done)
    if head.table is not None:
        _check_layout(head.name, head.table.metadata)
    _check_deletes(load)
    check_plan(head, load.schema, replaces_all=load.replaces_all)
    if _is_empty(load):
        return CommitOutcome("empty", head.snapshot_id)
    return _send(load, _stage(load))


def _is_empty(load: _Load) -> bool:
    if load.is_forced or any(ref.rows for ref in (*load.files, *load.deletes)):
        return False
    return not schema_changes(load.head, load.schema) and not (load.replaces_all and _has_files(load.head))


def _has_files(head: TableHead) -> bool:
    snapshot = head.table.current_snapshot() if head.table else None
    if head.table is None or snapshot is None:
        return False
    with translated(f"reading the manifests of {head.name}"):
        manifests = snapshot.manifests(head.table.io)
    return any(manifest.has_added_files() or manifest.has_existing_files() for manifest in manifests)


def _check_layout(name: str, metadata: TableMetadata) -> None:
    if metadata.format_version != 2:
        raise TerminalError(f"table {name} has format version {metadata.format_version}; only version 2 can be loaded")
    if not metadata.spec().is_unpartitioned():
        raise TerminalError(f"table {name} is partitioned by someone else; load it under a new name")


def _check_deletes(load: _Load) -> None:
    stale = [ref.path for ref in load.deletes if ref.planned_on != load.head.snapshot_id]
    if stale:
        raise TerminalError(
            f"table {load.head.name}: the deletes in {stale[0]} were found on another snapshot; "
            "find them again on this head"
        )


def _stage(load: _Load) -> _Staged:
    """Write the manifests and collect the updates; the catalog's table is as before."""
    with translated(f"preparing the commit of {load.head.name}"):
        transaction = _begin(load)
        table = transaction._table
        producer = LoadSnapshot(transaction, table.io, _describe(load, transaction))
        _check_kept(load.head.name, producer)
        producer.commit()
    is_new = isinstance(transaction, CreateTableTransaction)
    unchanged = AssertTableUUID(uuid=table.metadata.table_uuid)
    requirements = (AssertCreate(),) if is_new else (*transaction._requirements, unchanged)
    return _Staged(table, transaction._updates, requirements, producer)


def _check_kept(name: str, producer: LoadSnapshot) -> None:
    """Maintenance neither adds nor removes a row; the manifests say so, or, after other writers, the deletes do."""
    if producer.missing:
        raise TerminalError(f"table {name}: {producer.missing[0]} is not in its head; find what is due on it again")
    if not producer.keeps_rows or producer.rows_added == producer.rows_deleted:
        return
    live, marked = producer.count_live_rows(), producer.count_marked_rows()
    if (producer.rows_added, producer.rows_marked) != (live, marked):
        raise TerminalError(
            f"table {name}: maintenance would turn {live} rows into {producer.rows_added}, and {marked} rows marked "
            f"deleted into {producer.rows_marked}; nothing was committed"
        )


def _describe(load: _Load, transaction: Transaction) -> Change:
    io = transaction._table.io
    return Change(
        files=describe_data_files(transaction, io, load.files),
        deletes=describe_delete_files(io, load.deletes, transaction.table_metadata.default_spec_id),
        replaces_all=load.replaces_all,
        folded=load.folded,
        keeps_rows=load.folded is not None or (load.replaces_all and load.record.mode == "maintenance"),
        seen=load.seen,
        properties=load.record.to_properties(),
    )


def _begin(load: _Load) -> Transaction:
    """A transaction with the planned columns, on the head's table or on one that is only staged."""
    if load.head.table is None:
        return _begin_table(load)
    transaction = LoadTransaction(load.head.table)
    stage_schema(transaction, load.head, load.schema)
    return transaction


def _begin_table(load: _Load) -> CreateTableTransaction:
    try:
        staged = _stage_table(load)
    except TableAlreadyExistsError as error:
        raise _conflict(load) from error
    metadata = staged.metadata
    _check_layout(load.head.name, metadata)
    if metadata.current_snapshot_id is not None:
        # SeaweedFS answers the staging of a name that exists with the existing table
        raise _conflict(load)
    if metadata.schema().as_struct() != load.schema.as_struct():
        _renumber(staged, load.schema)
    return CreateTableTransaction(staged)


def _renumber(staged: StagedTable, planned: Schema) -> None:
    """Make the staged table's columns the planned ones, whose ids the files carry already.

    SeaweedFS numbers nested fields depth first where the Java catalogs and pyiceberg go level by level, and it keeps
    its own numbers unless the schema comes under another schema id.
    """
    metadata = staged.metadata
    schema_id = metadata.current_schema_id + 1
    staged.metadata = metadata.model_copy(
        update={
            "schemas": [planned.model_copy(update={"schema_id": schema_id})],
            "current_schema_id": schema_id,
            "last_column_id": max(metadata.last_column_id, planned.highest_field_id),
            "properties": {**metadata.properties, **name_mapping(planned)},
        }
    )


def _stage_table(load: _Load) -> StagedTable:
    def stage() -> StagedTable:
        # never create_table: on a name that exists it answers 200 with the old table (seen on SeaweedFS)
        transaction = load.catalog.create_table_transaction(
            load.head.identifier, schema=load.schema, properties=dict(TABLE_PROPERTIES)
        )
        return cast(StagedTable, transaction._table)

    try:
        return stage()
    except NoSuchNamespaceError:
        load.catalog.create_namespace_if_not_exists(load.head.identifier[:-1])
        return stage()


def _send(load: _Load, staged: _Staged) -> CommitOutcome:
    """Send the updates, once, and find out what became of them."""
    try:
        reply = load.catalog.commit_table(staged.table, staged.requirements, staged.updates)
    except Exception as error:  # noqa: BLE001 - whatever was raised, only the table knows what landed
        return _find_out(load, staged, error)
    if reply.metadata.snapshot_by_id(staged.snapshot_id) is None:
        return _find_out(load, staged, ValueError("the catalog's reply does not hold the new snapshot"))
    if load.head.table is None:
        return _find_out(load, staged, ValueError("the new table could not be read back"))
    return _landed(load, staged, reply.metadata)


def _landed(load: _Load, staged: _Staged, metadata: TableMetadata) -> CommitOutcome:
    """The outcome, once it is certain that the catalog kept the field ids that the files carry."""
    snapshot = metadata.snapshot_by_id(staged.snapshot_id)
    kept = next((schema for schema in metadata.schemas if snapshot and schema.schema_id == snapshot.schema_id), None)
    if kept is None or kept.as_struct() != load.schema.as_struct():
        raise TerminalError(
            f"table {load.head.name}: the catalog committed other columns than planned ({kept}); "
            "values may be read under wrong columns: roll the table back and do not use this catalog"
        )
    return staged.outcome


def _find_out(load: _Load, staged: _Staged, error: Exception) -> CommitOutcome:
    """Read the table until it tells; raises what the module's documentation says when it does not."""
    unread: Exception = error
    for pause in _CREATION_PAUSES if load.head.table is None else _PAUSES:
        time.sleep(pause * random.uniform(1.0, 1.5))  # noqa: S311 - spreads loaders, hides nothing
        try:
            now = read_head(load.catalog, load.head.identifier)
        except TransientError as failed:
            unread = failed
            continue
        outcome = _outcome_in(now, load, staged)
        if outcome is not None:
            return outcome
        if _was_refused(error):
            raise _refusal(load, error) from error
        unread = error
    raise CommitInDoubtError(
        f"table {load.head.name}: whether load {load.record.load_id} was committed is unknown ({describe(unread)}); "
        "no file may be deleted; run the load again, it will not be committed twice"
    ) from error


def _outcome_in(now: TableHead, load: _Load, staged: _Staged) -> CommitOutcome | None:
    """What the head as it is now says of the load; None when it is the head the load was planned on."""
    if now.table is not None and has_ancestor(now, staged.snapshot_id):
        return _landed(load, staged, now.table.metadata)
    done = find_load(now, load.record.load_id)
    if done is not None:
        return CommitOutcome("already_done", done)
    if _identity(now) != _identity(load.head):
        raise _conflict(load)
    return None


def _identity(head: TableHead) -> tuple[str | None, int | None]:
    return (str(head.table.metadata.table_uuid) if head.table else None, head.snapshot_id)


def _was_refused(error: Exception) -> bool:
    """Whether the catalog said no before it did anything; a 5xx, a lost or an unreadable reply say nothing."""
    return isinstance(error, CommitFailedException | RESTError) and not isinstance(error, _UNKNOWN_OUTCOME)


def _refusal(load: _Load, error: Exception) -> Exception:
    if isinstance(error, CommitFailedException):
        return _conflict(load)
    return translate(error, f"committing table {load.head.name}")


def _conflict(load: _Load) -> CommitConflictError:
    return CommitConflictError(
        f"table {load.head.name} changed while load {load.record.load_id} was made "
        f"(planned on snapshot {load.head.snapshot_id}); plan the load again on the new head"
    )
