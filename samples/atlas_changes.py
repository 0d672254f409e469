"""Business that goes on in the Atlas sample: small transactions on the file, one a change.

Kinds of insert take turns (a dossier with a participant, a booking), so do kinds of update (phase of a dossier,
admission of a participant, amount of a booking) and of deletion (a booking, a dossier with all that is its own). Which
rows are hit follows from the seed and the rows there; times are now.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice

from mozart.errors import TerminalError
from samples.atlas_rows import CLOSED, COLUMNS, PHASES, Row, iso, make_dossier


@dataclass(frozen=True)
class ChangePlan:
    """How many business transactions of each sort to run; `seed` decides which rows they hit."""

    seed: int
    inserts: int
    updates: int
    deletes: int


@dataclass
class _Desk:
    database: sqlite3.Connection
    chance: random.Random
    now: int
    counts: Counter[str] = field(default_factory=Counter[str])

    def execute(self, what: str, statement: str, *values: object) -> None:
        self.counts[what] += self.database.execute(statement, values).rowcount

    def insert(self, table: str, row: Row) -> None:
        places = ", ".join("?" for _ in row)
        self.execute(f"{table}.inserted", f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES ({places})", *row)

    def next_number(self, table: str, key: str) -> int:
        return int(self.database.execute(f"SELECT coalesce(max({key}), 0) + 1 FROM {table}").fetchone()[0])

    def choose(self, table: str, key: str) -> int:
        """The key of a row at or before a random place."""
        place = self.chance.randint(1, self.next_number(table, key))
        query = f"SELECT coalesce(max(CASE WHEN {key} <= ? THEN {key} END), min({key})) FROM {table}"
        (found,) = self.database.execute(query, (place,)).fetchone()
        if found is None:
            raise TerminalError(f"the Atlas sample has no row left in {table}; remove the file and create it again")
        return int(found)


def run_changes(database: sqlite3.Connection, plan: ChangePlan) -> dict[str, int]:
    """Run the plan, a transaction a change; returns rows by `table.inserted|updated|deleted`."""
    desk = _Desk(database, random.Random(plan.seed), int(time.time()))
    for change in _changes(plan):
        with database:
            change(desk)
    return dict(sorted(desk.counts.items()))


def _changes(plan: ChangePlan) -> Iterator[Callable[[_Desk], None]]:
    yield from islice(cycle((_open_dossier, _book)), plan.inserts)
    yield from islice(cycle((_change_phase, _admit, _correct)), plan.updates)
    yield from islice(cycle((_cancel, _cancel, _remove_dossier)), plan.deletes)


def _open_dossier(desk: _Desk) -> None:
    number = desk.next_number("Dossier", "DossierId")
    desk.insert("Dossier", make_dossier(desk.chance, number))
    person = desk.choose("Participant", "PersonNo")
    participant = desk.next_number("Participant", "ParticipantId")
    known = ("Neu Zugezogen", "neu@atlas.example", "DE", 0, "gl", "claimant")
    desk.insert("Participant", (participant, number, person, *known, 12_345, iso(desk.now), None, None))


def _book(desk: _Desk) -> None:
    number, dossier = desk.next_number("Booking", "BookingId"), desk.choose("Dossier", "DossierId")
    desk.insert("Booking", (number, dossier, "2025-11-30", desk.chance.randrange(10**6), 0, 0, "neu"))


def _change_phase(desk: _Desk) -> None:
    phase = desk.chance.choice(PHASES)
    statement = (
        "UPDATE Dossier SET Phase = ?, ClosedAt = CASE WHEN ? = ? THEN max(?, OpenedAt) ELSE 0 END, ModifiedOn = ?"
        " WHERE DossierId = ?"
    )
    dossier = desk.choose("Dossier", "DossierId")
    desk.execute("Dossier.updated", statement, phase, phase, CLOSED, desk.now, iso(desk.now), dossier)


def _admit(desk: _Desk) -> None:
    participant = desk.choose("Participant", "ParticipantId")
    statement = "UPDATE Participant SET AdmittedAt = ? WHERE ParticipantId = ?"
    desk.execute("Participant.updated", statement, desk.now, participant)


def _correct(desk: _Desk) -> None:
    booking = desk.choose("Booking", "BookingId")
    statement = (
        "UPDATE Booking SET CentsIn = CentsIn + (CentsOut = 0) * 7, CentsOut = CentsOut + (CentsOut > 0) * 7"
        " WHERE BookingId = ?"
    )
    desk.execute("Booking.updated", statement, booking)


def _cancel(desk: _Desk) -> None:
    desk.execute("Booking.deleted", "DELETE FROM Booking WHERE BookingId = ?", desk.choose("Booking", "BookingId"))


def _remove_dossier(desk: _Desk) -> None:
    dossier = desk.choose("Dossier", "DossierId")
    for table in COLUMNS:
        desk.execute(f"{table}.deleted", f"DELETE FROM {table} WHERE DossierId = ?", dossier)
