"""The SQL of an incremental model of which only the changed rows were computed, and how dbt's process hears of it.

The changed rows, the *delta*, are a table of their own. Whoever reads the model in the same run (its tests, other
models, the product check) reads the *merged* rows: those of the published table whose key is not in the delta, and the
delta. The same SELECT serves every engine; what differs is how they name the published table at one snapshot.

In dbt's process each incremental model carries a config value (`MARK`), which `dbt/macros/incremental.sql` reads: None,
and the model is computed whole, or where its delta goes and what is merged. Nothing here runs a query.

Pitfall: keys are compared by `=`. No NULL is in them, for the macros refuse a key that is NULL or there twice, in a
delta and in a whole table alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mozart.sql import quote_identifier, quote_qualified

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

MARK = "mozart_delta"
"""The config value of an incremental model in dbt's process."""


def merged_rows(published: str, delta: str, columns: Sequence[str], key: Sequence[str]) -> str:
    """A SELECT of the merged rows, without parentheses. `published` and `delta` are FROM items without an alias."""
    names = ", ".join(quote_identifier(name) for name in columns)
    same = " AND ".join(f"changed.{quote_identifier(name)} = kept.{quote_identifier(name)}" for name in key)
    return (
        f"SELECT {names} FROM (SELECT {names} FROM {published}) AS kept "
        f"WHERE NOT EXISTS (SELECT 1 FROM {delta} AS changed WHERE {same}) "
        f"UNION ALL SELECT {names} FROM {delta}"
    )


def delta_message(place: tuple[str, str, str], published: str, columns: Sequence[str], key: Sequence[str]) -> Any:
    """What dbt's process is told of one delta. `place` is where it goes: database, schema, table."""
    database, schema, table = place
    merged = merged_rows(published, quote_qualified(*place), columns, key)
    return {"database": database, "schema": schema, "identifier": table, "columns": list(columns), "merged": merged}


def mark_deltas(manifest: Manifest, deltas: Mapping[str, Mapping[str, Any]]) -> None:
    """Mark every incremental model of the parsed project. `deltas` are messages by unique id."""
    for unique_id, node in manifest.nodes.items():
        if node.config.materialized == "incremental":
            # Also when it is None: a tenant's model may have written a value of its own there.
            node.config[MARK] = deltas.get(unique_id)
