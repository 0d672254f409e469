"""Atlas, the sample of a small desktop program: one SQLite file, three flat tables, everything written out in each row.

`create` writes the file, `apply_changes` lets business go on, `exists` knows it, `grant_reader` opens it to others.
Columns are named as the program's authors liked it; dates are ISO texts or unix seconds, amounts whole cents, truth is
0 and 1, and kinds, offices and roles stand in every row that mentions them. `atlas_rows` makes the rows.

Pitfalls: the file's folder must exist. The seed and scale stand in the table `Setup`; a file made with other values,
or by another program, is refused, never mixed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mozart.errors import ConfigurationError
from samples.atlas_changes import ChangePlan, run_changes
from samples.atlas_rows import COLUMNS, Sizes, make_rows

__all__ = ["TABLES", "apply_changes", "create", "exists", "grant_reader"]

TABLES = tuple(COLUMNS)

_MARK = "Atlas sample"

_CREATE_TABLES = """
CREATE TABLE Setup (Name TEXT PRIMARY KEY, Value TEXT) WITHOUT ROWID;
CREATE TABLE Dossier (
    DossierId     INTEGER PRIMARY KEY,
    DossierRef    TEXT NOT NULL UNIQUE,
    Heading       TEXT NOT NULL,
    Phase         TEXT NOT NULL,
    KindCode      TEXT,
    KindName      TEXT,
    OfficeCode    TEXT NOT NULL,
    OfficeName    TEXT NOT NULL,
    OfficeLand    TEXT,
    ReceivedBy    TEXT,
    Priority      INTEGER NOT NULL,
    IsLocked      BOOLEAN NOT NULL,
    ClaimCents    INTEGER NOT NULL,
    OpenedAt      INTEGER NOT NULL,
    ClosedAt      INTEGER NOT NULL,
    ModifiedOn    TEXT NOT NULL
);
CREATE TABLE Participant (
    ParticipantId INTEGER PRIMARY KEY,
    DossierId     INTEGER NOT NULL,
    PersonNo      INTEGER NOT NULL,
    PersonName    TEXT NOT NULL,
    PersonMail    TEXT,
    PersonLand    TEXT,
    IsCompany     INTEGER NOT NULL,
    RoleCode      TEXT NOT NULL,
    RoleSide      TEXT NOT NULL,
    ClaimCents    INTEGER,
    RegisteredOn  TEXT NOT NULL,
    AdmittedAt    INTEGER,
    Remark        TEXT
);
CREATE TABLE Booking (
    BookingId     INTEGER PRIMARY KEY,
    DossierId     INTEGER NOT NULL,
    BookingDay    TEXT NOT NULL,
    CentsIn       INTEGER NOT NULL,
    CentsOut      INTEGER NOT NULL,
    IsFinal       BOOLEAN NOT NULL,
    Purpose       TEXT
);
"""


def create(file: Path, *, scale: float = 1.0, seed: int = 5) -> dict[str, int]:
    """Write the sample to `file` and return the rows of each table.

    Scale 1 has 4k dossiers and 20k bookings. The same seed and scale give the same rows. The file appears whole or not
    at all. When it is there with them, only counts. Raises ConfigurationError when it is there with others.
    """
    if not file.exists():
        _write(file, scale=scale, seed=seed)
    found, wanted = _mark(file), _mark_of(scale, seed)
    if found != wanted:
        raise ConfigurationError(
            f"{file} is marked {found or 'as no sample'!r}, not {wanted!r}; use another file or remove it"
        )
    with _opened(file) as database:
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def exists(file: Path) -> bool:
    """Whether `file` is the sample, with any seed and scale."""
    return file.exists() and _mark(file).startswith(_MARK)


def apply_changes(file: Path, *, seed: int, inserts: int, updates: int, deletes: int = 0) -> dict[str, int]:
    """Run that many small business transactions of each sort; see `atlas_changes` for what they do.

    Returns row counts by `table.inserted`, `table.updated`, `table.deleted`.
    """
    with _opened(file) as database:
        return run_changes(database, ChangePlan(seed=seed, inserts=inserts, updates=updates, deletes=deletes))


def grant_reader(file: Path) -> None:
    """Let every user of the machine read the file: a worker need not run as the one who made it."""
    file.chmod(file.stat().st_mode | 0o444)


def _write(file: Path, *, scale: float, seed: int) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    with _opened(partial) as database:
        database.executescript(_CREATE_TABLES)
        for table, rows in make_rows(Sizes.of_scale(scale), seed).items():
            places = ", ".join("?" for _ in COLUMNS[table])
            database.executemany(f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES ({places})", rows)
        database.execute("INSERT INTO Setup VALUES ('mark', ?)", [_mark_of(scale, seed)])
    partial.replace(file)


def _mark_of(scale: float, seed: int) -> str:
    return f"{_MARK}: scale={float(scale)} seed={int(seed)}"


def _mark(file: Path) -> str:
    """What the file says it is; empty when it is not ours."""
    try:
        with _opened(file) as database:
            row = database.execute("SELECT Value FROM Setup WHERE Name = 'mark'").fetchone()
    except sqlite3.DatabaseError:
        return ""
    return str(row[0]) if row else ""


@contextmanager
def _opened(file: Path) -> Generator[sqlite3.Connection]:
    """A connection whose work is committed at the end, or undone by an error; sqlite3's own block leaves it open."""
    connection = sqlite3.connect(file)
    try:
        with connection:
            yield connection
    finally:
        connection.close()
