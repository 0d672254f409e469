"""One table of the source into landing files: as one stream, or in parts that are read at the same time.

A part that is landed is noted beside its files. When a load breaks off, the next load of the same columns of the same
source on the same head takes the noted parts and reads the others. Parts by pages (`Chunk.column` None) mean something
within one snapshot only: they are taken up again within a run while its snapshot lives, and never mixed with another.
Parts by key may come from two snapshots; then the watermark is the first one's, so that what changed in between is read
again by the next incremental load, and the extraction says from how many snapshots it is.

Each statement takes one of the source's slots (`SourceReader.slots`), so that a run never has more connections reading
than the tenant's database is given to bear. Memory does not grow with the rows: a part is a stream into files.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pyiceberg.schema import Schema

from mozart.connectors.base import Chunk, SourceReader, TableRead
from mozart.connectors.errors import end_read, read_error
from mozart.connectors.values import ValueCounts
from mozart.errors import TransientError
from mozart.lake.commit import DataFileRef
from mozart.lake.landing import Landing, land
from mozart.lake.load_plan import LoadPlan
from mozart.lake.notes import Notes
from mozart.lake.row_watch import OnPassed, watched
from mozart.lake.session import LakeSession
from mozart.sql import quote_identifier

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5
_PLAN = "plan"
RESUME_WITHIN = timedelta(hours=6)
"""How old a landed part may be to be taken up; far below the sweep's grace, which starts when a file is written."""


@dataclass(frozen=True)
class RowsRead:
    """How far a table's read is. `expected` is the source's own estimate of all rows, None where it has none."""

    table: str
    rows: int
    expected: int | None
    rows_per_second: float
    parts: int
    of_parts: int

    @property
    def percent(self) -> float:
        """The share of parts that are landed, of 100; of one stream under way that of the rows expected, below 100."""
        if self.of_parts > 1 or self.parts:
            return 100.0 * self.parts / max(self.of_parts, 1)
        return min(100.0 * self.rows / self.expected, 99.0) if self.expected else 0.0

    @property
    def line(self) -> str:
        """One line for a log."""
        expected = f" of about {self.expected}" if self.expected is not None else ""
        so_far = f"{self.table}: {self.rows}{expected} rows"
        speed = f"{self.rows_per_second:.0f} rows/s"
        if self.of_parts == 1 and not self.parts:
            return f"{so_far} read, {speed}"
        return f"{so_far} landed, part {self.parts} of {self.of_parts} ({self.percent:.0f} %), {speed}"


OnRows = Callable[[RowsRead], None]


@dataclass(frozen=True)
class Part:
    """A landed part: its files as (path, rows), bytes, values turned into NULL by column, and its snapshot's name."""

    files: tuple[tuple[str, int], ...]
    size: int
    nulled: Mapping[str, int]
    snapshot: str

    @property
    def rows(self) -> int:
        return sum(rows for _path, rows in self.files)


@dataclass(frozen=True)
class Extraction:
    """A landed table. `snapshots`: from how many states of the source it is; `resumed`: parts an earlier load landed.

    `safe` and `asked_at` are those of the earliest part.
    """

    landing: Landing
    nulled: Mapping[str, int]
    parts: int
    resumed: int
    snapshots: int
    safe: str | None
    asked_at: str
    notes: Notes | None = None

    def forget(self) -> None:
        """Call before the files are discarded and after they were committed: nobody may take them up again."""
        if self.notes is not None:
            self.notes.forget(_PLAN)


@dataclass(frozen=True)
class Target:
    """Where a table's rows go: schema and names of its columns, the order within a file (key columns, or none)."""

    schema: Schema
    names: Sequence[str]
    folder: str
    order: Sequence[str] = ()


@dataclass
class _Tally:
    table: str
    expected: int | None
    of_parts: int
    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    read: int = 0
    parts: int = 0

    def add(self, rows: int, *, read: bool) -> RowsRead:
        self.rows += rows
        self.read += rows if read else 0
        self.parts += 1
        return self._figures(self.rows, self.read)

    def passed(self, rows: int) -> RowsRead:
        """Of a part that is still being read; its rows count as landed with `add` alone."""
        return self._figures(self.rows + rows, self.read + rows)

    def _figures(self, rows: int, read: int) -> RowsRead:
        seconds = max(time.monotonic() - self.started, 0.001)
        return RowsRead(self.table, rows, self.expected, read / seconds, self.parts, self.of_parts)


class Extractor:
    """Lands reads of one source into one lake. `name` is the table's for messages."""

    def __init__(self, name: str, reader: SourceReader, lake: LakeSession, on_rows: OnRows) -> None:
        self._name = name
        self._reader = reader
        self._lake = lake
        self._on_rows = on_rows

    def extract(self, read: TableRead, target: Target, plan: LoadPlan, *, may_mix: bool) -> Extraction:
        """Land the whole read. `may_mix`: parts of several states of the source are acceptable to the caller.

        Raises what the read raises: TransientError, TerminalError, or DataQualityError for an unfit value.
        """
        chunks = self._chunks(read, may_mix=may_mix)
        if len(chunks) < 2:
            return _joined([self._land_whole(read, target)], plan.safe, plan.details["asked_at"])
        return _InParts(self, read, target, plan, chunks).run()

    def _land_whole(self, read: TableRead, target: Target) -> Part:
        expected = read.table.estimated_rows if read.window is None and not read.equals else None
        tally = _Tally(self._name, expected, 1)
        part = self._land(read, target, on_passed=lambda rows: self._on_rows(tally.passed(rows)))
        self._on_rows(tally.add(part.rows, read=True))
        return part

    def _chunks(self, read: TableRead, *, may_mix: bool) -> Sequence[Chunk]:
        limits, table = self._reader.limits, read.table
        if read.window is not None or (
            table.estimated_rows is not None and table.estimated_rows < 2 * limits.chunk_rows
        ):
            return ()
        if not (self._reader.position.shared_snapshot or may_mix or limits.chunk_by == "key"):
            return ()  # each part would be another state of the source
        return self._reader.chunks(read)

    def note_io(self, folder: str) -> Notes:
        """The notes beside the files of `folder`."""
        return Notes(self._lake.io(folder), folder)

    def land_part(self, read: TableRead, target: Target) -> Part:
        """Land one part, trying again what may pass."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._land(read, target, self.streams)
            except TransientError:
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(random.uniform(0, _PAUSE_SECONDS * 2**attempt))  # noqa: S311 - the source may need a moment
        raise AssertionError("unreachable")

    def report(self, figures: RowsRead) -> None:
        """Hand on how far the read is."""
        self._on_rows(figures)

    def division(self, *, by_place: bool) -> tuple[str, ...]:
        """What must be as it was for a noted division to be taken up; places count within one snapshot only."""
        limits = self._reader.limits
        return (limits.chunk_by, str(limits.chunk_rows), self._reader.snapshot_name() if by_place else "")

    @property
    def name(self) -> str:
        """The table's name for messages."""
        return self._name

    @property
    def streams(self) -> int:
        """How many parts are read at the same time."""
        return min(self._reader.streams_at_once, self._reader.limits.max_connections)

    def _land(self, read: TableRead, target: Target, streams: int = 1, on_passed: OnPassed | None = None) -> Part:
        with self._reader.slots, ExitStack() as stack:
            passing = stack.enter_context(watched(self._lake.connection, on_passed)) if on_passed else _as_it_is
            cursor = self._lake.cursor()
            counted = replace(read, counts=ValueCounts())
            try:
                snapshot = self._reader.begin(cursor)
                relation = _ordered(passing(self._reader.relation(cursor, counted)), target.order)
                io = self._lake.io(target.folder)
                landing = land(
                    cursor,
                    relation,
                    target.schema,
                    target.names,
                    folder=target.folder,
                    io=io,
                    streams=streams,
                )
                nulled = counted.counts.collect(cursor)
                cursor.execute("COMMIT")
            except Exception as error:
                raise read_error(self._name, error) from error
            finally:
                end_read(cursor)
        return Part(tuple((file.path, file.rows) for file in landing.files), landing.size, nulled, snapshot)


class _InParts:
    """One table's read in parts, with those that an earlier load of the same read left."""

    def __init__(
        self, extractor: Extractor, read: TableRead, target: Target, plan: LoadPlan, chunks: Sequence[Chunk]
    ) -> None:
        self.extractor = extractor
        self.read = read
        self.by_place = any(chunk.column is None for chunk in chunks)
        parts = extractor.division(by_place=self.by_place)
        read_id = hashlib.sha256("\0".join((plan.read_id, *parts)).encode()).hexdigest()[:32]
        self.target = replace(target, folder=f"{target.folder.rsplit('/', 1)[0]}/{read_id}")
        self.notes = extractor.note_io(self.target.folder)
        self.plan = self._plan(plan, chunks)
        self.chunks = [Chunk(**chunk) for chunk in self.plan["chunks"]]

    def _plan(self, plan: LoadPlan, chunks: Sequence[Chunk]) -> dict[str, Any]:
        """The noted division where there is a fresh one, else this one, noted."""
        noted = self.notes.read(_PLAN)
        if noted is not None and not _is_old(noted["made_at"]):
            return noted
        made = {
            "id": plan.load_id,
            "made_at": datetime.now(UTC).isoformat(),
            "chunks": [asdict(chunk) for chunk in chunks],
            "safe": plan.safe,
            "asked_at": plan.details["asked_at"],
        }
        self.notes.write(_PLAN, made)
        return made

    def run(self) -> Extraction:
        tally = _Tally(self.extractor.name, self.read.table.estimated_rows, len(self.chunks))
        landed = {number: part for number in range(len(self.chunks)) if (part := self._noted(number))}
        resumed = len(landed)
        for part in landed.values():
            self.extractor.report(tally.add(part.rows, read=False))
        missing = [number for number in range(len(self.chunks)) if number not in landed]
        with ThreadPoolExecutor(self.extractor.streams, thread_name_prefix="read") as pool:
            futures = {pool.submit(self._land, number): number for number in missing}
            self._collect(pool, futures, landed, tally)
        parts = [landed[number] for number in range(len(self.chunks))]
        self._refuse_mixed_places(parts)
        joined = _joined(parts, self.plan["safe"], self.plan["asked_at"])
        return replace(joined, resumed=resumed, notes=self.notes)

    def _collect(
        self,
        pool: ThreadPoolExecutor,
        futures: Mapping[Future[Part], int],
        landed: dict[int, Part],
        tally: _Tally,
    ) -> None:
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if future.exception() is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                part = future.result()
                landed[futures[future]] = part
                self.extractor.report(tally.add(part.rows, read=True))

    def _land(self, number: int) -> Part:
        part = self.extractor.land_part(replace(self.read, chunk=self.chunks[number]), self.target)
        self.notes.write(self._name_of(number), {**asdict(part), "made_at": datetime.now(UTC).isoformat()})
        return part

    def _noted(self, number: int) -> Part | None:
        noted = self.notes.read(self._name_of(number))
        if noted is None or _is_old(noted["made_at"]):
            return None
        files = tuple((str(path), int(rows)) for path, rows in noted["files"])
        return Part(files, int(noted["size"]), noted["nulled"], noted["snapshot"])

    def _name_of(self, number: int) -> str:
        # Under the plan's own id: another loader of the same read may have divided it otherwise.
        return f"{self.plan['id']}-{number}"

    def _refuse_mixed_places(self, parts: Sequence[Part]) -> None:
        if self.by_place and len({part.snapshot for part in parts}) > 1:
            raise TransientError(
                f"{self.extractor.name}: the source's snapshot was lost or grew older than snapshot_age while the "
                "table was read by pages, so its parts do not fit together; raise source.options.snapshot_age, or set "
                "chunk_by to key"
            )


def _is_old(moment: str) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(moment) > RESUME_WITHIN


def _as_it_is(relation: str) -> str:
    return relation


def _ordered(relation: str, order: Sequence[str]) -> str:
    if not order:
        return relation
    return f"(SELECT * FROM {relation} AS source_rows ORDER BY {', '.join(quote_identifier(name) for name in order)})"


def _joined(parts: Sequence[Part], safe: str | None, asked_at: str) -> Extraction:
    nulled: Counter[str] = Counter()
    for part in parts:
        nulled.update(part.nulled)
    files = tuple(DataFileRef(path, rows) for part in parts for path, rows in part.files)
    own = sum(not part.snapshot for part in parts)
    return Extraction(
        landing=Landing(files, sum(part.rows for part in parts), sum(part.size for part in parts)),
        nulled=dict(nulled),
        parts=len(parts),
        resumed=0,
        snapshots=own + len({part.snapshot for part in parts if part.snapshot}),
        safe=safe,
        asked_at=asked_at,
    )
