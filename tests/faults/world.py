"""A source, a lake behind proxies that can misbehave, and the oracle that says what raw must hold.

The source keeps every version a row ever had in a second table, written by a trigger in the same transaction: what
raw holds must be among them. `check` asserts what holds at any moment, however the last job ended; `check_exact`
asserts in addition that raw equals the source, which holds after a load that was left alone.

At any moment, with W the watermark in the commit record:
- DuckDB and pyiceberg read the table, and read the same rows;
- no key is there twice, and no row that the source never had;
- a row that was in raw, and whose key the source still has, is in raw;
- a row of the source at or below W is in raw, as it is in the source: the record does not lie;
- the record is there: it is never lost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog
from pyiceberg.table.snapshots import ancestors_of

from mozart.connectors.base import SourceConnection
from mozart.errors import MozartError
from mozart.lake import commit
from mozart.lake.commit import TableHead
from mozart.lake.lakehouse import Lakehouse
from mozart.services.postgres import Database
from tests.contract.lake.oracle import check_files
from tests.faults import crash
from tests.faults.crash import Step
from tests.faults.jobs import Job, Kind
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.tally import Tally

TABLE = "orders"

_SOURCE = """
CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), note text, updated_at timestamptz DEFAULT now());
CREATE TABLE versions (id bigint, amount numeric(12,2), note text, updated_at timestamptz);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO versions VALUES (NEW.id, NEW.amount, NEW.note, NEW.updated_at); RETURN NEW; END $$;
CREATE TRIGGER keep AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION keep();
"""
_SOURCE_ROWS = "SELECT id, amount::text, note, (extract(epoch FROM updated_at) * 1000000)::bigint FROM {}"
_RAW_ROWS = "SELECT id, amount::VARCHAR, note, epoch_us(updated_at) FROM {}"


class Row(NamedTuple):
    """A row as all sides can write it: the amount as text, the time in microseconds since 1970."""

    id: int
    amount: str | None
    note: str | None
    updated_us: int | None


@dataclass
class World:
    """One source table and its raw table. `raw` is what was seen at the last check, by key."""

    place: Database
    lakehouse: Lakehouse
    catalog_proxy: FaultProxy
    store_proxy: FaultProxy
    namespace: str
    folder: Path
    reader: DuckDBPyConnection
    tally: Tally
    raw: dict[int, Row] = field(default_factory=dict[int, Row])
    foreign: set[Row] = field(default_factory=set[Row])
    contents: dict[int, dict[int, Row]] = field(default_factory=dict[int, dict[int, Row]])
    has_record: bool = False
    has_backdated_rows: bool = False
    log: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.catalog: Catalog = self.lakehouse.catalog()
        self.source = self.connect()
        self.source.execute(_SOURCE)  # pyright: ignore[reportArgumentType, reportCallIssue]

    # -- the source ---------------------------------------------------------------------------------------------

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        return self.place.connect(autocommit=autocommit)

    def write(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self.source.execute(statement, parameters)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def fill(self, rows: int) -> None:
        """Rows of an hour ago, so that the first load's watermark is above them; their file is not a small one."""
        self.write(
            "INSERT INTO orders SELECT g, g * 1.25, md5(g::text) || md5(g::text || 'x'), "
            "now() - interval '1 hour' + g * interval '1 ms' FROM generate_series(1, %s) g",
            [rows],
        )

    def change(self, start: int, rows: int = 5) -> None:
        """Some rows inserted, some changed, one deleted."""
        name = f"change {start}"
        self.write("INSERT INTO orders SELECT g, 1, %s FROM generate_series(%s::int, %s::int) g",
                   [name, start, start + rows - 1])  # fmt: skip
        self.write("UPDATE orders SET note = %s, updated_at = now() WHERE id %% 7 = %s", [name, start % 7])
        self.write("DELETE FROM orders WHERE id = %s", [start])

    def source_rows(self, table: str = TABLE) -> list[Row]:
        return [Row(*row) for row in self.source.execute(_SOURCE_ROWS.format(table)).fetchall()]  # pyright: ignore[reportArgumentType]

    # -- jobs ---------------------------------------------------------------------------------------------------

    def job(self, kind: Kind = "load", *, source: Mapping[str, str] | None = None, **changes: Any) -> Job:
        """A job that reaches catalog and store through the proxies; `source` are options of the source."""
        place = self.place
        connection = SourceConnection(
            type="postgresql",
            host=place.host,
            port=place.port,
            database=place.name,
            username=place.user,
            password=place.password,  # pyright: ignore[reportArgumentType] - pydantic wraps it
            options=dict(source or {}),
        )
        lakehouse = self.lakehouse.model_copy(
            update={"catalog_uri": self.catalog_proxy.url, "s3_endpoint": self.store_proxy.url}
        )
        return replace(Job(kind, connection, lakehouse, self.namespace, self.folder), **changes)

    def run(self, kind: Kind = "load", **changes: Any) -> Any:
        """Run a job that nothing disturbs."""
        self.tally.loads += 1
        return self.job(kind, **changes).run()

    def run_disturbed(self, kind: Kind = "load", **changes: Any) -> Any:
        """Run a job while faults are injected: its result, or the error it ended with, which must be one of ours."""
        self.tally.loads += 1
        try:
            return self.job(kind, **changes).run()
        except MozartError as error:
            self.tally.errors[type(error).__name__] += 1
            self.log.append(f"    {type(error).__name__}: {error}")
            print(self.log[-1])
            self._check_no_secret(str(error))
            return error
        finally:
            self.count_faults()

    def kill(self, step: Step, kind: Kind = "load", **changes: Any) -> int:
        """Run a job in a child that is killed at `step`; how the child ended."""
        self.tally.loads += 1
        ended = crash.kill_at(self.job(kind, **changes), step)
        if ended == crash.KILLED:
            self.tally.faults["kill -9"] += 1
        return ended

    def wait_until_somebody_waits(self) -> None:
        """Until a session of the source waits for a lock."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        end = time.monotonic() + 30
        while not self.source.execute(waiting).fetchall()[0][0]:
            assert time.monotonic() < end, "nobody waits for the lock"
            time.sleep(0.02)

    def count_faults(self) -> None:
        """Count the faults that were met, and forget the rules that made them."""
        for name, proxy in (("catalog", self.catalog_proxy), ("store", self.store_proxy)):
            proxy.clear()
            met = [exchange for exchange in list(proxy.exchanges) if exchange.fault is not Fault.PASS]
            proxy.exchanges.clear()
            self.tally.faults.update(f"{name}: {exchange.fault.value}" for exchange in met)

    def _check_no_secret(self, text: str) -> None:
        secret = self.lakehouse.secret_access_key.get_secret_value()
        assert secret not in text and self.place.password not in text, "an error shows a secret"

    # -- the oracle ---------------------------------------------------------------------------------------------

    def head(self) -> TableHead:
        return commit.read_head(self.catalog, (self.namespace, TABLE))

    def check(self) -> TableHead:
        """What holds at any moment; the rows seen become `raw`."""
        self.tally.checks += 1
        head = self.head()
        rows = self._read(head)
        source = {row.id: row for row in self.source_rows()}
        raw = {row.id: row for row in rows}
        self._check_rows(rows, raw, source)
        self._check_record(head, raw, source)
        self.raw = raw
        if head.snapshot_id is not None:
            self.contents[head.snapshot_id] = raw
        return head

    def check_exact(self, mode: str) -> None:
        """Raw equals the source after a load of `mode` that was left alone; rows deleted since a pass excepted."""
        before = self.raw
        self.check()
        wanted = {row.id: row for row in self.source_rows()}
        if mode != "full_refresh":
            wanted = {**{key: row for key, row in before.items() if key not in wanted}, **wanted}
        self._expect(wanted.values(), self.raw.values())

    def load_exactly(self, **changes: Any) -> Any:
        """A load that nothing disturbs, and the exact check."""
        result = self.run("load", **changes)
        self.check_exact(result.mode)
        return result

    def check_files(self) -> None:
        """Every file of every snapshot is in the store."""
        check_files(self.catalog.load_table((self.namespace, TABLE)))

    def _read(self, head: TableHead) -> list[Row]:
        if head.table is None or head.snapshot_id is None:
            return []
        try:
            by_duckdb = self._rows(f"lake.{self.namespace}.{TABLE} AT (VERSION => {head.snapshot_id})")
            self.reader.register("by_pyiceberg", head.table.scan().to_arrow())
            by_pyiceberg = self._rows("by_pyiceberg")
        except Exception:
            self.tally.tables_unreadable += 1
            raise
        self._expect(by_pyiceberg, by_duckdb)
        return by_duckdb

    def _rows(self, relation: str) -> list[Row]:
        return [Row(*row) for row in self.reader.execute(_RAW_ROWS.format(relation)).fetchall()]

    def _check_rows(self, rows: Sequence[Row], raw: Mapping[int, Row], source: Mapping[int, Row]) -> None:
        doubled = len(rows) - len(raw)
        self.tally.rows_doubled += doubled
        assert not doubled, f"keys are there twice: {[key for key, n in _counted(rows).items() if n > 1][:5]}"
        strange = set(rows) - set(self.source_rows("versions")) - self.foreign
        self.tally.rows_strange += len(strange)
        assert not strange, f"rows that the source never had: {sorted(strange)[:5]}"
        lost = [key for key in self.raw if key in source and key not in raw]
        self.tally.rows_lost += len(lost)
        assert not lost, f"rows were in raw and are not any more: {lost[:5]}"

    def _check_record(self, head: TableHead, raw: Mapping[int, Row], source: Mapping[int, Row]) -> None:
        if self.has_record and head.record is None:
            self.tally.records_lost += 1
            raise AssertionError(f"the commit record is lost; snapshot {head.snapshot_id}")
        self.has_record = head.record is not None
        if head.record is None or head.record.watermark is None or self.has_backdated_rows:
            return
        mark = self.reader.execute("SELECT epoch_us(?::TIMESTAMPTZ)", [head.record.watermark]).fetchall()[0][0]
        behind = [row for row in source.values() if (row.updated_us or 0) <= mark and raw.get(row.id) != row]
        self.tally.rows_lost += len(behind)
        self.tally.records_that_lied += bool(behind)
        assert not behind, f"at or below the watermark {head.record.watermark}, but not in raw: {behind[:5]}"

    def _expect(self, wanted: Iterable[Row], found: Iterable[Row]) -> None:
        missing, surplus = Counter(wanted), Counter(found)
        missing, surplus = missing - surplus, surplus - missing
        self.tally.rows_lost += missing.total()
        self.tally.rows_strange += surplus.total()
        assert not missing and not surplus, f"lacks {list(missing)[:5]}, and has {list(surplus)[:5]}"

    # -- foreign hands ------------------------------------------------------------------------------------------

    def roll_back(self, steps: int) -> bool:
        """Somebody rolls the table back by some snapshots; False where there are not so many."""
        table = self.catalog.load_table((self.namespace, TABLE))
        history = [s.snapshot_id for s in ancestors_of(table.current_snapshot(), table.metadata)]
        if len(history) <= steps or history[steps] not in self.contents:
            return False
        table.manage_snapshots().rollback_to_snapshot(history[steps]).commit()
        self.raw = self.contents[history[steps]]
        self.has_record = self.head().record is not None
        return True

    def append_foreign_rows(self, keys: Sequence[int]) -> None:
        """Somebody appends rows that the source never had, by another program."""
        table = self.catalog.load_table((self.namespace, TABLE))
        values = ", ".join(f"({key}, 0.50, 'foreign', TIMESTAMPTZ '2020-01-01 00:00:00+00')" for key in keys)
        made = f"(VALUES {values}) AS made (id, amount, note, updated_at)"
        arrow = self.reader.execute(f"SELECT id, amount::DECIMAL(12,2) AS amount, note, updated_at FROM {made}")
        table.append(arrow.to_arrow_table().cast(table.schema().as_arrow()))
        self.foreign |= set(self._rows(f"(SELECT id, amount::DECIMAL(12,2) AS amount, note, updated_at FROM {made})"))

    def rewrite_foreign(self) -> None:
        """Somebody's optimize: all rows in new files, no delete files, no record."""
        table = self.catalog.load_table((self.namespace, TABLE))
        table.overwrite(table.scan().to_arrow())


def _counted(rows: Iterable[Row]) -> Counter[int]:
    return Counter(row.id for row in rows)
