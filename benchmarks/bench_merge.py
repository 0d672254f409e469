"""What a merge costs: 1k and 100k changes, recent and scattered, into three sizes, beside pyiceberg's `upsert`.

Run it as `make bench-merge`, or `python benchmarks/bench_merge.py --sizes 200000 500000 1000000` for a quick look. One
embedded SeaweedFS serves both sides; it is started here and stopped at the end. Measured is the CPU of this process
(the client: pyiceberg, DuckDB, Arrow), without the server's. The last line is JSON: figures, targets, and which of
them were missed.

What is compared: Mozart's merge is reading the head, writing the changed rows, finding the old ones, and one commit.
The rival gets a table of the very same data files, the same changes as an Arrow table, and the same key.

Pitfalls: the first merge of a process pays for what is loaded lazily, so one is made before the clock starts, for both.
Figures named after 5M rows belong to the middle of `--sizes`, the growth to the first and the last. Compaction runs
in processes of their own, for the peak of memory is a process's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import secrets
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from pydantic import SecretStr
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.types import DateType, DecimalType, IntegerType, LongType, StringType, TimestamptzType

from benchmarks.result import Targets, print_result
from mozart.lake import commit
from mozart.lake.commit import Column, CommitRecord, DataFileRef, Identifier
from mozart.lake.compaction import DEFAULT_POLICY, CompactionPolicy, compact_after_load, compact_table
from mozart.lake.deltas import write_position_deletes
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land
from mozart.lake.session import COMPACTION_MEMORY, LakeSession, open_lake
from mozart.services.ledger import Ledger
from mozart.services.ports import find_free_ports
from mozart.services.seaweedfs import INNER_PORTS, SeaweedFS

NAMESPACE = "bench"
NARROW, WIDE = 8, 17
MERGES_IN_A_ROW = 100
MERGES_BEFORE_READING = 24
REPEATS = {1_000: 5, 100_000: 2}

TARGETS: Targets = {
    "cpu_s_1k_5m": ("<=", 0.4),
    "upsert_over_ours": (">=", 40),
    "growth_1m_10m": ("<=", 3),
    "merge_100_over_1": ("<=", 1.6),
    "read_over_compacted": ("<=", 1.5),
    "compact_peak_mb": ("<=", 400),
}

_COLUMNS = (
    (Column("id", LongType()), "g"),
    (Column("updated_at", TimestamptzType()), "TIMESTAMPTZ '2024-01-01 00:00:00+00' + g * INTERVAL 1 SECOND"),
    (Column("customer_id", LongType()), "(hash(g) % 150000)::BIGINT"),
    (Column("quantity", DecimalType(15, 2)), "(hash(g, 1) % 5000)::DECIMAL(15, 2) / 100"),
    (Column("amount", DecimalType(15, 2)), "((hash(g, 2) % 10000000)::BIGINT / 100.0)::DECIMAL(15, 2)"),
    (Column("status", StringType()), "['open', 'paid', 'late', 'void'][1 + (hash(g, 3) % 4)::INTEGER]"),
    (Column("shipped_on", DateType()), "DATE '2020-01-01' + (hash(g, 4) % 2000)::INTEGER"),
    (
        Column("comment", StringType()),
        "left(md5(g::VARCHAR) || md5((g + 1)::VARCHAR), 10 + (hash(g, 5) % 34)::INTEGER)",
    ),
)


@dataclass(frozen=True)
class Shape:
    """A table's columns, and the SELECT that makes its rows from a relation with the numbers `g`."""

    columns: tuple[Column, ...]
    expressions: tuple[str, ...]

    @staticmethod
    def of(width: int) -> Shape:
        """The eight columns of an order line, and more whole numbers and texts up to `width`."""
        pairs = list(_COLUMNS)
        for number in range(len(pairs), width):
            wide = (Column(f"text_{number}", StringType()), f"left(md5((g * {number})::VARCHAR), 12)")
            small = (Column(f"number_{number}", IntegerType()), f"(hash(g, {number}) % 100000)::INTEGER")
            pairs.append(wide if number % 2 else small)
        return Shape(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def rows(self, numbers: str) -> str:
        """SQL that yields the rows whose numbers `numbers` (SQL with one column `g`) gives."""
        listed = ", ".join(
            f"{sql} AS {column.name}" for column, sql in zip(self.columns, self.expressions, strict=True)
        )
        return f"(SELECT {listed} FROM ({numbers}))"


@dataclass
class Bench:
    """An open lake, and what was measured so far."""

    lake: LakeSession
    figures: dict[str, float] = field(default_factory=dict[str, float])
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def note(self, name: str, value: float, unit: str = "CPU s") -> None:
        self.figures[name] = round(value, 4)
        print(f"{name:<44} {value:10.3f} {unit}", flush=True)

    # -- tables -------------------------------------------------------------------------------------------------

    def write_rows(self, identifier: Identifier, shape: Shape, rows: int) -> tuple[DataFileRef, ...]:
        """The files of `rows` rows, committed as a new table."""
        head = commit.read_head(self.lake.catalog, identifier)
        schema = commit.plan_schema(head, shape.columns)
        folder = f"{self.lake.lakehouse.landing_uri}/{identifier[1]}/full"
        relation = shape.rows(f"SELECT range AS g FROM range({rows})")
        io = self.lake.io(folder)
        landing = land(self.lake.cursor(), relation, schema, shape.names, folder=folder, io=io)
        commit.append(self.lake.catalog, head, schema, landing.files, self.record(landing.rows))
        return landing.files

    def adopt(self, identifier: Identifier, shape: Shape, files: tuple[DataFileRef, ...]) -> None:
        """Another new table of files that a table has already."""
        head = commit.read_head(self.lake.catalog, identifier)
        schema = commit.plan_schema(head, shape.columns)
        commit.append(self.lake.catalog, head, schema, files, self.record(sum(file.rows for file in files)))

    def record(self, rows: int) -> CommitRecord:
        return CommitRecord(f"load-{next(self.numbers)}", "w", None, rows, "bench", "incremental")

    # -- merging ------------------------------------------------------------------------------------------------

    def stage(self, shape: Shape, changes: str) -> None:
        """The changes as a load has them before it merges: a table in DuckDB's memory."""
        changed = "amount + 1 AS amount, updated_at + INTERVAL 400 DAY AS updated_at"
        self.lake.cursor().execute(
            f"CREATE OR REPLACE TABLE memory.main.delta AS SELECT * REPLACE ({changed}) FROM {shape.rows(changes)}"
        )

    def merge(self, identifier: Identifier, shape: Shape) -> None:
        """One merge of what is staged, as a load does it."""
        cursor = self.lake.cursor()
        head = commit.read_head(self.lake.catalog, identifier)
        schema = commit.plan_schema(head, shape.columns)
        folder = f"{self.lake.lakehouse.landing_uri}/{identifier[1]}/{next(self.numbers)}"
        landing = land(cursor, "memory.main.delta", schema, shape.names, folder=folder, io=self.lake.io(folder))
        deletes = write_position_deletes(cursor, head, "memory.main.delta", ("id",), folder)
        commit.merge(self.lake.catalog, head, schema, landing.files, deletes, self.record(landing.rows))
        cursor.close()

    def merge_cost(self, identifier: Identifier, shape: Shape, changes: Callable[[int], str], repeats: int) -> float:
        """The median CPU seconds of `repeats` merges, each of other keys."""
        costs: list[float] = []
        for number in range(repeats):
            self.stage(shape, changes(number))
            costs.append(cpu_of(lambda: self.merge(identifier, shape)))
        return statistics.median(costs)

    def merge_often(
        self,
        identifier: Identifier,
        shape: Shape,
        changes: Callable[[int], str],
        times: int,
        policy: CompactionPolicy | None,
    ) -> tuple[list[float], float]:
        """CPU seconds of each merge, and of all compactions that `policy` asked for in between."""
        costs: list[float] = []
        compacting = 0.0
        for number in range(times):
            self.stage(shape, changes(number))
            costs.append(cpu_of(lambda: self.merge(identifier, shape)))
            if policy is not None:
                compacting += cpu_of(lambda: self.compact_if_due(identifier, policy))
        return costs, compacting

    def compact_if_due(self, identifier: Identifier, policy: CompactionPolicy) -> None:
        """What a load does after its own commit."""
        problems: list[str] = []
        done = compact_after_load(self.lake, identifier, run_id="bench", policy=policy, progress=problems.append)
        assert done is None or done.status in ("compacted", "not due"), problems

    def upsert_cost(self, identifier: Identifier, shape: Shape, changes: str) -> float:
        """CPU seconds of pyiceberg's upsert of the same changes."""
        self.stage(shape, changes)
        table = self.lake.catalog.load_table(identifier)
        wanted = schema_to_pyarrow(table.schema(), include_field_ids=False)
        arrow = self.lake.cursor().execute("SELECT * FROM memory.main.delta").to_arrow_table().cast(wanted)
        return cpu_of(lambda: table.upsert(arrow, join_cols=["id"]))

    def read_cost(self, identifier: Identifier, columns: tuple[str, ...]) -> float:
        """The least CPU seconds of three scans of these columns."""
        listed = ", ".join(f"max({name})" for name in columns)
        statement = f"SELECT count(*), {listed} FROM lake.{identifier[0]}.{identifier[1]}"
        return min(cpu_of(lambda: self.lake.cursor().execute(statement).fetchall()) for _ in range(3))


def scattered(rows: int, changes: int) -> Callable[[int], str]:
    """Changes of keys all over the table, one in twenty of them new; other keys for another number."""
    old = changes - changes // 20
    step = rows // old

    def numbered(number: int) -> str:
        start = number * 7919 % step
        return (
            f"SELECT range * {step} + {start} AS g FROM range({old}) UNION ALL "
            f"SELECT {rows} + {number * changes} + range FROM range({changes - old})"
        )

    return numbered


def recent(rows: int, changes: int) -> Callable[[int], str]:
    """Changes of the newest keys, one in twenty of them new."""
    old = changes - changes // 20
    return lambda number: (
        f"SELECT {rows - old} + range AS g FROM range({old}) UNION ALL "
        f"SELECT {2 * rows} + {number * changes} + range FROM range({changes - old})"
    )


KINDS: Mapping[str, Callable[[int, int], Callable[[int], str]]] = {"scattered": scattered, "recent": recent}


def cpu_of(action: Callable[[], object]) -> float:
    """CPU seconds of this process and of its children that ended, while `action` ran."""
    before = _cpu_seconds()
    action()
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# -- the parts ---------------------------------------------------------------------------------------------------------


def bench_sizes(bench: Bench, sizes: list[int], *, rival_everywhere: bool) -> None:
    """Every number and kind of changes into every size, with pyiceberg's upsert on the middle one."""
    shape = Shape.of(NARROW)
    middle = sizes[len(sizes) // 2]
    for size in sizes:
        identifier = (NAMESPACE, f"merged_{size}")
        files = bench.write_rows(identifier, shape, size)
        bench.stage(shape, scattered(size, 1_000)(99))
        bench.merge(identifier, shape)
        for changes, repeats in REPEATS.items():
            for kind, changed in KINDS.items():
                name = f"cpu_s_{changes // 1000}k_{kind}_{label(size)}"
                bench.note(name, bench.merge_cost(identifier, shape, changed(size, changes), repeats))
        if size == middle or rival_everywhere:
            bench_rival(bench, shape, size, files)
    small, large = (bench.figures[f"cpu_s_1k_scattered_{label(size)}"] for size in (sizes[0], sizes[-1]))
    ours = bench.figures[f"cpu_s_1k_scattered_{label(middle)}"]
    bench.note("cpu_s_1k_5m", ours)
    bench.note("upsert_over_ours", bench.figures[f"upsert_cpu_s_1k_scattered_{label(middle)}"] / ours, "x")
    bench.note("growth_1m_10m", large / small, "x")


def bench_rival(bench: Bench, shape: Shape, size: int, files: tuple[DataFileRef, ...]) -> None:
    """pyiceberg's upsert of 1k changes into a table of the same files; the second of two, the first warms up."""
    warm = (NAMESPACE, f"warm_{size}")
    bench.write_rows(warm, shape, 1_000)
    bench.upsert_cost(warm, shape, scattered(1_000, 100)(1))
    for kind, changed in KINDS.items():
        identifier = (NAMESPACE, f"upserted_{kind}_{size}")
        bench.adopt(identifier, shape, files)
        cost = bench.upsert_cost(identifier, shape, changed(size, 1_000)(1))
        bench.note(f"upsert_cpu_s_1k_{kind}_{label(size)}", cost)


def bench_row_of_merges(bench: Bench, size: int) -> None:
    """Many merges of 1k scattered changes in a row, as loads make them: one that finds too many files compacts.

    What compacting costs is spread over the merges: a figure of its own, and another where it is counted with the last
    merges, but not with the first, which made none due. Then the same without any compaction.
    """
    shape = Shape.of(NARROW)
    changes = scattered(size, 1_000)
    for name, policy in (("", DEFAULT_POLICY), ("_uncompacted", None)):
        identifier = (NAMESPACE, f"in_a_row{name}")
        bench.write_rows(identifier, shape, size)
        costs, compacting = bench.merge_often(identifier, shape, changes, MERGES_IN_A_ROW, policy)
        first, last = statistics.median(costs[:5]), statistics.median(costs[-5:])
        bench.note(f"cpu_s_first_merge{name}", first)
        bench.note(f"cpu_s_merge_{MERGES_IN_A_ROW}{name}", last)
        bench.note(f"merge_{MERGES_IN_A_ROW}_over_1{name}", last / first, "x")
        if policy is not None:
            spread = compacting / len(costs)
            bench.note("compaction_cpu_s_per_merge", spread)
            bench.note(f"merge_{MERGES_IN_A_ROW}_and_compaction_over_1", (last + spread) / first, "x")


def bench_reading(bench: Bench, size: int) -> None:
    """Reading the table after some merges over the same after a compaction; beside it, a scan of two columns."""
    shape, identifier = Shape.of(NARROW), (NAMESPACE, "read")
    scans = {"read": shape.names, "scan_two_columns": ("amount", "updated_at")}
    bench.write_rows(identifier, shape, size)
    bench.merge_often(identifier, shape, scattered(size, 1_000), MERGES_BEFORE_READING, DEFAULT_POLICY)
    before = {name: bench.read_cost(identifier, columns) for name, columns in scans.items()}
    done = compact_table(bench.lake, identifier, run_id="bench", force=True)
    assert done.status == "compacted", done
    for name, columns in scans.items():
        after = bench.read_cost(identifier, columns)
        bench.note(f"{name}_cpu_s_merged", before[name])
        bench.note(f"{name}_cpu_s_compacted", after)
        bench.note(f"{name}_over_compacted", before[name] / after, "x")


def bench_compaction(bench: Bench, size: int, folder: Path) -> None:
    """Peak memory of a process that compacts 17 columns: with the maintenance run's session, and after a load with its
    own. The worse of the two counts."""
    shape = Shape.of(WIDE)
    peaks: dict[str, float] = {}
    for name, memory, threads in (("compact", COMPACTION_MEMORY, 1), ("compact_after_load", "1GB", 2)):
        identifier = (NAMESPACE, name)
        bench.write_rows(identifier, shape, size)
        for number in range(DEFAULT_POLICY.delete_files + 1):
            bench.stage(shape, scattered(size, 1_000)(number))
            bench.merge(identifier, shape)
        job = CompactionJob(bench.lake.lakehouse, identifier, folder / name, memory, threads)
        cpu, peaks[name] = job.run_in_a_process()
        bench.note(f"{name}_cpu_s", cpu)
        bench.note(f"{name}_process_mb", peaks[name], "MB")
    bench.note("compact_peak_mb", max(peaks.values()), "MB")


@dataclass(frozen=True)
class CompactionJob:
    """A compaction, and the limits of the DuckDB that computes it."""

    lakehouse: Lakehouse
    identifier: Identifier
    scratch: Path
    memory: str
    threads: int

    def run_in_a_process(self) -> tuple[float, float]:
        """(CPU seconds, peak MB) of a fresh process that does it."""
        context = multiprocessing.get_context("spawn")
        answers = context.SimpleQueue()
        process = context.Process(target=self.run, args=(answers,))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"the compacting process ended with {process.exitcode}")
        return answers.get()

    def run(self, answers: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
        with open_lake(self.lakehouse, scratch=self.scratch, memory=self.memory, threads=self.threads) as lake:
            started = time.process_time()
            done = compact_table(lake, self.identifier, run_id="bench", force=True)
            assert done.status == "compacted", done
            answers.put((time.process_time() - started, peak_mb()))


def peak_mb() -> float:
    """The most memory this process ever held. Not ru_maxrss: a child begins with what its parent had at the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# -- the run -----------------------------------------------------------------------------------------------------------


def label(size: int) -> str:
    return f"{size // 1_000_000}m" if size % 1_000_000 == 0 else f"{size // 1000}k"


@contextmanager
def running_lake(folder: Path) -> Iterator[Lakehouse]:
    """An embedded SeaweedFS whose state is in `folder`."""
    s3, catalog, *inner = find_free_ports(2 + INNER_PORTS)
    lakehouse = Lakehouse(
        s3_endpoint=f"http://127.0.0.1:{s3}",
        catalog_uri=f"http://127.0.0.1:{catalog}",
        access_key_id=secrets.token_hex(8),
        secret_access_key=SecretStr(secrets.token_urlsafe(16)),
    )
    server = SeaweedFS(Ledger(folder), lakehouse=lakehouse, inner_ports=inner)
    try:
        server.start()
        yield lakehouse
    finally:
        server.stop()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs=3, default=[1_000_000, 5_000_000, 10_000_000], metavar="ROWS")
    parser.add_argument("--rival-everywhere", action="store_true", help="upsert into every size, not the middle alone")
    parser.add_argument("--parts", nargs="+", default=["sizes", "row", "reading", "compaction"], metavar="PART")
    return parser.parse_args()


def main() -> None:
    warnings.filterwarnings("ignore", category=UserWarning, module="pyiceberg")
    arguments = parse_arguments()
    print(f"PYTHONDONTWRITEBYTECODE={os.environ.get('PYTHONDONTWRITEBYTECODE', '')!r}, sizes {arguments.sizes}")
    smallest, middle, _largest = sizes = sorted(arguments.sizes)
    with tempfile.TemporaryDirectory(prefix="mozart-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with running_lake(folder) as lakehouse, open_lake(lakehouse, scratch=folder / "scratch") as lake:
            lake.catalog.create_namespace(NAMESPACE)
            bench = Bench(lake)
            parts: dict[str, Callable[[], None]] = {
                "sizes": lambda: bench_sizes(bench, sizes, rival_everywhere=arguments.rival_everywhere),
                "row": lambda: bench_row_of_merges(bench, smallest),
                "reading": lambda: bench_reading(bench, middle),
                "compaction": lambda: bench_compaction(bench, middle, folder),
            }
            for part in arguments.parts:
                parts[part]()
    print_result("merge", bench.figures, TARGETS)


if __name__ == "__main__":
    sys.exit(main())
