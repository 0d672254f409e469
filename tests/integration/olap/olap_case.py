"""What the OLAP tests share: a database with views, and short ways to what they do all the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from pydantic import SecretStr

from mozart.olap.database import OlapDatabase
from mozart.olap.install import install
from mozart.olap.model import Strategy, View
from mozart.olap.refresh import RefreshKind, SyncResult, refresh_view
from mozart.olap.registry import ViewRegistry
from mozart.olap.state_schema import log_of
from mozart.olap.verify import verify_view
from mozart.olap.view_sql import compare_query
from mozart.services.postgres import Database, Postgres

SCALE = 0.01
FACTS = ("mv_business_fact", "mv_cashflow_fact")


@dataclasses.dataclass
class Olap:
    """A database with views, and short ways to what tests do all the time."""

    database: OlapDatabase
    registry: ViewRegistry
    server: Postgres

    def without_server(self) -> Olap:
        """A copy that another process can take."""
        return dataclasses.replace(self, server=None)  # type: ignore[arg-type]

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own; its rows, if it has any."""
        with closing(self.database.connect()) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, parameters: Any = None) -> Any:
        """The first value of the first row."""
        return self.execute(statement, parameters)[0][0]

    def change_log(self, statement: str) -> None:
        """Run a statement on each table of the change log, `{}` in it."""
        for (number,) in self.execute("SELECT id FROM mozart.tracked_source"):
            self.execute(statement.format(log_of(number)))

    def superuser(self) -> psycopg.Connection[Any]:
        return self.server.superuser(self.database.database).connect(autocommit=True)

    def refresh(self, view: str, kind: RefreshKind = "incremental", *, force: bool = False) -> SyncResult:
        return refresh_view(self.database, self.registry, view, kind=kind, force=force)

    def is_exact(self, view: str) -> bool:
        """Whether what readers see now is the view's full query, without applying anything."""
        with closing(self.database.connect()) as connection:
            connection.execute("SET search_path = public")
            return connection.execute(compare_query(self.registry.get(view)).encode()).fetchone() == (0, 0)

    def verify(self, view: str) -> bool:
        return verify_view(self.database, self.registry, view).is_exact

    def change(self, view: str, **fields: Any) -> None:
        """Give a view of the registry other fields, as an edited folder would; `install` applies it."""
        self.registry = with_view(self.registry, self.registry.get(view).model_copy(update=fields))

    def use(self, strategy: Strategy, *views: str) -> None:
        """Give views another strategy and install."""
        for view in views:
            self.change(view, strategy=strategy, min_interval_seconds=0.0)
        install(self.database, self.registry)


def with_view(registry: ViewRegistry, view: View) -> ViewRegistry:
    """The registry with this view in the place of the one of its name, or at the end."""
    known = [view if each.name == view.name else each for each in registry.views]
    return dataclasses.replace(registry, views=tuple(known if view in known else [*known, view]))


def olap_database(database: Database, **fields: Any) -> OlapDatabase:
    return OlapDatabase(
        host=database.host,
        port=database.port,
        database=database.name,
        username=database.user,
        password=SecretStr(database.password),
        **fields,
    )


@contextmanager
def held_lock(olap: Olap, view: str) -> Iterator[None]:
    """Hold a view's lock as a running refresh does."""
    with closing(olap.database.connect()) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('mv:' || %s, 0))", (view,))
        yield
