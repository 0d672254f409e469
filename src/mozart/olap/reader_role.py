"""The role `olap_reader`: it can select from the views and from nothing else.

It cannot log in; people's and tools' logins become members of it. What PUBLIC may read the role may read too, so a
table of the OLTP schema that PUBLIC can select from is refused with the cure.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import errors as pg

from mozart.errors import ConfigurationError
from mozart.olap.database import Connection
from mozart.sql import quote_identifier


def ensure_reader(connection: Connection, role: str, schemas: Sequence[str]) -> None:
    """Create the role when it is missing and let it use the views' schemas; in the caller's transaction."""
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    if known is None:
        try:
            with connection.transaction():
                connection.execute(f"CREATE ROLE {quote_identifier(role)} NOLOGIN NOINHERIT".encode())
        except pg.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"role {role} is missing and this login may not create it; let a superuser run: CREATE ROLE {role}"
            ) from error
        except (pg.DuplicateObject, pg.UniqueViolation):
            pass  # another install was first
    for schema in schemas:
        connection.execute(f"GRANT USAGE ON SCHEMA {quote_identifier(schema)} TO {quote_identifier(role)}".encode())


def require_views_only(connection: Connection, role: str, views: Sequence[tuple[str, str]]) -> None:
    """ConfigurationError naming every other relation that the role can select from; extensions' own are theirs."""
    found = connection.execute(_READABLE, {"role": role}).fetchall()
    extra = [f"{schema}.{name}" for schema, name in found if (str(schema), str(name)) not in set(views)]
    if extra:
        raise ConfigurationError(
            f"role {role} could read {', '.join(extra)}, which are no views of the OLAP layer; run: REVOKE SELECT ON"
            f" {', '.join(extra)} FROM PUBLIC, {role}"
        )


_READABLE = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname NOT LIKE 'pg\\_%%' AND has_schema_privilege(%(role)s, n.oid, 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_depend e
        WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
    AND (has_table_privilege(%(role)s, c.oid, 'SELECT') OR has_any_column_privilege(%(role)s, c.oid, 'SELECT'))
ORDER BY 1, 2
"""
