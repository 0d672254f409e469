"""Inside dbt's process: the parsed project pointed at this run's candidates, and the login put into dbt-trino.

The profile names neither server nor login, so that it is the same in every run and on every machine, for dbt parses
everything anew when it is not. Both arrive over stdin and go into dbt-trino's connections here. In the parsed project,
which is this process's copy, the models to build get the candidates' namespace and a name of this run, so `ref()`
finds the candidate of what is built now and the published table of what is not; a source names the snapshot it is
read at.

Relies on three things of dbt: relations are made from a node's `schema`, `alias` and `database`; a source's identifier
is written as it stands when its quoting is off; `TrinoConnectionManager.open` reads the connection's credentials.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mozart.sql import quote_identifier

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


def open_session(manifest: Manifest, trino: Mapping[str, Any], selected: Collection[str]) -> None:
    """Prepare this process for one build. `selected` are names of models and seeds, as for `--select`."""
    _log_in(trino)
    _place_candidates(manifest, trino, selected)
    _pin_sources(manifest, trino)


def _log_in(trino: Mapping[str, Any]) -> None:
    from dbt.adapters.trino.connections import TrinoConnectionManager  # noqa: PLC0415 - after the request, as in dbt_child

    plain_open: Any = TrinoConnectionManager.open

    def open_with_login(_class: type, connection: Any) -> Any:
        credentials = connection.credentials
        credentials.host, credentials.port = trino["host"], trino["port"]
        credentials.user, credentials.password = trino["username"], trino["password"]
        credentials.cert = trino["certificate"] or True
        return plain_open(connection)

    TrinoConnectionManager.open = classmethod(open_with_login)  # type: ignore[method-assign]


def _place_candidates(manifest: Manifest, trino: Mapping[str, Any], selected: Collection[str]) -> None:
    for node in manifest.nodes.values():
        if str(node.resource_type) in ("model", "seed"):
            node.database = trino["catalog"]
            if node.name in selected:
                node.schema = trino["candidates"]
                node.alias = f"{node.alias}{trino['suffix']}"
            parts = (trino["catalog"], node.schema, node.alias)
            node.relation_name = ".".join(quote_identifier(part) for part in parts)  # type: ignore[union-attr]


def _pin_sources(manifest: Manifest, trino: Mapping[str, Any]) -> None:
    snapshots: Mapping[str, int] = trino["snapshots"]
    for unique_id, source in manifest.sources.items():
        source.database = trino["catalog"]
        snapshot_id = snapshots.get(unique_id)
        if snapshot_id is not None:
            source.identifier = f"{quote_identifier(source.identifier)} FOR VERSION AS OF {int(snapshot_id)}"
            source.quoting.identifier = False
