"""Who may do what in Trino: password file and access rules, generated from a list of users.

Pure text; `mozart.services.trino` writes it. Other tenants' schemas are neither readable nor listed for a tenant's
login, and system tables, procedures and impersonation are closed to it. Passwords are stored as PBKDF2 only.

Does not isolate the layers below: in the shared form all tenants' tables lie in one bucket and one catalog, which Trino
reads with an identity of its own. Pitfall: schema names are matched as regular expressions, so they are escaped.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from mozart.engine.trino_client import CATALOG, TrinoAddress, candidates_namespace, reader_login, tenant_login
from mozart.errors import ConfigurationError
from mozart.tenancy.names import Namespaces

_ITERATIONS = 20_000
_KEY_BYTES = 32
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OWNER = ("SELECT", "INSERT", "DELETE", "UPDATE", "OWNERSHIP")
_NOBODY = "(?!)"
_DBT_READS = {"catalog": "system", "schema": "metadata", "table": "materialized_views|table_comments"}
"""What dbt asks about its schema; Trino shows in it what the login may see in the catalogs, and no more."""

Role = Literal["operator", "reader", "tenant"]


@dataclass(frozen=True)
class TrinoUser:
    """A login. An operator may do everything, a reader may read everything.

    A tenant may do everything in the namespaces it `owns`, read those it `reads`, and nothing else.
    """

    name: str
    password: SecretStr
    role: Role = "tenant"
    owns: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _PLAIN_NAME.fullmatch(self.name):
            raise ConfigurationError(f"{self.name!r} is no name for a Trino user: [a-z][a-z0-9_]*")


def standard_users(operator: TrinoAddress, tenants: Sequence[Namespaces]) -> tuple[TrinoUser, ...]:
    """The operator, the reader of `mozart query`, and one login a tenant, named like its namespace.

    A tenant's login owns staging, marts and candidates and reads raw, which only loads write.
    """
    reader = reader_login(operator)
    users = [
        TrinoUser(operator.username, operator.password, "operator"),
        TrinoUser(reader.username, reader.password, "reader"),
    ]
    for spaces in tenants:
        login = tenant_login(operator, spaces.core)
        own = (spaces.core, candidates_namespace(spaces.core))
        users.append(TrinoUser(login.username, login.password, owns=own, reads=(spaces.raw,)))
    return tuple(users)


def password_file(users: Sequence[TrinoUser]) -> str:
    """The lines of Trino's file authenticator, with a new salt each time."""
    return "".join(f"{user.name}:{_hashed(user.password.get_secret_value())}\n" for user in users)


def access_rules(users: Sequence[TrinoUser]) -> str:
    """The rules of Trino's file-based access control, as JSON. The first rule that matches counts."""
    operators, readers, tenants = (_names(users, role) for role in ("operator", "reader", "tenant"))
    schemas: list[dict[str, Any]] = [{"user": operators, "owner": True}]
    tables: list[dict[str, Any]] = [
        {"user": operators, "privileges": [*_OWNER, "GRANT_SELECT"]},
        {"user": readers, "catalog": CATALOG, "privileges": ["SELECT"]},
        {**_DBT_READS, "user": tenants, "privileges": ["SELECT"]},
    ]
    for user in (user for user in users if user.role == "tenant"):
        place = {"user": re.escape(user.name), "catalog": CATALOG}
        schemas.append({**place, "schema": _one_of(user.owns), "owner": True})
        tables.append({**place, "schema": _one_of(user.owns), "privileges": list(_OWNER)})
        tables.append({**place, "schema": _one_of(user.reads), "privileges": ["SELECT"]})
    rules = {
        "catalogs": [
            {"user": operators, "allow": "all"},
            {"user": readers, "catalog": CATALOG, "allow": "read-only"},
            {"user": tenants, "catalog": CATALOG, "allow": "all"},
            {"user": tenants, "catalog": "system", "allow": "read-only"},
            {"allow": "none"},
        ],
        "queries": [
            {"user": operators, "allow": ["execute", "kill", "view"]},
            {"user": f"{readers}|{tenants}", "allow": ["execute"]},
            {"allow": []},
        ],
        "schemas": [*schemas, {"owner": False}],
        "tables": [*tables, {"privileges": []}],
        "functions": [{"user": operators, "privileges": ["EXECUTE", "GRANT_EXECUTE", "OWNERSHIP"]}],
        "procedures": [{"user": operators, "privileges": ["EXECUTE", "GRANT_EXECUTE"]}],
        "system_information": [{"user": operators, "allow": ["read", "write"]}],
        "impersonation": [{"new_user": ".*", "allow": False}],
    }
    return json.dumps(rules, indent=1)


def _one_of(names: Sequence[str]) -> str:
    return "|".join(re.escape(name) for name in names) or _NOBODY


def _names(users: Sequence[TrinoUser], role: Role) -> str:
    return _one_of([user.name for user in users if user.role == role])


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    key = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, _ITERATIONS, dklen=_KEY_BYTES)
    return f"{_ITERATIONS}:{salt.hex()}:{key.hex()}"
