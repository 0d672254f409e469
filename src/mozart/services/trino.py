"""Trino on this machine: one node that coordinates and works, on loopback, over the embedded lake.

It starts with the files of `docker/trino`, the very ones of the containers; what differs comes from the environment,
and so does every secret. The heap is that of `jvm.config`, 1 GB, unless a caller gives another; what a query may use
follows it. Password file and access rules are those of `mozart.services.trino_logins`, written at every start; Trino
reads changed ones by itself within seconds.

It is ready when a logged-in client has been told the lake's schemas: an open port does not say that.
Pitfall: it takes 15 to 70 s to start and, with 1 GB of heap, 1.1 to 1.5 GB of memory.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from mozart.engine.trino_client import CATALOG, DEFAULT_USERNAME, TrinoAddress, open_trino
from mozart.errors import ConfigurationError, TerminalError, TransientError
from mozart.lake.lakehouse import Lakehouse
from mozart.services import ports as tcp
from mozart.services.ledger import Ledger
from mozart.services.process import Command
from mozart.services.service import HOST, Port, Service
from mozart.services.trino_catalogs import dedicated_values, write_configuration
from mozart.services.trino_certificate import ensure_certificate
from mozart.services.trino_download import find_java, install_trino, require_trino
from mozart.services.trino_heap import jvm_options, query_memory, read_heap_mb
from mozart.services.trino_logins import TrinoLogins
from mozart.tenancy.names import Namespaces


class Trino(Service):
    """One Trino server.

    `home` is the installation (fetched when it is not there), `config` the folder `docker/trino`, `access` that of the
    logins' files. `tenants` get a login each; None: those who have one. `dedicated` are the lakes of tenants that have
    their own, by catalog. `min_retention`: the shortest age that maintenance may ask for, as Trino writes durations.
    `heap_mb`: the heap in MB; None: the one that `jvm.config` has.
    """

    name: ClassVar[str] = "trino"
    needs: ClassVar[tuple[str, ...]] = ("seaweedfs",)
    start_timeout: ClassVar[float] = 600.0
    stop_steps: ClassVar[Sequence[tuple[signal.Signals, float]]] = ((signal.SIGTERM, 0.5), (signal.SIGKILL, 0.5))

    def __init__(
        self,
        ledger: Ledger,
        *,
        lakehouse: Lakehouse,
        home: Path,
        config: Path,
        port: int,
        inner_port: int,
        password: str,
        username: str = DEFAULT_USERNAME,
        access: Path | None = None,
        tenants: Sequence[Namespaces] | None = None,
        dedicated: Mapping[str, Lakehouse] | None = None,
        min_retention: str = "1d",
        heap_mb: int | None = None,
    ) -> None:
        super().__init__(ledger)
        self.lakehouse = lakehouse
        self._tenants = tenants
        self._dedicated = dict(dedicated or {})
        self._home = home
        self._config = config
        self._port = port
        self._inner_port = inner_port
        self._password = password
        self._username = username
        self._access = access or self.folder / "access"
        self._min_retention = min_retention
        self._heap_mb = heap_mb

    @property
    def ports(self) -> Mapping[str, Port]:
        return {
            "https": Port(self._port, "MOZART_TRINO_PORT"),
            "between nodes": Port(self._inner_port, "MOZART_TRINO_INNER_PORT"),
        }

    @property
    def address(self) -> TrinoAddress:
        """Of the operator's login."""
        return TrinoAddress(
            host=HOST,
            port=self._port,
            username=self._username,
            password=SecretStr(self._password),
            certificate=self.folder / "certificate.pem",
        )

    @property
    def heap_mb(self) -> int:
        """The heap of a server that is started now, in MB. Raises ConfigurationError when `jvm.config` has none."""
        return self._heap_mb or read_heap_mb(self._jvm_config)

    @property
    def _jvm_config(self) -> Path:
        return self._config / "jvm.config"

    def require(self) -> None:
        if not (self._config / "config.properties").is_file():
            raise ConfigurationError(f"no Trino configuration in {self._config}; it belongs to the project's checkout")
        read_heap_mb(self._jvm_config)
        find_java()
        require_trino(self._home)

    def prepare(self) -> None:
        super().prepare()
        self.require()
        install_trino(self._home, print)
        (self.folder / "data").mkdir(exist_ok=True)
        write_configuration(self._etc, self._config, self._dedicated)
        ensure_certificate(self.folder / "server.pem", self.folder / "certificate.pem", HOST)
        self.settle()

    def settle(self) -> None:
        if self._tenants is None:
            self.logins.write()
        else:
            self.write_access(self._tenants)

    @property
    def logins(self) -> TrinoLogins:
        """Who has a login, and the files that say so."""
        return TrinoLogins(self._access, self.address)

    @property
    def tenants(self) -> tuple[Namespaces, ...]:
        """Everybody who has a login, beside operator and reader."""
        return self.logins.tenants()

    def write_access(self, tenants: Sequence[Namespaces]) -> None:
        """Give exactly these tenants of production a login. A running server follows within some 5 s."""
        self._tenants = tuple(tenants)
        self.logins.put("", tenants)

    @property
    def _etc(self) -> Path:
        """Trino looks for resource-groups.properties in ./etc and nowhere else."""
        return self.folder / "etc"

    def command(self) -> Command:
        properties = {
            "node.environment": "mozart",
            "node.id": "mozart-local",
            "node.data-dir": str(self.folder / "data"),
            "node.bind-ip": HOST,
            "node.internal-address": HOST,
            "config": str(self._etc / "config.properties"),
            "log.levels-file": str(self._etc / "log.properties"),
            "java.io.tmpdir": str(self._scratch()),
        }
        arguments = [
            str(find_java()),
            *jvm_options(self._jvm_config, self.heap_mb),
            *(f"-D{name}={value}" for name, value in properties.items()),
            *("-cp", f"{self._home}/lib/*", "io.trino.server.TrinoServer"),
        ]
        return Command(arguments, self.environment(self._values()), self.folder)

    def problem(self) -> str | None:
        if tcp.is_free(self._port):
            return f"nothing listens on port {self._port} yet"
        try:
            with open_trino(self.address, attempts=1) as session:
                session.execute(f"SHOW SCHEMAS FROM {CATALOG}")
        except (TransientError, TerminalError) as error:  # it refuses logins too while it starts
            return str(error)
        return None

    def _scratch(self) -> Path:
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def _values(self) -> dict[str, str]:
        """What `docker/trino/*.properties` take from the environment."""
        lake = self.lakehouse
        secret = lake.secret_access_key.get_secret_value()
        own = [dedicated_values(catalog, dedicated) for catalog, dedicated in self._dedicated.items()]
        return {
            **{name: value for values in own for name, value in values.items()},
            "TRINO_COORDINATOR": "true",
            "TRINO_COORDINATOR_WORKS": "true",
            "TRINO_DISCOVERY_URI": f"http://{HOST}:{self._inner_port}",
            "TRINO_HTTP_PORT": str(self._inner_port),
            "TRINO_HTTPS_PORT": str(self._port),
            "TRINO_TLS_FILE": str(self.folder / "server.pem"),
            "TRINO_SHARED_SECRET": secrets.token_urlsafe(48),  # one node: nobody else has to know it
            "TRINO_ETC": str(self._etc),
            "TRINO_ACCESS": str(self._access),
            "TRINO_PLUGINS": str(self._home / "plugin"),
            "TRINO_QUERY_MEMORY_PER_NODE": query_memory(self.heap_mb),
            "ICEBERG_CATALOG_URI": lake.catalog_uri,
            "ICEBERG_WAREHOUSE": lake.warehouse,
            "ICEBERG_OAUTH2_SERVER_URI": lake.oauth2_server_uri,
            "ICEBERG_CATALOG_CREDENTIAL": f"{lake.access_key_id}:{secret}",
            "ICEBERG_MIN_RETENTION": self._min_retention,
            "S3_ENDPOINT": lake.s3_endpoint,
            "S3_REGION": lake.s3_region,
            "S3_ACCESS_KEY_ID": lake.access_key_id,
            "S3_SECRET_ACCESS_KEY": secret,
        }
