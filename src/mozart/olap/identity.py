"""Which server and which tables a stored cursor belongs to.

A cursor into the change log is a set of transaction numbers. It is worth nothing on another server or timeline, after a
table was rewritten or replaced, or while a trigger is off: then a view is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from mozart.olap.database import Connection
from mozart.olap.tracking import PREFIX


def server_identity(connection: Connection) -> str:
    """`system identifier/timeline/database` of the server that answers."""
    row = connection.execute(
        "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) || '/'"
        " || (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()"
    ).fetchone()
    return str(row[0]) if row else ""


def source_signature(connection: Connection, schema: str, sources: Sequence[str]) -> tuple[str, bool]:
    """A text that changes with every rewrite, replacement or change of columns; and whether tracking is complete.

    VACUUM FULL changes it too: one needless recomputation, never a missed one.
    """
    if not sources:
        return "", True
    row = connection.execute(
        _SIGNATURE, {"schema": schema, "sources": list(sources), "prefix": PREFIX.replace("_", r"\_") + "%"}
    ).fetchone()
    if row is None or row[0] is None:
        return "", False
    return str(row[0]), bool(row[1]) and int(row[2]) == len(sources)


_SIGNATURE = """
SELECT string_agg(concat_ws(':', c.relname, c.oid, c.relfilenode, columns.hash), ',' ORDER BY c.relname),
    bool_and(triggers.enabled >= 4 AND triggers.enabled = triggers.present), count(*)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT md5(string_agg(concat_ws(' ', attname, attnum, atttypid, atttypmod), ',' ORDER BY attnum)) AS hash
    FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
CROSS JOIN LATERAL (
    SELECT count(*) AS present, count(*) FILTER (WHERE tgenabled = 'A') AS enabled
    FROM pg_trigger WHERE tgrelid = c.oid AND tgname LIKE %(prefix)s) AS triggers
WHERE n.nspname = %(schema)s AND c.relname = ANY(%(sources)s)
"""
