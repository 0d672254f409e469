"""The Atlas sample is a file: made whole, the same each time, never mixed with another."""

from __future__ import annotations

import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mozart.errors import ConfigurationError
from mozart.tenancy.load import load_tenant
from samples import atlas, atlas_rows

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "atlas.db"
    atlas.create(made, scale=0.02)
    return made


def _rows(file: Path) -> Iterator[str]:
    with closing(sqlite3.connect(file)) as database:
        return iter(list(database.iterdump()))


def _ask(file: Path, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(question).fetchall()


def test_scale_one_has_the_promised_sizes() -> None:
    sizes = atlas_rows.Sizes.of_scale(1)
    assert (sizes.dossiers, sizes.participants, sizes.bookings) == (4_000, 10_000, 20_000)


def test_the_same_seed_and_scale_give_the_same_rows_and_another_seed_others(file: Path, tmp_path: Path) -> None:
    atlas.create(tmp_path / "again.db", scale=0.02)
    atlas.create(tmp_path / "other.db", scale=0.02, seed=6)
    assert list(_rows(file)) == list(_rows(tmp_path / "again.db"))
    assert list(_rows(file)) != list(_rows(tmp_path / "other.db"))


def test_what_is_there_is_counted_and_left_alone(file: Path) -> None:
    atlas.apply_changes(file, seed=1, inserts=2, updates=0)
    before = file.read_bytes()
    assert atlas.create(file, scale=0.02) == {"Dossier": 81, "Participant": 201, "Booking": 401}
    assert file.read_bytes() == before
    assert atlas.exists(file)


def test_a_file_of_other_values_or_of_another_program_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"scale=0\.02 seed=5.*not.*scale=1\.0"):
        atlas.create(file)
    foreign = tmp_path / "letter.txt"
    foreign.write_text("no database")
    with pytest.raises(ConfigurationError, match="as no sample"):
        atlas.create(foreign)
    assert not atlas.exists(foreign) and not atlas.exists(tmp_path / "missing.db")
    assert foreign.read_text() == "no database"


def test_a_failed_creation_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_sizes: object, _seed: int) -> dict[str, list[tuple[object, ...]]]:
        raise RuntimeError("power cut")

    monkeypatch.setattr(atlas, "make_rows", fail)
    with pytest.raises(RuntimeError):
        atlas.create(tmp_path / "atlas.db")
    assert not (tmp_path / "atlas.db").exists()


def test_changes_are_counted_as_they_happen_and_follow_the_seed(file: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.db"
    twin.write_bytes(file.read_bytes())
    before = Counter({table: _ask(file, f"SELECT count(*) FROM {table}")[0][0] for table in atlas.TABLES})
    done = atlas.apply_changes(file, seed=4, inserts=6, updates=9, deletes=6)
    assert done == atlas.apply_changes(twin, seed=4, inserts=6, updates=9, deletes=6)
    for table in atlas.TABLES:
        (count,) = _ask(file, f"SELECT count(*) FROM {table}")[0]
        assert count == before[table] + done[f"{table}.inserted"] - done[f"{table}.deleted"], table
    keys = "SELECT group_concat(BookingId) FROM Booking"
    assert _ask(file, keys) == _ask(twin, keys)


def test_everybody_may_read_the_file_once_that_is_granted(file: Path) -> None:
    file.chmod(0o600)
    atlas.grant_reader(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_the_shapes_that_staging_has_to_undo_are_there(file: Path) -> None:
    (row,) = _ask(
        file,
        "SELECT sum(KindCode IS NULL), sum(KindName LIKE '% (alt)'), sum(ClosedAt = 0), sum(Heading LIKE '% '),"
        " sum(Priority = 0), count(DISTINCT IsLocked) - 1 FROM Dossier",
    )
    assert min(row) > 0, row  # type: ignore[type-var]
    assert _ask(file, "SELECT count(*) FROM Booking WHERE (CentsIn > 0) = (CentsOut > 0) AND CentsIn > 0") == [(0,)]
    assert _ask(file, "SELECT DISTINCT typeof(OpenedAt), typeof(ModifiedOn) FROM Dossier") == [("integer", "text")]


def test_the_tenant_reads_every_table_but_the_programs_own_and_only_columns_there_are() -> None:
    tenant = load_tenant(ROOT / "tenants" / "atlas")
    assert {table.source_table for table in tenant.tables} == set(atlas.TABLES)
    for table in tenant.tables:
        columns = atlas_rows.COLUMNS[table.source_table]
        assert {*table.primary_key, *(table.columns or ())} <= set(columns), table.name
        assert table.mode == "full_refresh"
    participants = tenant.table("participants")
    assert participants is not None and participants.columns is not None and "Remark" not in participants.columns
