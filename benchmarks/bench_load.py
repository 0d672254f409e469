"""Source → committed Iceberg, against COPY to nowhere, dlt and pandas, in one run on one machine.

    make bench-load                                       # 3M rows of 17 columns, and a wide table of a third of that
    python -m benchmarks.bench_load --rivals .venv-bench/bin/python --rows 300000 --memory-rows 100000 1000000

CPU is that of the client's process and of the source's server. The object store's is shown apart, and in figures of
its own without a target (`…_with_store`): `COPY` and dlt, which writes local files here, have none. Peak memory is the
client's largest resident set, as the kernel saw it.
Rivals run with the Python of `--rivals`, an environment made from requirements/bench.txt: what they bring would be
imported by Mozart's libraries as well. Without it they are left out, and said to be missing.
`COPY … (FORMAT binary)` by psql to /dev/null is the limit of what a client can do. All run in turns, `--repeat` times,
and of each the cheapest run counts. Pitfall: a machine that does other work makes the CPU of loads dearer as well, and
not that of all alike (the same load took 4.7 to 8.2 s beside fifteen other busy processes): run it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.result import Targets, print_result
from mozart.lake.lakehouse import Lakehouse
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.postgres import Database, Postgres, binary
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS

TARGETS: Targets = {
    "cpu_over_copy": ("<=", 1.6),
    "cpu_over_dlt": ("<=", 0.5),
    "peak_mb_10m": ("<=", 400),
    "peak_growth": ("<=", 1.15),
}
_UNWATCHED: Mapping[str, str] = {"RUNTIME__DLTHUB_TELEMETRY": "false"}
"""dlt reports each run to its makers by default, which is no part of a load."""

WIDE_SHARE = 3
"""The wide table has a third of lineitem's rows: about as many bytes."""

LINEITEM = """
CREATE UNLOGGED TABLE lineitem AS
SELECT g / 4 + 1 AS l_orderkey, (g * 7919 % 600000)::bigint AS l_partkey, (g * 104729 % 30000)::int AS l_suppkey,
       (g % 4 + 1)::int AS l_linenumber, (g % 50 + 1)::numeric(15,2) AS l_quantity,
       (g * 31 % 9000000 / 100.0)::numeric(15,2) AS l_extendedprice, (g % 11 / 100.0)::numeric(15,2) AS l_discount,
       (g % 9 / 100.0)::numeric(15,2) AS l_tax, (ARRAY['A','N','R'])[g % 3 + 1]::char(1) AS l_returnflag,
       (ARRAY['O','F'])[g % 2 + 1]::char(1) AS l_linestatus, date '1992-01-01' + (g * 13 % 2500)::int AS l_shipdate,
       date '1992-02-01' + (g * 17 % 2500)::int AS l_commitdate,
       date '1992-01-15' + (g * 19 % 2500)::int AS l_receiptdate,
       (ARRAY['DELIVER IN PERSON','COLLECT COD','NONE','TAKE BACK RETURN'])[g % 4 + 1]::char(25) AS l_shipinstruct,
       (ARRAY['REG AIR','AIR','RAIL','SHIP','TRUCK','MAIL','FOB'])[g % 7 + 1]::char(10) AS l_shipmode,
       left(md5(g::text) || ' carefully final deposits', 15 + (g % 29)::int)::varchar(44) AS l_comment,
       timestamptz '2024-01-01 00:00:00+00' + g * interval '1 second' AS updated_at
FROM generate_series(0::bigint, {rows} - 1) g;
ALTER TABLE lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber);
VACUUM (ANALYZE) lineitem;
"""

WIDE = """
CREATE UNLOGGED TABLE wide AS
SELECT g::bigint AS id, md5(g::text)::uuid AS external_id, md5((g / 10)::text)::uuid AS account_id,
       jsonb_build_object('source', 'web', 'score', g % 100, 'tags', jsonb_build_array('a', 'b', g % 7)) AS payload,
       jsonb_build_object('city', 'Zürich', 'zip', g % 9999) AS address,
       timestamptz '2023-01-01 00:00:00+00' + g * interval '7 seconds' AS created_at,
       timestamptz '2024-01-01 00:00:00+00' + g * interval '1 second' AS updated_at,
       CASE WHEN g % 5 <> 0 THEN timestamptz '2024-06-01 00:00:00+00' + g * interval '3 seconds' END AS closed_at,
       ARRAY[g % 10, g % 20, g % 30]::int[] AS scores, ARRAY['alpha', 'beta ' || g % 50, NULL]::text[] AS labels,
       ARRAY[md5((g % 99)::text)] AS members, (g * 1.2345)::numeric(18,4) AS amount, (g % 997)::numeric(9,2) AS fee,
       (g % 3 = 0) AS is_open, (g * 0.5)::double precision AS ratio, (g % 32000)::smallint AS kind,
       'note ' || md5((g * 3)::text) AS note, CASE WHEN g % 2 = 0 THEN 'EUR' ELSE 'USD' END::char(3) AS currency,
       date '2020-01-01' + (g % 1500)::int AS due_on, (g % 1000)::int AS branch
FROM generate_series(0::bigint, {rows} - 1) g;
ALTER TABLE wide ADD PRIMARY KEY (id);
VACUUM (ANALYZE) wide;
"""
TABLES: Mapping[str, tuple[str, Sequence[str], int]] = {
    "lineitem": (LINEITEM, ("l_orderkey", "l_linenumber"), 1),
    "wide": (WIDE, ("id",), WIDE_SHARE),
}


@dataclass(frozen=True)
class Cost:
    """What one load took: seconds of CPU by client, source server and store, wall seconds, peak MB of the client."""

    client: float
    server: float
    store: float
    wall: float
    peak_mb: float
    rows: int

    @property
    def cpu(self) -> float:
        return self.client + self.server

    @property
    def cpu_with_store(self) -> float:
        return self.cpu + self.store

    def line(self, name: str, limit: Cost) -> str:
        return (
            f"{name:16}{self.rows:>11}{self.client:>9.2f}{self.server:>9.2f}{self.store:>8.2f}{self.wall:>8.2f}"
            f"{self.peak_mb:>9.0f}{self.cpu / limit.cpu:>10.2f}"
        )


class Rig:
    """The servers, and one measured process at a time."""

    def __init__(
        self, postgres: Postgres, seaweedfs: SeaweedFS, database: Database, folder: Path, rivals: str | None
    ) -> None:
        self.rivals = rivals
        self.postgres = postgres
        self.seaweedfs = seaweedfs
        self.database = database
        self.folder = folder

    def fill(self, table: str, rows: int) -> int:
        """Make the table anew; how many rows it has."""
        statements, _key, share = TABLES[table]
        count = max(rows // share, 1)
        with self.database.connect(autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {table}")  # type: ignore[arg-type]
            for statement in statements.format(rows=count).split(";\n"):
                if statement.strip():
                    connection.execute(statement)  # type: ignore[arg-type]
            connection.execute("CHECKPOINT")
        return count

    def copy(self, table: str, rows: int) -> Cost:
        """COPY BINARY by psql to /dev/null."""
        place = self.database
        command = [
            str(binary("psql")),
            *("-h", place.host, "-p", str(place.port), "-U", place.user, "-d", place.name),
            *("-qAtX", "-c", f"COPY (SELECT * FROM {table}) TO STDOUT (FORMAT binary)"),
        ]
        return self._measure(command, {"PGPASSWORD": place.password}, None, rows)

    def load(self, contender: str, table: str, rows: int) -> Cost:
        """One contender's load into a namespace of its own. Raises RuntimeError with what it printed when it fails."""
        lakehouse, place = self.seaweedfs.lakehouse, self.database
        namespace = f"b_{secrets.token_hex(4)}"
        lakehouse.catalog().create_namespace(namespace)
        given = {
            "table": table,
            "key": TABLES[table][1],
            "namespace": namespace,
            "source": {
                **{"type": "postgresql", "host": place.host, "port": place.port, "database": place.name},
                **{"username": place.user, "password": place.password},
            },
            "lakehouse": {
                **lakehouse.model_dump(),
                "secret_access_key": lakehouse.secret_access_key.get_secret_value(),
                "prefix": f"raw/{namespace}",
            },
            "folder": str(self.folder),
        }
        python = sys.executable if contender == "mozart" else str(self.rivals)
        extra = {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), **_UNWATCHED}
        return self._measure([python, "-m", "benchmarks.load_contenders", contender], extra, given, rows)

    def _measure(self, command: list[str], extra: dict[str, str], given: Any, rows: int) -> Cost:
        server, store = _cpu_of(self.postgres), _cpu_of(self.seaweedfs)
        started = time.monotonic()
        with (
            tempfile.TemporaryFile() as said,
            tempfile.TemporaryFile() as asked,
            Path(os.devnull).open("wb") as nowhere,
        ):
            asked.write(json.dumps(given).encode())
            asked.seek(0)
            process = subprocess.Popen(
                command,
                stdin=asked,
                stdout=nowhere if given is None else said,
                stderr=subprocess.STDOUT if given is not None else None,
                env={**os.environ, **extra},
            )
            _pid, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - started
            said.seek(0)
            text = said.read().decode(errors="replace")
        process.returncode = os.waitstatus_to_exitcode(status)
        _wait_for_backends(self.postgres)
        found = text.strip().splitlines()[-1] if text.strip() else ""
        if process.returncode or (given is not None and found != str(rows)):
            raise RuntimeError(f"{command[-1]} did not load {rows} rows:\n{text[-3000:]}")
        return Cost(
            client=usage.ru_utime + usage.ru_stime,
            server=_cpu_of(self.postgres) - server,
            store=_cpu_of(self.seaweedfs) - store,
            wall=wall,
            peak_mb=usage.ru_maxrss / 1024,
            rows=rows,
        )


def _wait_for_backends(postgres: Postgres) -> None:
    """Until the server has reaped the contender's backends: only then their CPU is in its own books."""
    deadline = time.monotonic() + 5
    while any(_serves_bench(child) for child in _main(postgres).children()):
        if time.monotonic() > deadline:
            raise RuntimeError("a contender left a connection open")
        time.sleep(0.05)


def _serves_bench(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
        # Empty while the kernel takes it down: looked over, a COPY cost nothing at the server in one run of three.
        return not title or "bench" in title
    except psutil.ZombieProcess:
        return True
    except psutil.NoSuchProcess:
        return False


def _main(service: Postgres | SeaweedFS) -> psutil.Process:
    pid = service.status().pid
    if pid is None:
        raise RuntimeError(f"{service.name} is not running")
    return psutil.Process(pid)


def _cpu_of(service: Postgres | SeaweedFS) -> float:
    """CPU seconds of a server and of all its processes, ended ones too."""
    main = _main(service)
    total = 0.0
    for process in (main, *main.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@contextmanager
def open_rig(rivals: str | None = None) -> Generator[Rig]:
    """A source and a lake of this run alone, on random loopback ports; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mozart-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        ledger = Ledger(folder / "state")
        postgres = Postgres(ledger, port=find_free_ports(1)[0], password=secrets.token_urlsafe(12), durable=False)
        s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
        lakehouse = Lakehouse(
            s3_endpoint=f"http://127.0.0.1:{s3}",
            catalog_uri=f"http://127.0.0.1:{catalog}",
            access_key_id=secrets.token_hex(8),
            secret_access_key=secrets.token_urlsafe(16),  # type: ignore[arg-type]
        )
        seaweedfs = SeaweedFS(ledger, lakehouse=lakehouse, inner_ports=inner)
        try:
            postgres.start()
            seaweedfs.start()
            postgres.create_database("bench", owner="bench", password=secrets.token_urlsafe(12))
            yield Rig(postgres, seaweedfs, postgres.superuser("bench"), folder, rivals)
        finally:
            seaweedfs.stop()
            postgres.stop()


def compare(rig: Rig, table: str, rows: int, contenders: Sequence[str], repeat: int) -> dict[str, Cost]:
    """The cheapest of `repeat` runs of COPY and of each contender, run in turns."""
    count = rig.fill(table, rows)
    found: dict[str, list[Cost]] = {name: [] for name in ("copy", *contenders)}
    for turn in range(repeat):
        for name, costs in found.items():
            costs.append(rig.copy(table, count) if name == "copy" else rig.load(name, table, count))
            print(f"{table}, turn {turn + 1}: {name} {costs[-1].cpu:.2f} CPU s", flush=True)
    cheapest = {name: min(costs, key=lambda cost: cost.cpu) for name, costs in found.items()}
    print(f"\n{table}: {count} rows\n{'':16}{'rows':>11}{'client s':>9}{'server s':>9}{'store s':>8}", end="")
    print(f"{'wall s':>8}{'peak MB':>9}{'over COPY':>10}")
    for name, cost in cheapest.items():
        print(cost.line(name, cheapest["copy"]), flush=True)
    return cheapest


def figures_of(costs: Mapping[str, Mapping[str, Cost]]) -> dict[str, float]:
    """The worse of the tables counts. `cpu_over_dlt` only where dlt was measured on each."""
    figures: dict[str, float] = {}
    for suffix, cpu in (("", _cpu), ("_with_store", _cpu_with_store)):
        over_copy = [cpu(found["mozart"]) / cpu(found["copy"]) for found in costs.values()]
        figures[f"cpu_over_copy{suffix}"] = max(over_copy)
        best_dlt = [[cpu(cost) for name, cost in found.items() if name.startswith("dlt")] for found in costs.values()]
        if all(best_dlt):
            ours = [cpu(found["mozart"]) for found in costs.values()]
            figures[f"cpu_over_dlt{suffix}"] = max(cpu / min(dlt) for cpu, dlt in zip(ours, best_dlt, strict=True))
    return figures


def _cpu(cost: Cost) -> float:
    return cost.cpu


def _cpu_with_store(cost: Cost) -> float:
    return cost.cpu_with_store


def memory(rig: Rig, sizes: Sequence[int]) -> dict[str, float]:
    """Mozart's peak at each size of each table; the wide table is measured at the same rows as lineitem's share."""
    peaks: dict[str, list[float]] = {}
    for table in TABLES:
        for rows in sizes:
            cost = rig.load("mozart", table, rig.fill(table, rows))
            peaks.setdefault(table, []).append(cost.peak_mb)
            print(f"memory: {table} {cost.rows} rows: {cost.peak_mb:.0f} MB, {cost.wall:.1f} s", flush=True)
    return {
        "peak_mb_10m": max(found[-1] for found in peaks.values()),
        "peak_growth": max(found[-1] / found[0] for found in peaks.values()),
    }


def main() -> None:
    """Run, print the tables, and the figures as one line of JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--contenders", nargs="*", default=["mozart", "dlt_connectorx", "dlt_pyarrow", "pandas"])
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--rivals", help="the Python of an environment made from requirements/bench.txt")
    options = parser.parse_args()
    contenders = [name for name in options.contenders if name == "mozart" or options.rivals]
    if contenders != options.contenders:
        print("rivals are not measured: `make bench-load` makes their environment, or give --rivals")
    bytecode = "off: imports cost more" if sys.dont_write_bytecode else "on"
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, bytecode {bytecode}")
    with open_rig(options.rivals) as rig:
        costs = {table: compare(rig, table, options.rows, contenders, options.repeat) for table in options.tables}
        figures = figures_of(costs)
        if options.memory_rows:
            figures |= memory(rig, options.memory_rows)
    print_result("load", figures, TARGETS)


if __name__ == "__main__":
    main()
