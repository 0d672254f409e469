"""The sample tenant's models on DuckDB and on Trino, at 1x, 10x and 50x data, from the same raw tables, in one run.

    python -m benchmarks.bench_engines                  # 1x, 10x and 50x: 50x has 2M cases and 10M cash flows
    python -m benchmarks.bench_engines --scales 1 10    # a look
    python -m benchmarks.bench_engines --heap 1         # the heap of docker/trino/jvm.config; too little for 50x

PostgreSQL, SeaweedFS and a Trino node (the files of `docker/trino`, the heap as asked for, one for all scales, and half
of it for a query) are started and stopped here, all on this machine. At each scale Axiom Core is made and loaded in
full; then each engine builds and publishes all of acme's models (`build_models`, full refresh) in a process of its own,
in turns. Both publish as many rows, or the run fails. Measured, for one build: wall; CPU of the client (with dbt's
process), of Trino and of the store; the most memory the client's processes held at once, and Trino. Of several rounds
the one with the least CPU counts.

Then what a model costs that computes nothing: projects of one and of many models of one row, and the difference.

Pitfalls: DuckDB may use 1 GB and two threads, Trino its heap and some 0.6 GB beside: on one machine both share the same
cores, so Trino's wall says what it costs here, not what more workers make of it. The first build of each engine warms
dbt's parse state and Trino's compiler and is reported apart. Load of other programs falls on wall more than on CPU. A
node that ends is told with the end of its log and started again for the next build, which then is a cold one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import secrets
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import SecretStr

from benchmarks.result import Targets, print_result
from mozart.connectors.base import SourceConnection
from mozart.engine.dbt_run import ModelRequest, ModelResult, build_models
from mozart.engine.trino_client import TrinoAddress, is_login_known, tenant_login
from mozart.errors import MozartError
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.tenant_run import RunOptions, TenantPlace, TenantRun
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import Postgres
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS
from mozart.services.service import Service
from mozart.services.trino import Trino
from mozart.services.trino_download import trino_folder
from mozart.tenancy.load import load_tenant
from mozart.tenancy.names import Namespaces, namespaces
from mozart.tenancy.product_schema import load_product_schema
from samples import axiom_core

CHECKOUT = Path(__file__).resolve().parents[1]
TENANT = "acme"
MEMORY = "1GB"
HEAP_GB = 4
"""Of Trino: enough for 50x, where a node of 1 GB ended (docs/scaling.md)."""
MANY_MODELS = 11
LOGIN_SECONDS = 60.0
SAMPLE_SECONDS = 0.1

Engine = Literal["duckdb", "trino"]
ENGINES: tuple[Engine, ...] = ("duckdb", "trino")
TARGETS: Targets = {}
"""There is none: the figures say where each engine belongs (docs/scaling.md)."""


@dataclass(frozen=True)
class Cost:
    """What one build took: seconds of CPU by client, Trino and store, wall seconds, most MB of client and of Trino.

    `models` are dbt's seconds by model, its tests included; `rows` what was published.
    """

    client: float
    server: float
    store: float
    wall: float
    client_mb: float
    server_mb: float
    models: Mapping[str, float] = field(default_factory=dict[str, float])
    rows: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def cpu(self) -> float:
        """Client and server. The store serves both engines and is told apart."""
        return self.client + self.server

    @property
    def peak_mb(self) -> float:
        return self.client_mb + self.server_mb

    def line(self, name: str) -> str:
        return (
            f"  {name:10}{self.wall:>8.1f}{self.client:>10.1f}{self.server:>10.1f}{self.store:>9.1f}"
            f"{self.client_mb:>12.0f}{self.server_mb:>11.0f}"
        )


HEADER = f"  {'':10}{'wall s':>8}{'client s':>10}{'Trino s':>10}{'store s':>9}{'client MB':>12}{'Trino MB':>11}"


@dataclass(frozen=True)
class Job:
    """One build in a process of its own. `address` has the tenant's login on Trino; None: DuckDB."""

    request: ModelRequest
    lakehouse: Lakehouse
    address: TrinoAddress | None

    def run(self, answers: Any) -> None:
        from mozart.engine.duckdb_models import DuckDBModels
        from mozart.engine.trino_models import TrinoModels

        engine = TrinoModels(self.address) if self.address else DuckDBModels(self.lakehouse)
        started = time.perf_counter()
        try:
            results = build_models(self.request, self.lakehouse, lambda _event: None, engine)
        except MozartError as error:
            answers.put(str(error))
            return
        wall = time.perf_counter() - started
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        answers.put((wall, sum(usage.ru_utime + usage.ru_stime for usage in used), results))


@dataclass
class Rig:
    """The servers, the project of this run, and one measured build at a time."""

    root: Path
    postgres: Postgres
    seaweedfs: SeaweedFS
    trino: Trino

    def load(self, spaces: Namespaces, scale: float) -> int:
        """Make acme's source at this scale and load it in full; how many rows are in raw. The source is gone after."""
        name = f"acme_{secrets.token_hex(4)}"
        source = self.postgres.create_database(name, owner=f"{name}_reader", password=secrets.token_urlsafe(12))
        try:
            with self.postgres.superuser(name).connect() as connection:
                axiom_core.create(connection, scale=scale)
                axiom_core.grant_reader(connection, source.user)
            place = TenantPlace(
                connection=SourceConnection(
                    type="postgresql",
                    host=source.host,
                    port=source.port,
                    database=source.name,
                    username=source.user,
                    password=source.password,
                ),
                params={},
                lakehouse=self.seaweedfs.lakehouse.model_copy(update={"prefix": f"raw/{name}"}),
                namespaces=spaces,
            )
            tenant = load_tenant(self.root / "tenants" / TENANT)
            with TenantRun(tenant, place, RunOptions(full_refresh=True), name, self.root / ".mozart") as run:
                return sum(run.load(request, _silent).rows_committed for request in run.requests)
        finally:
            self.postgres.drop_database(name)

    def request(self, tenant: str, spaces: Namespaces, engine: Engine, *, is_product: bool) -> ModelRequest:
        """A full build; dbt's state is one for each engine, for its profile is part of what dbt has parsed."""
        return ModelRequest(
            tenant=tenant,
            run_id=f"bench-{secrets.token_hex(4)}",
            root=self.root,
            state=self.root / ".mozart",
            namespace=spaces.core,
            raw_namespace=spaces.raw,
            product=load_product_schema(self.root) if is_product else None,
            environment=engine,
            full_refresh=True,
            memory=MEMORY,
        )

    def build(self, tenant: str, spaces: Namespaces, engine: Engine, *, is_product: bool = True) -> Cost:
        """One build on an engine. Raises RuntimeError naming the models that were not published."""
        address = tenant_login(self.trino.address, spaces.core) if engine == "trino" else None
        job = Job(self.request(tenant, spaces, engine, is_product=is_product), self.seaweedfs.lakehouse, address)
        context = multiprocessing.get_context("spawn")
        answers = context.SimpleQueue()
        if self.trino.process() is None:
            timed("trino again", self.trino.start)
        before = [cpu_of(service) for service in (self.trino, self.seaweedfs)]
        process = context.Process(target=job.run, args=(answers,))
        process.start()
        with watch(process.pid, pid_of(self.trino)) as peaks:
            process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"the build on {engine} ended with {process.exitcode}")
        answer = answers.get()
        if self.trino.process() is None:
            raise RuntimeError(f"the Trino node ended; its log ends with:\n{self.trino.log_tail()}")
        if isinstance(answer, str):
            raise RuntimeError(answer)
        wall, client, results = answer
        server, store = (
            cpu_of(service) - was for service, was in zip((self.trino, self.seaweedfs), before, strict=True)
        )
        _require_published(engine, results)
        return Cost(
            client=client,
            server=server if engine == "trino" else 0.0,
            store=store,
            wall=wall,
            client_mb=peaks.client,
            server_mb=peaks.server if engine == "trino" else 0.0,
            models={result.name: result.seconds for result in results},
            rows={result.name: result.rows or 0 for result in results},
        )


def _silent(_line: str) -> None:
    return None


def _require_published(engine: Engine, results: Sequence[ModelResult]) -> None:
    others = [f"{result.name} {result.status}: {result.reason}" for result in results if result.status != "published"]
    if others:
        raise RuntimeError(f"on {engine}: {'; '.join(others)}")


# -- what is measured --------------------------------------------------------------------------------------------------


@dataclass
class Peaks:
    """The most resident memory seen, in MB: the client's processes together, and the server."""

    client: float = 0.0
    server: float = 0.0


@contextmanager
def watch(client: int | None, server: int) -> Iterator[Peaks]:
    """Watch the memory of a process with all it started, and of a server, while the block runs."""
    assert client is not None
    peaks, stop = Peaks(), threading.Event()

    def look() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            peaks.client = max(peaks.client, _resident(client, recursive=True))
            peaks.server = max(peaks.server, _resident(server, recursive=False))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def _resident(pid: int, *, recursive: bool) -> float:
    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *(process.children(recursive=True) if recursive else ())):
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        return 0.0
    return total / 2**20


def pid_of(service: Service) -> int:
    pid = service.status().pid
    if pid is None:
        raise RuntimeError(f"{service.name} is not running; see {service.log}")
    return pid


def cpu_of(service: Service) -> float:
    """CPU seconds that a server of one process has used."""
    times = psutil.Process(pid_of(service)).cpu_times()
    return times.user + times.system


# -- the parts ---------------------------------------------------------------------------------------------------------


def bench_scales(rig: Rig, spaces: Namespaces, scales: Sequence[float], rounds: int) -> dict[str, float]:
    """Each engine at each scale."""
    figures: dict[str, float] = {}
    costs: dict[float, dict[Engine, Cost]] = {}
    for scale in scales:
        rows = timed(f"source and raw at {scale:g}x", partial(rig.load, spaces, scale))
        figures[f"raw_rows_{label(scale)}"] = rows
        if scale == scales[0]:
            for engine in ENGINES:
                cold = rig.build(TENANT, spaces, engine)
                print(f"first build on {engine}, dbt's parse and cold servers included: {cold.wall:.1f} s", flush=True)
                figures[f"{engine}_first_wall_s"] = cold.wall
        found = _take_turns(rig, spaces, rounds)
        report_scale(scale, rows, found)
        figures |= figures_of(scale, found)
        if len(found) == len(ENGINES):
            costs[scale] = found
    return {**figures, **crossings(costs)}


def _take_turns(rig: Rig, spaces: Namespaces, rounds: int) -> dict[Engine, Cost]:
    """The cheapest build of each engine; one that could not publish everything says why and has none."""
    found: dict[Engine, list[Cost]] = {engine: [] for engine in ENGINES}
    for _ in range(rounds):
        for engine in ENGINES:
            try:
                cost = rig.build(TENANT, spaces, engine)
                found[engine].append(cost)
                print(cost.line(engine), flush=True)
            except RuntimeError as error:
                print(f"{engine} cannot do it: {error}", flush=True)
    cheapest = {engine: min(costs, key=lambda cost: cost.cpu) for engine, costs in found.items() if costs}
    _require_equal(cheapest)
    return cheapest


def _require_equal(costs: Mapping[Engine, Cost]) -> None:
    rows = [cost.rows for cost in costs.values()]
    assert all(counted == rows[0] for counted in rows), f"the engines published different numbers of rows: {rows}"


def report_scale(scale: float, raw_rows: int, costs: Mapping[Engine, Cost]) -> None:
    """A table of one scale, with dbt's seconds of the three slowest models."""
    published = {model: count for cost in costs.values() for model, count in cost.rows.items()}
    total = f"{sum(published.values()):,} published in {len(published)} models"
    print(f"\n{scale:g}x: {raw_rows:,} rows in raw, {total}\n{HEADER}")
    for engine, cost in costs.items():
        print(cost.line(engine))
    for engine, cost in costs.items():
        slowest = sorted(cost.models.items(), key=lambda item: -item[1])[:3]
        print(f"  slowest on {engine}: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest))
    print(flush=True)


def figures_of(scale: float, costs: Mapping[Engine, Cost]) -> dict[str, float]:
    """The figures of one scale, and Trino's over DuckDB's."""
    figures: dict[str, float] = {}
    for engine, cost in costs.items():
        figures |= {
            f"{engine}_wall_s_{label(scale)}": cost.wall,
            f"{engine}_client_cpu_s_{label(scale)}": cost.client,
            f"{engine}_cpu_s_{label(scale)}": cost.cpu,
            f"{engine}_store_cpu_s_{label(scale)}": cost.store,
            f"{engine}_peak_mb_{label(scale)}": cost.peak_mb,
        }
    if len(costs) < len(ENGINES):
        return figures
    duckdb, trino = costs["duckdb"], costs["trino"]
    figures[f"trino_over_duckdb_wall_{label(scale)}"] = trino.wall / duckdb.wall
    figures[f"trino_over_duckdb_cpu_{label(scale)}"] = trino.cpu / duckdb.cpu
    figures[f"trino_over_duckdb_client_cpu_{label(scale)}"] = trino.client / duckdb.client
    return figures


MEASURES: Mapping[str, tuple[str, Callable[[Cost], float]]] = {
    "wall": ("wall", lambda cost: cost.wall),
    "cpu": ("CPU, client and server", lambda cost: cost.cpu),
    "client_cpu": ("CPU of the worker alone", lambda cost: cost.client),
    "client_memory": ("memory of the worker alone", lambda cost: cost.client_mb),
}


def crossings(costs: Mapping[float, Mapping[Engine, Cost]]) -> dict[str, float]:
    """Where Trino starts to take less than DuckDB, by each measure; no figure where the lines did not cross."""
    figures: dict[str, float] = {}
    scales = sorted(costs)
    if not scales:
        return figures
    print("where the lines cross (Trino takes less from here on):")
    for name, (meaning, measure) in MEASURES.items():
        gaps = [(scale, measure(costs[scale]["trino"]) - measure(costs[scale]["duckdb"])) for scale in scales]
        scale = crossing(gaps)
        if scale is not None:
            figures[f"crossing_{name}"] = scale
        print(f"  {meaning:28} {_told(scale, gaps)}")
    return figures


def crossing(gaps: Sequence[tuple[float, float]]) -> float | None:
    """The scale from which on the gap is negative, on a straight line between the two measured scales around it."""
    if gaps[-1][1] >= 0:
        return None
    for (left, before), (right, after) in reversed(list(pairwise(gaps))):
        if before >= 0 > after:
            return left + (right - left) * before / (before - after)
    return gaps[0][0]


def _told(scale: float | None, gaps: Sequence[tuple[float, float]]) -> str:
    if scale is not None:
        return f"at {scale:.1f}x" if scale > gaps[0][0] else f"below {scale:g}x"
    if len(gaps) == 1:
        return f"not at {gaps[0][0]:g}x"
    trend = "widening" if gaps[-1][1] > gaps[-2][1] else "closing"
    return f"not up to {gaps[-1][0]:g}x; the gap is {trend}"


def bench_overhead(rig: Rig, spaces: Mapping[int, Namespaces], rounds: int) -> dict[str, float]:
    """What one more model costs that computes nothing: dbt's part of it, and the wall with its publication."""
    figures: dict[str, float] = {}
    for engine in ENGINES:
        found: dict[int, list[Cost]] = {}
        for count, own in spaces.items():
            costs = [rig.build(overhead_tenant(count), own, engine, is_product=False) for _ in range(rounds + 1)]
            found[count] = costs[1:]  # the first one parsed
        wall = {count: min(cost.wall for cost in costs) for count, costs in found.items()}
        cpu = {count: min(cost.cpu for cost in costs) for count, costs in found.items()}
        one, many = min(spaces), max(spaces)
        dbt = statistics.median(seconds for cost in found[many] for seconds in cost.models.values())
        figures |= {
            f"{engine}_model_dbt_s": dbt,
            f"{engine}_model_wall_s": (wall[many] - wall[one]) / (many - one),
            f"{engine}_model_cpu_s": (cpu[many] - cpu[one]) / (many - one),
            f"{engine}_one_model_wall_s": wall[one],
        }
        one_more = f"{figures[f'{engine}_model_wall_s']:.2f} s of wall, {figures[f'{engine}_model_cpu_s']:.2f} of CPU"
        print(f"{engine}: dbt takes {dbt:.2f} s for a model of one row; one more costs {one_more}", flush=True)
        print(f"{engine}: a run of one model takes {wall[one]:.1f} s", flush=True)
    return figures


def overhead_tenant(models: int) -> str:
    return f"idle{models}"


def write_overhead_tenant(root: Path, models: int) -> None:
    """A tenant of so many models of one row each, which read nothing."""
    tenant = overhead_tenant(models)
    folder = root / "tenants" / tenant / "models"
    (folder / "staging").mkdir(parents=True)
    names = [f"stg_m{number}" for number in range(models)]
    for name in names:
        text = f"{{{{ config(alias='{name}') }}}}\nselect cast(1 as bigint) as id\n"
        (folder / "staging" / f"{tenant}__{name}.sql").write_text(text)
    listed = "".join(f"  - {{name: {tenant}__{name}, columns: [{{name: id, data_type: bigint}}]}}\n" for name in names)
    (folder / "_models.yml").write_text(f"version: 2\nmodels:\n{listed}")


# -- the run -----------------------------------------------------------------------------------------------------------


@contextmanager
def open_rig(tenants: Sequence[Namespaces], heap_gb: float) -> Iterator[Rig]:
    """Servers and a project of this run alone, on random loopback ports; gone at the end. `heap_gb` is Trino's."""
    with tempfile.TemporaryDirectory(prefix="mozart-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        root = folder / "project"
        for part in ("dbt", "tenants"):
            shutil.copytree(CHECKOUT / part, root / part, ignore=shutil.ignore_patterns("target", "logs"))
        (root / "pyproject.toml").touch()
        ledger = Ledger(folder / "state")
        postgres = Postgres(ledger, port=find_free_ports(1)[0], password=secrets.token_urlsafe(12), durable=False)
        seaweedfs = _seaweedfs(ledger)
        trino = _trino(ledger, seaweedfs.lakehouse, tenants, heap_gb)
        for server in (postgres, seaweedfs, trino):
            stack.callback(server.stop)
            timed(server.name, server.start)
        for spaces in tenants:
            _wait_for_login(tenant_login(trino.address, spaces.core))
        yield Rig(root, postgres, seaweedfs, trino)


def _seaweedfs(ledger: Ledger) -> SeaweedFS:
    s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
    lakehouse = Lakehouse(
        s3_endpoint=f"http://127.0.0.1:{s3}",
        catalog_uri=f"http://127.0.0.1:{catalog}",
        access_key_id=secrets.token_hex(8),
        secret_access_key=SecretStr(secrets.token_urlsafe(16)),
    )
    return SeaweedFS(ledger, lakehouse=lakehouse, inner_ports=inner)


def _trino(ledger: Ledger, lakehouse: Lakehouse, tenants: Sequence[Namespaces], heap_gb: float) -> Trino:
    port, inner_port = find_free_ports(2)
    return Trino(
        ledger,
        lakehouse=lakehouse,
        home=trino_folder(os.environ),
        config=CHECKOUT / "docker" / "trino",
        port=port,
        inner_port=inner_port,
        password=secrets.token_urlsafe(24),
        tenants=tenants,
        heap_mb=round(heap_gb * 1024),
    )


def _wait_for_login(address: TrinoAddress) -> None:
    """Trino reads passwords and rules every 5 s."""
    end = time.monotonic() + LOGIN_SECONDS
    while not is_login_known(address):
        if time.monotonic() > end:
            raise RuntimeError(f"Trino does not know the login {address.username}")
        time.sleep(0.5)


def timed(what: str, action: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    value = action()
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)
    return value


def label(scale: float) -> str:
    return f"{scale:g}x"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], epilog="example: --scales 1 10")
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 10, 50], metavar="N", help="1 is 40k cases")
    parser.add_argument("--rounds", type=int, default=2, help="builds of each engine at each scale (default 2)")
    parser.add_argument("--heap", type=float, default=HEAP_GB, metavar="GB", help=f"of Trino (default {HEAP_GB})")
    parser.add_argument("--without-overhead", action="store_true", help="skip the models that compute nothing")
    return parser.parse_args()


def main() -> None:
    """Run everything; the last line printed is the JSON."""
    arguments = parse_arguments()
    scales, heap = sorted(arguments.scales), arguments.heap
    print(
        f"PYTHONDONTWRITEBYTECODE={os.environ.get('PYTHONDONTWRITEBYTECODE', '')!r}, scales {scales}, heap {heap:g} GB"
    )
    spaces = namespaces("iceberg", TENANT)
    idle = {count: namespaces("iceberg", overhead_tenant(count)) for count in (1, MANY_MODELS)}
    with open_rig([spaces, *idle.values()], heap) as rig:
        for own in (spaces, *idle.values()):
            rig.seaweedfs.lakehouse.catalog().create_namespace_if_not_exists(own.core)
        figures: dict[str, float] = {"trino_heap_gb": heap}
        if not arguments.without_overhead:
            for count in idle:
                write_overhead_tenant(rig.root, count)
            figures |= bench_overhead(rig, idle, arguments.rounds)
        figures |= bench_scales(rig, spaces, scales, arguments.rounds)
    print_result("engines", figures, TARGETS)


if __name__ == "__main__":
    main()
