"""Who may do what in Trino: password file and access rules, generated from a list of users.

Pure text; `mozart.services.trino_logins` writes it. Other tenants' schemas are neither readable nor listed for a
tenant's login, and system tables, procedures and impersonation are closed to it. Passwords are stored as PBKDF2 only.

Does not isolate the layers below: in the shared form all tenants' tables lie in one bucket and one catalog, which Trino
reads with an identity of its own. Pitfall: schema names are matched as regular expressions, so they are escaped.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from mozart.engine.trino_client import CATALOG, TrinoAddress, reader_login, tenant_login
from mozart.errors import ConfigurationError, Problem
from mozart.tenancy.names import Namespaces, candidates_namespace

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

    A tenant may do everything in the namespaces of its `catalog` that it `owns`, read those it `reads`, and nothing
    else.
    """

    name: str
    password: SecretStr
    role: Role = "tenant"
    owns: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    catalog: str = CATALOG

    def __post_init__(self) -> None:
        if not _PLAIN_NAME.fullmatch(self.name):
            raise ConfigurationError(f"{self.name!r} is no name for a Trino user: [a-z][a-z0-9_]*")


def standard_users(operator: TrinoAddress, tenants: Sequence[Namespaces]) -> tuple[TrinoUser, ...]:
    """The operator, the reader of `mozart query`, and one login a tenant, named like its namespace.

    A tenant's login owns staging, marts and candidates and reads raw, which only loads write. Raises ConfigurationError
    for a tenant that would have another one's login, the operator's above all.
    """
    reader = reader_login(operator)
    users = [
        TrinoUser(operator.username, operator.password, "operator"),
        TrinoUser(reader.username, reader.password, "reader"),
    ]
    for spaces in tenants:
        login = tenant_login(operator, spaces.core)
        own = (spaces.core, candidates_namespace(spaces.core))
        user = TrinoUser(login.username, login.password, owns=own, reads=(spaces.raw,), catalog=spaces.catalog)
        users.append(user)
    taken = sorted(name for name, count in Counter(user.name for user in users).items() if count > 1)
    if taken:
        message = f"{', '.join(taken)} is the name of another login on Trino; give the tenant another schema"
        raise ConfigurationError(Problem("tenants", "iceberg.schema", message))
    return tuple(users)


def password_file(users: Sequence[TrinoUser], known: str = "") -> str:
    """The lines of Trino's file authenticator, each with a salt of its own.

    `known` is the file as it is: its lines are kept while the first user's password, from which all others follow, is
    the same. A line costs some 10 ms, and a fleet has thousands.
    """
    lines = dict(line.split(":", 1) for line in known.splitlines() if ":" in line)
    if users and not _is_hash_of(users[0].password.get_secret_value(), lines.get(users[0].name, "")):
        lines = {}
    hashes = {user.name: lines.get(user.name) or _hashed(user.password.get_secret_value()) for user in users}
    return "".join(f"{name}:{stored}\n" for name, stored in hashes.items())


def access_rules(users: Sequence[TrinoUser]) -> str:
    """The rules of Trino's file-based access control, as JSON. The first rule that matches counts."""
    operators, readers, tenants = (_names(users, role) for role in ("operator", "reader", "tenant"))
    lakes = _one_of(sorted({CATALOG, *(user.catalog for user in users)}))
    catalogs: list[dict[str, Any]] = [
        {"user": operators, "allow": "all"},
        {"user": readers, "catalog": lakes, "allow": "read-only"},
        {"user": tenants, "catalog": "system", "allow": "read-only"},
    ]
    schemas: list[dict[str, Any]] = [{"user": operators, "owner": True}]
    tables: list[dict[str, Any]] = [
        {"user": operators, "privileges": [*_OWNER, "GRANT_SELECT"]},
        {"user": readers, "catalog": lakes, "privileges": ["SELECT"]},
        {**_DBT_READS, "user": tenants, "privileges": ["SELECT"]},
    ]
    for user in (user for user in users if user.role == "tenant"):
        place = {"user": re.escape(user.name), "catalog": re.escape(user.catalog)}
        catalogs.append({**place, "allow": "all"})
        schemas.append({**place, "schema": _one_of(user.owns), "owner": True})
        tables.append({**place, "schema": _one_of(user.owns), "privileges": list(_OWNER)})
        tables.append({**place, "schema": _one_of(user.reads), "privileges": ["SELECT"]})
    rules = {
        "catalogs": [*catalogs, {"allow": "none"}],
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


def _hashed(password: str, salt: bytes | None = None) -> str:
    salt = salt or secrets.token_bytes(16)
    key = hashlib.pbkdf2_hmac("sha1", password.encode(), salt, _ITERATIONS, dklen=_KEY_BYTES)
    return f"{_ITERATIONS}:{salt.hex()}:{key.hex()}"


def _is_hash_of(password: str, stored: str) -> bool:
    parts = stored.split(":")
    if len(parts) != 3 or not re.fullmatch(r"(?:[0-9a-f]{2})+", parts[1]):
        return False
    return hmac.compare_digest(_hashed(password, bytes.fromhex(parts[1])), stored)
