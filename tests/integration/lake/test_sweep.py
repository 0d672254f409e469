"""The sweep against a real store: what nobody needs goes, and nothing else, whoever works beside it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection
from pyiceberg.catalog import Catalog
from pyiceberg.io import load_file_io
from pyiceberg.types import LongType, StringType

from mozart.engine.duckdb import connect
from mozart.errors import TerminalError, TransientError
from mozart.lake import commit
from mozart.lake.commit import Column, CommitRecord
from mozart.lake.compaction import compact_table
from mozart.lake.deltas import write_position_deletes
from mozart.lake.expiry import ExpiryPolicy, expire_snapshots
from mozart.lake.lakehouse import Lakehouse
from mozart.lake.landing import land
from mozart.lake.object_store import ObjectStore
from mozart.lake.session import open_lake
from mozart.lake.sweep import Sweep, SweepPolicy, SweepResult, is_named_like
from mozart.tenancy.names import Namespaces
from tests.contract.lake.oracle import check_table

COLUMNS = (Column("id", LongType()), Column("name", StringType()))
POLICY = SweepPolicy()


@dataclass
class Place:
    """One tenant's lake: its namespaces, and the rows each table should have."""

    lakehouse: Lakehouse
    namespaces: Namespaces
    connection: DuckDBPyConnection
    folder: Path
    rows: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict[tuple[str, str], dict[int, str]])

    def __post_init__(self) -> None:
        self.catalog: Catalog = self.lakehouse.catalog()
        self.store = ObjectStore(self.lakehouse)

    def load(self, table: str, ids: range, name: str, *, namespace: str | None = None) -> None:
        """One merge of rows, as a load does it."""
        identifier = (namespace or self.namespaces.raw, table)
        head, schema, files, deletes, record = self.plan(identifier, ids, name)
        commit.merge(self.catalog, head, schema, files, deletes, record)
        self.rows.setdefault(identifier, {}).update({number: f"{name} {number}" for number in ids})

    def plan(self, identifier: tuple[str, str], ids: range, name: str) -> tuple:  # type: ignore[type-arg]
        """Files of a load that is not committed yet."""
        head = commit.read_head(self.catalog, identifier)
        schema = commit.plan_schema(head, COLUMNS)
        load_id = secrets.token_hex(16)
        folder = f"{self.lakehouse.landing_uri}/{identifier[1]}/{load_id}"
        rows = f"(SELECT range AS id, '{name} ' || range AS name FROM range({ids.start}, {ids.stop}))"
        cursor = self.connection.cursor()
        io = load_file_io(self.lakehouse.catalog_properties(), folder)
        landing = land(cursor, rows, schema, ("id", "name"), folder=folder, io=io)
        deletes = write_position_deletes(cursor, head, rows, ("id",), folder)
        record = CommitRecord(load_id, "w", None, landing.rows, "run", "incremental")
        return head, schema, landing.files, deletes, record

    def sweep(
        self, *, days: float = 4, dry_run: bool = False, clock: Callable[[], datetime] | None = None
    ) -> SweepResult:
        """A sweep as it would be in some days from now."""
        when = clock or (lambda: datetime.now(UTC) + timedelta(days=days))
        sweep = Sweep(self.lakehouse, self.catalog, self.namespaces, policy=POLICY, clock=when)
        return sweep.run(dry_run=dry_run)

    def compact_and_expire(self, table: str) -> None:
        """Leave one snapshot, so that the files of all others are orphans."""
        identifier = (self.namespaces.raw, table)
        with open_lake(self.lakehouse, scratch=self.folder / secrets.token_hex(4)) as lake:
            assert compact_table(lake, identifier, run_id="m", force=True).status == "compacted"
        self.expire(identifier)

    def expire(self, identifier: tuple[str, str]) -> None:
        policy = ExpiryPolicy(snapshots=1, age=timedelta())
        later = datetime.now(UTC) + timedelta(minutes=1)
        assert expire_snapshots(self.catalog, identifier, run_id="m", policy=policy, now=later).skipped is None

    def files(self, uri: str | None = None) -> set[str]:
        return {file.path for file in self.store.list_files(uri or self.lakehouse.landing_uri)}

    def put(self, name: str, *, under: str | None = None) -> str:
        path = f"{under or self.lakehouse.landing_uri}/{name}"
        self.store.write_text(path, "x")
        return path

    def check(self) -> None:
        """Rows as expected, and every file that any snapshot names is there."""
        for identifier, rows in self.rows.items():
            expected = [{"id": number, "name": name} for number, name in rows.items()]
            with connect(lakehouse=self.lakehouse) as connection:
                check_table(self.catalog, connection, identifier, expected)


@pytest.fixture
def place(lakehouse: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(commit, "_CREATION_PAUSES", (0.0, 0.3))
    core = f"t_{secrets.token_hex(6)}"
    with connect(lakehouse=lakehouse) as connection:
        yield Place(lakehouse, Namespaces("iceberg", core, f"{core}_raw"), connection, tmp_path)


@pytest.fixture
def swept(place: Place) -> Place:
    """Two tables with history; `cases` has files that no snapshot needs any more."""
    for number in range(3):
        place.load("cases", range(number, number + 4), f"v{number}")
    place.load("stg_cases", range(2), "s", namespace=place.namespaces.core)
    place.compact_and_expire("cases")
    return place


def test_what_no_snapshot_reaches_goes(swept: Place) -> None:
    before = swept.files()
    planned = swept.sweep(dry_run=True)
    assert swept.files() == before
    result = swept.sweep()
    assert (result.orphans, result.orphan_size) == (planned.orphans, planned.orphan_size)
    assert result.kinds["landing"] == 5 and result.kinds["manifest"] >= 3 and not result.failed
    assert (result.deleted, result.deleted_size) == (result.orphans, result.orphan_size)
    assert result.orphan_size > 0
    swept.check()
    assert swept.sweep().orphans == 0


def test_uploads_that_were_never_completed_are_aborted(swept: Place) -> None:
    """A killed writer leaves their parts in the store, where no listing of objects shows them."""
    client = swept.store._client
    landing = swept.lakehouse.landing_uri.removeprefix(f"s3://{swept.lakehouse.bucket}/")
    bucket, key = swept.lakehouse.bucket, f"{landing}/items/abc/part.parquet"
    number = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=number, PartNumber=1, Body=b"x" * 100)
    other = client.create_multipart_upload(Bucket=bucket, Key=f"{landing}_dev/items/abc/part.parquet")["UploadId"]
    assert swept.sweep(days=1).uploads == 0
    assert swept.sweep(dry_run=True).uploads == 1
    assert [upload.number for upload in swept.store.list_uploads(swept.lakehouse.landing_uri)] == [number]
    assert swept.sweep().uploads == 1
    assert not list(swept.store.list_uploads(swept.lakehouse.landing_uri))
    assert [upload.number for upload in swept.store.list_uploads(f"{swept.lakehouse.landing_uri}_dev")] == [other]


def test_within_the_grace_period_nothing_goes(swept: Place) -> None:
    result = swept.sweep(days=2.9)
    assert (result.orphans, result.deleted) == (0, 0) and result.young == result.listed > 10
    real = Sweep(swept.lakehouse, swept.catalog, swept.namespaces).run()
    assert real.deleted == 0 and real.young == real.listed
    with pytest.raises(ValueError, match="loads in flight"):
        SweepPolicy(grace=timedelta())


def test_files_of_a_load_in_flight_stay_and_can_be_committed(swept: Place) -> None:
    """Files landed before, committed after: only their age tells them from orphans."""
    identifier = (swept.namespaces.raw, "cases")
    plan = swept.plan(identifier, range(3, 9), "late")
    assert swept.sweep(days=2).deleted == 0
    commit.merge(swept.catalog, *plan)
    swept.rows[identifier].update({number: f"late {number}" for number in range(3, 9)})
    swept.sweep()
    swept.check()


def test_a_commit_between_the_listing_and_the_deleting_is_seen(swept: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A very slow load commits files that are listed as old and unreachable, just before they would be deleted."""
    identifier = (swept.namespaces.raw, "cases")
    plan = swept.plan(identifier, range(3, 9), "slow")
    true_delete = Sweep._delete

    def commit_first(self: Sweep, *arguments: object) -> SweepResult:
        commit.merge(swept.catalog, *plan)
        swept.rows[identifier].update({number: f"slow {number}" for number in range(3, 9)})
        return true_delete(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sweep, "_delete", commit_first)
    result = swept.sweep()
    assert result.deleted == result.orphans - 2
    swept.check()


def test_a_file_committed_while_the_store_is_listed_is_seen(swept: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read before the listing, the references would not name it: the order is what keeps it."""
    identifier = (swept.namespaces.raw, "cases")
    plan = swept.plan(identifier, range(3, 9), "during")
    true_list = Sweep._list

    def commit_after(self: Sweep, now: datetime) -> object:
        found = true_list(self, now)
        commit.merge(swept.catalog, *plan)
        return found

    monkeypatch.setattr(Sweep, "_list", commit_after)
    swept.sweep()
    swept.rows[identifier].update({number: f"during {number}" for number in range(3, 9)})
    swept.check()


def test_every_retained_snapshot_keeps_its_files(place: Place) -> None:
    for number in range(4):
        place.load("cases", range(number, number + 4), f"v{number}")
    table = place.catalog.load_table((place.namespaces.raw, "cases"))
    table.manage_snapshots().create_tag(table.metadata.snapshots[1].snapshot_id, "audit").commit()
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[2].snapshot_id).commit()
    assert place.sweep().orphans == 0
    place.rows[place.namespaces.raw, "cases"] = {
        **{number: f"v0 {number}" for number in range(1)},
        1: "v1 1",
        **{number: f"v2 {number}" for number in range(2, 6)},
    }
    place.check()


def test_another_tenants_files_are_never_listed(swept: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours whose prefix begins like ours, and whose orphans look exactly like ours."""
    landing = swept.lakehouse.landing_uri
    neighbours = [
        swept.put("orphan.parquet", under=f"{landing}_dev/cases/0123"),
        swept.put("orphan.parquet", under=f"{landing}2/cases/0123"),
        swept.put("orphan.parquet", under=f"s3://landing/{secrets.token_hex(4)}/cases/0123"),
    ]
    other = Place(
        swept.lakehouse, Namespaces("iceberg", "x", f"{swept.namespaces.raw}2"), swept.connection, swept.folder
    )
    other.lakehouse = swept.lakehouse.model_copy(update={"prefix": f"{swept.lakehouse.prefix}_other"})
    for number in range(3):
        other.load("cases", range(number, number + 2), f"o{number}")
    other.compact_and_expire("cases")
    theirs = other.files()
    listed: list[str] = []
    true_list = ObjectStore.list_files
    monkeypatch.setattr(
        ObjectStore, "list_files", lambda self, folder: listed.append(folder) or true_list(self, folder)
    )
    assert swept.sweep().deleted > 0
    own = (landing, f"s3://warehouse/{swept.namespaces.raw}/", f"s3://warehouse/{swept.namespaces.core}/")
    assert all(folder == landing or folder.startswith(own[1:]) for folder in listed), listed
    assert set(neighbours) <= swept.files(f"{landing}_dev") | swept.files(f"{landing}2") | set(neighbours[2:])
    assert swept.store.read_text(neighbours[2]) == "x"
    assert other.files() == theirs
    other.check()


def test_what_nobody_of_us_writes_stays(swept: Place) -> None:
    table = f"s3://warehouse/{swept.namespaces.raw}/cases"
    kept = {
        swept.put("README.md"),
        swept.put("notes.parquet"),
        swept.put("cases/notes.parquet"),
        swept.put("cases/0123/notes.txt"),
        swept.put("My own/copies/of.parquet"),
    }
    hint = swept.put("metadata/version-hint.text", under=table)
    gone = swept.put("cases/0123/part.parquet")
    assert gone in swept.files()
    swept.sweep()
    assert kept <= swept.files() and gone not in swept.files()
    assert hint in swept.files(table)


def test_a_dropped_tables_landing_goes_after_the_grace_period(swept: Place) -> None:
    assert swept.sweep().deleted > 0  # four days from now; the sweep has seen the table then
    folder = f"{swept.lakehouse.landing_uri}/cases"
    before = swept.files(folder)
    swept.catalog.drop_table((swept.namespaces.raw, "cases"))
    del swept.rows[swept.namespaces.raw, "cases"]
    assert swept.sweep(days=6).deleted == 0 and swept.files(folder) == before
    assert swept.sweep(days=8).deleted == len(before) and not swept.files(folder)
    swept.check()


def test_tables_of_an_earlier_schema_keep_their_files(swept: Place) -> None:
    """tenant.yaml names another schema now; the old tables still stand in the catalog, over files of this prefix."""
    swept.sweep()
    old = swept.namespaces
    swept.namespaces = Namespaces("iceberg", f"{old.core}x", f"{old.core}x_raw")
    swept.load("cases", range(3), "new")
    swept.sweep(days=400)
    swept.check()
    assert len(swept.rows) == 3


def test_a_note_of_another_catalog_or_none_at_all_stops_the_sweep(swept: Place) -> None:
    swept.sweep()
    before = swept.files()
    elsewhere = swept.lakehouse.model_copy(update={"warehouse": "elsewhere"})
    with pytest.raises(TerminalError, match="nothing was deleted"):
        Sweep(elsewhere, swept.catalog, swept.namespaces).run()
    swept.put("_mozart/sweep.json")
    with pytest.raises(TerminalError, match="cannot be read"):
        swept.sweep()
    assert swept.files() == before


def test_one_unreadable_manifest_stops_the_sweep(swept: Place) -> None:
    table = swept.catalog.load_table((swept.namespaces.core, "stg_cases"))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    swept.store.delete([snapshot.manifests(table.io)[0].manifest_path])
    before = swept.files()
    with pytest.raises(TransientError, match="stg_cases"):
        swept.sweep()
    assert swept.files() == before


def test_a_location_that_is_not_the_tables_own_is_left_alone(swept: Place) -> None:
    schema = pa.schema([pa.field("id", pa.int64())])
    location = f"s3://warehouse/{swept.namespaces.core}/of_several"
    table = swept.catalog.create_table((swept.namespaces.raw, "odd"), schema, location=location)
    assert table.location() == location
    stranger = swept.put("metadata/orphan.avro", under=location)
    result = swept.sweep()
    assert any("not the table's own" in note for note in result.notes)
    assert swept.store.read_text(stranger) == "x"


@pytest.mark.parametrize(
    ("location", "own"),
    [
        ("s3://warehouse/acme_raw/cases", True),
        ("s3://warehouse/acme_raw.db/cases-0f1e", True),
        ("s3://warehouse/acme_raw/cases2", False),
        ("s3://warehouse/acme/cases", False),
        ("s3://warehouse/acme_raw", False),
        ("s3://cases", False),
    ],
)
def test_a_location_is_the_tables_own_by_its_name(location: str, own: bool) -> None:
    assert is_named_like(location, ("acme_raw", "cases")) is own


def test_a_prefix_is_needed(swept: Place) -> None:
    bare = swept.lakehouse.model_copy(update={"prefix": "/"})
    with pytest.raises(TerminalError, match="no place within a bucket"):
        Sweep(bare, swept.catalog, swept.namespaces).run()


def test_loads_run_while_garbage_is_swept(swept: Place) -> None:
    """What was garbage before the loads began goes; nothing that they write does."""
    garbage = len(swept.files())
    cut = swept.store.now(swept.lakehouse.landing_uri)
    failures: list[BaseException] = []

    def load() -> None:
        try:
            for number in range(4):
                swept.load("cases", range(number, number + 3), f"beside {number}")
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    results = [swept.sweep(clock=lambda: cut + POLICY.grace) for _ in range(3)]
    thread.join()
    assert not failures and garbage > 0
    results.append(swept.sweep(clock=lambda: cut + POLICY.grace + timedelta(seconds=1)))
    swept.check()
    assert sum(result.deleted for result in results) > 5
