"""What must hold of a lake table after every case, whatever happened to it: one function, two readers.

`check_table` reads the table with DuckDB and with pyiceberg and compares both with the rows it should have, compares
every summary with the manifests it sums up, and looks for every file that any snapshot refers to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFileContent, ManifestContent, ManifestEntry, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from mozart.lake.head import Identifier
from mozart.sql import quote_identifier, quote_qualified

Row = Mapping[str, Any]


def check_table(
    catalog: Catalog, connection: DuckDBPyConnection, identifier: Identifier, expected: Iterable[Row]
) -> Table:
    """Assert everything that holds of a table in order; returns it as pyiceberg sees it. Columns: all of the schema."""
    table = catalog.load_table(identifier)
    names = [field.name for field in table.schema().fields]
    wanted = multiset(expected, names)
    select = ", ".join(quote_identifier(name) for name in names)
    by_duckdb = connection.execute(f"SELECT {select} FROM {quote_qualified('lake', *identifier)}").to_arrow_table()
    _compare("DuckDB", multiset(by_duckdb.to_pylist(), names), wanted)
    _compare("pyiceberg", multiset(table.scan().to_arrow().to_pylist(), names), wanted)
    for snapshot in table.metadata.snapshots:
        check_snapshot(table, snapshot)
    check_files(table)
    return table


def multiset(rows: Iterable[Row], names: Sequence[str]) -> Counter[str]:
    """Rows as comparable texts; a column a row does not name is NULL."""
    return Counter(repr([_plain(row.get(name)) for name in names]) for row in rows)


def check_snapshot(table: Table, snapshot: Snapshot) -> None:
    """The summary's totals and additions are those of the manifests, and no live file is listed twice."""
    live = live_entries(table, snapshot)
    paths = [entry.data_file.file_path for entry in live]
    assert len(paths) == len(set(paths)), f"a file is twice in snapshot {snapshot.snapshot_id}"
    added = [entry for entry in live if entry.snapshot_id == snapshot.snapshot_id]
    added = [entry for entry in added if entry.status == ManifestEntryStatus.ADDED]
    assert snapshot.summary
    summary = snapshot.summary.additional_properties
    assert _totals(summary, "total-") == _counts(live), f"totals of {snapshot.snapshot_id}: {summary}"
    assert _totals(summary, "added-") == _counts(added), f"additions of {snapshot.snapshot_id}: {summary}"
    for manifest in snapshot.manifests(table.io):
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
        contents = {entry.data_file.content for entry in entries}
        is_data = manifest.content == ManifestContent.DATA
        assert is_data == (contents == {DataFileContent.DATA}), f"{manifest.manifest_path} mixes data and deletes"
        statuses = Counter(entry.status for entry in entries)
        assert (manifest.added_files_count, manifest.existing_files_count, manifest.deleted_files_count) == (
            statuses[ManifestEntryStatus.ADDED],
            statuses[ManifestEntryStatus.EXISTING],
            statuses[ManifestEntryStatus.DELETED],
        )


def check_files(table: Table) -> None:
    """Every file that a snapshot or the metadata log refers to is in the store."""
    gone = [path for path in referenced_files(table) if not table.io.new_input(path).exists()]
    assert not gone, f"files of landed commits are gone: {gone}"


def referenced_files(table: Table) -> set[str]:
    """Metadata, manifest lists, manifests, data and delete files of all snapshots."""
    found = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        found.update(manifest.manifest_path for manifest in snapshot.manifests(table.io))
        found.update(entry.data_file.file_path for entry in live_entries(table, snapshot))
    return found


def live_entries(table: Table, snapshot: Snapshot) -> list[ManifestEntry]:
    return [
        entry
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    ]


def _compare(reader: str, found: Counter[str], wanted: Counter[str]) -> None:
    assert found == wanted, f"{reader} lacks {list(wanted - found)[:3]} and has {list(found - wanted)[:3]}"


def _counts(entries: Sequence[ManifestEntry]) -> dict[str, int]:
    files = [entry.data_file for entry in entries]
    data = [file for file in files if file.content == DataFileContent.DATA]
    deletes = [file for file in files if file.content != DataFileContent.DATA]
    return {
        "data-files": len(data),
        "records": sum(file.record_count for file in data),
        "delete-files": len(deletes),
        "position-deletes": sum(file.record_count for file in deletes),
        "files-size": sum(file.file_size_in_bytes for file in files),
    }


def _totals(summary: Mapping[str, str], prefix: str) -> dict[str, int]:
    names = ("data-files", "records", "delete-files", "position-deletes", "files-size")
    return {name: int(summary.get(f"{prefix}{name}", "0")) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat()
    if isinstance(value, dict):
        return {name: _plain(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value
