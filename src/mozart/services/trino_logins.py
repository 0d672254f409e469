"""Which tenants have a login on Trino: a register, and the two files from which Trino knows it.

The register, `logins.json`, holds the namespaces of each environment's tenants. `mozart deploy` says who is in its own
environment (`put`) and leaves those of others as they are; `mozart up` writes `rules.json` and `password.db` from it
(`write`). All lie in MOZART_TRINO_ACCESS, from where a cluster's coordinator reads them, else in the local stack's
state. A running server takes changes over within some seconds.

Rules are written before passwords: a login must not exist before what it may do is known. Holds no password that could
be read: they follow from the operator's and are stored as PBKDF2.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from mozart.engine.trino_client import CATALOG, TrinoAddress, reader_login
from mozart.errors import TerminalError
from mozart.services.secrets import write_private
from mozart.services.trino_access import access_rules, password_file, standard_users
from mozart.settings import Settings
from mozart.tenancy.names import Namespaces

RULES = "rules.json"
PASSWORDS = "password.db"
_REGISTER = "logins.json"

Register = Mapping[str, Sequence[Namespaces]]
"""The tenants by the suffix of their environment; production's is empty."""


@dataclass(frozen=True)
class LoginChange:
    """Who got a login and who lost it."""

    added: tuple[Namespaces, ...]
    removed: tuple[Namespaces, ...]


class TrinoLogins:
    """The logins of one Trino, whose files lie in `folder`; `operator` is its operator's."""

    def __init__(self, folder: Path, operator: TrinoAddress) -> None:
        self.folder = folder
        self._operator = operator

    def tenants(self) -> tuple[Namespaces, ...]:
        """Everybody who has a login."""
        return _everybody(self._read())

    def clashes(
        self, suffix: str, tenants: Sequence[Namespaces], held: Collection[Namespaces] = ()
    ) -> dict[Namespaces, Namespaces | str]:
        """The tenants of one environment that cannot have a login, each with the one that has its name.

        That is another tenant of the environment, or the words for a login outside it. `held` are tenants that are not
        deployed now and keep the login they have. Of two, the one that has the login keeps it, else the one in the
        shared catalog, else the first catalog by name.
        """
        register = self._read()
        present = set(register.get(suffix, ()))
        owners: dict[str, Namespaces | str] = {spaces.core: spaces for spaces in held if spaces in present}
        for other in register.keys() - {suffix}:
            place = f"branch {other.removeprefix('_')!r}" if other else "production"
            owners |= {spaces.core: f"a tenant of {place} in catalog {spaces.catalog!r}" for spaces in register[other]}
        owners[self._operator.username] = "the operator's login"
        owners[reader_login(self._operator).username] = "the login of `mozart query`"
        found: dict[Namespaces, Namespaces | str] = {}
        for spaces in sorted(tenants, key=lambda one: (one not in present, one.catalog != CATALOG, astuple(one))):
            owner = owners.setdefault(spaces.core, spaces)
            if owner != spaces:
                found[spaces] = owner
        return found

    def put(self, suffix: str, tenants: Sequence[Namespaces], *, keep: bool = False) -> LoginChange:
        """Give exactly these tenants of one environment a login; with `keep`, beside those who have one.

        A tenant that went to another catalog takes its login along, also with `keep`. Raises ConfigurationError for a
        tenant whose namespace is the name of another login.
        """
        with self._locked():
            register = self._read()
            before = set(register.get(suffix, ()))
            names = {spaces.core for spaces in tenants}
            after = set(tenants) | {spaces for spaces in before if keep and spaces.core not in names}
            others = {key: value for key, value in register.items() if key != suffix}
            self._write({**others, suffix: _sorted(after)} if after else others)
        return LoginChange(_sorted(after - before), _sorted(before - after))

    def write(self) -> None:
        """Write what Trino reads, for those who stand in the register."""
        with self._locked():
            self._write(self._read())

    def _write(self, register: Register) -> None:
        users = standard_users(self._operator, _everybody(register))
        passwords = self.folder / PASSWORDS
        known = passwords.read_text() if passwords.is_file() else ""
        content = {suffix: [astuple(spaces) for spaces in tenants] for suffix, tenants in register.items()}
        write_private(self.folder / RULES, access_rules(users))
        write_private(passwords, password_file(users, known))
        write_private(self.folder / _REGISTER, json.dumps(content, indent=1, sort_keys=True))

    def _read(self) -> Register:
        file = self.folder / _REGISTER
        if not file.is_file():
            return {}
        try:
            content: dict[str, list[list[str]]] = json.loads(file.read_text())
            return {suffix: [Namespaces(*parts) for parts in tenants] for suffix, tenants in content.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise TerminalError(f"{file} cannot be read ({error}); remove it and run `mozart deploy`") from error

    @contextmanager
    def _locked(self) -> Generator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / "logins.lock"
        lock.touch(mode=0o600)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def access_folder(settings: Settings) -> Path:
    """Where the files are: MOZART_TRINO_ACCESS, else with the local stack's Trino."""
    given = settings.values.get("MOZART_TRINO_ACCESS")
    return (settings.root / given).resolve() if given else settings.state / "trino" / "access"


def _sorted(tenants: Collection[Namespaces]) -> tuple[Namespaces, ...]:
    return tuple(sorted(tenants, key=astuple))


def _everybody(register: Register) -> tuple[Namespaces, ...]:
    return tuple(spaces for suffix in sorted(register) for spaces in register[suffix])
