"""Inside dbt's process: the parsed project pointed at this run's candidates, and the login put into dbt-trino.

The profile names neither server nor login, so that it is the same in every run and on every machine, for dbt parses
everything anew when it is not. Both arrive over stdin and go into dbt-trino's connections here. In the parsed project,
which is this process's copy, the models to build get the candidates' namespace and a name of this run, so `ref()`
finds the candidate of what is built now and the published table of what is not; a source names the snapshot it is
read at. Where an incremental model's delta is built, `this` is the published table at the snapshot of the plan, and
`ref()` a parenthesised SELECT of the merged rows: catalogs need not have views, and a second table over the published
files would take them along when it is dropped.

Relies on five things of dbt: relations are made from a node's `schema`, `alias` and `database`; an identifier is
written as it stands when its quoting is off (as dbt does with the name of an ephemeral model);
`TrinoConnectionManager.open` reads the connection's credentials; `RuntimeRefResolver.create_relation` makes what
`ref()` gives; `ModelContext` takes `this` from its members.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mozart.sql import quote_identifier

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


def open_session(
    manifest: Manifest, trino: Mapping[str, Any], selected: Collection[str], deltas: Mapping[str, Mapping[str, Any]]
) -> None:
    """Prepare this process for one build. `selected` are names of models and seeds, as for `--select`.

    `deltas` by unique id: see `mozart.engine.model_delta.delta_message`.
    """
    _log_in(trino)
    _show_published(manifest, trino)
    _merge_references(deltas)
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


def _show_published(manifest: Manifest, trino: Mapping[str, Any]) -> None:
    """`this` of a model that is computed as a delta; before the parsed nodes are given the candidates' names."""
    from dbt.context.providers import ModelContext  # noqa: PLC0415

    bases: Mapping[str, int] = trino["bases"]
    tables = {
        unique_id: (trino["catalog"], manifest.nodes[unique_id].schema, _pinned(manifest.nodes[unique_id].alias, base))
        for unique_id, base in bases.items()
    }
    members: dict[str, Any] = ModelContext._context_members_
    plain: property = members["this"]

    def this(context: Any) -> Any:
        table = tables.get(context.model.unique_id)
        # A unit test's stand-in for the model has the model's id; dbt asks for the columns of a table, at no snapshot.
        if table is None or context.model.is_ephemeral_model:
            return plain.__get__(context)
        relation = context.db_wrapper.Relation.create(*table)
        return relation.quote(identifier=False)

    members["this"] = property(this)


def _merge_references(deltas: Mapping[str, Mapping[str, Any]]) -> None:
    """`ref()` of a model that is computed as a delta, in models and tests alike."""
    from dbt.context.providers import RuntimeRefResolver  # noqa: PLC0415

    plain: Any = RuntimeRefResolver.create_relation

    def create_relation(resolver: Any, target: Any) -> Any:
        delta = deltas.get(target.unique_id)
        if delta is None:
            return plain(resolver, target)
        kind = resolver.Relation
        return kind.create(type=kind.CTE, identifier=f"({delta['merged']})").quote(identifier=False)

    RuntimeRefResolver.create_relation = create_relation  # type: ignore[method-assign]


def _pinned(table: str, snapshot_id: int) -> str:
    return f"{quote_identifier(table)} FOR VERSION AS OF {int(snapshot_id)}"


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
            source.identifier = _pinned(source.identifier, snapshot_id)
            source.quoting.identifier = False
