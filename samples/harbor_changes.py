"""Business that goes on in the Harbor sample: small transactions, every second one of the tenant's own customer.

Kinds of insert take turns (a matter with its seats and postings, a posting, a seat, a line in the diary), so do kinds
of update (state of a matter, admission of a seat, name of a party). The vendor's application deletes nothing but lines
of the diary. Which rows are hit follows from the seed and the rows there; times are now, in the form each table has.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from itertools import cycle, islice

import psycopg

from mozart.errors import TerminalError
from samples.harbor_rows import CUSTOMER, NOT_CLOSED, OTHERS
from samples.harbor_schema import ZONE

_NAMES = ("Bjørn Ødegård", "Ελένη Παππά", "李小龍", "O'Hara & Søn", "Łucja 🚢")
_LOCAL_NOW = f"now() AT TIME ZONE '{ZONE}'"


@dataclass(frozen=True)
class ChangePlan:
    """How many business transactions of each sort to run; `seed` decides which rows they hit."""

    seed: int
    inserts: int
    updates: int
    deletes: int


@dataclass
class _Desk:
    connection: psycopg.Connection
    chance: random.Random
    customer: str = CUSTOMER
    counts: Counter[str] = field(default_factory=Counter[str])

    def execute(self, what: str, statement: str, **values: object) -> None:
        cursor = self.connection.execute(statement.encode(), {"customer": self.customer, **values})
        self.counts[what] += cursor.rowcount

    def choose(self, table: str, key: str) -> int:
        """The key of one of the customer's rows, at or before a random place."""
        query = f"SELECT min({key}), max({key}) FROM desk.{table} WHERE customer_no = %s"
        row = self.connection.execute(query.encode(), (self.customer,)).fetchone()
        if row is None or row[0] is None:
            raise TerminalError(f"the Harbor sample has no row of {self.customer} left in {table}; create it again")
        place = self.chance.randint(int(row[0]), int(row[1]))
        query = f"SELECT max({key}) FROM desk.{table} WHERE customer_no = %s AND {key} <= %s"
        found = self.connection.execute(query.encode(), (self.customer, place)).fetchone()
        return int(found[0]) if found else int(row[0])

    def money(self, most: int) -> Decimal:
        return Decimal(self.chance.randint(1, most * 100)) / 100


def run_changes(connection: psycopg.Connection, plan: ChangePlan) -> dict[str, int]:
    """Run the plan, a transaction a change; returns rows by `table.inserted|updated|deleted`, of all customers."""
    desk = _Desk(connection, random.Random(plan.seed))
    customers = cycle((CUSTOMER, OTHERS[0], CUSTOMER, OTHERS[1], CUSTOMER, OTHERS[2]))
    for change in _changes(plan):
        desk.customer = next(customers)
        with connection.transaction():
            change(desk)
    return dict(sorted(desk.counts.items()))


def _changes(plan: ChangePlan) -> Iterator[Callable[[_Desk], None]]:
    # An odd number of kinds: the customers alternate, and each is to have all of them.
    yield from islice(cycle((_open_matter, _post, _take_seat, _post, _note)), plan.inserts)
    yield from islice(cycle((_change_state, _admit, _rename)), plan.updates)
    yield from islice(cycle((_strike_out,)), plan.deletes)


def _open_matter(desk: _Desk) -> None:
    chance = desk.chance
    desk.execute(
        "matters.inserted",
        "INSERT INTO desk.matters SELECT %(customer)s::text, max(matter_no) + 1, 'HB/NEW/' || max(matter_no) + 1,"
        " %(subject)s, %(kind)s, %(office)s, 10, %(urgency)s, 0, %(claim)s, 'WEB', now(), %(never)s::timestamptz, now()"
        " FROM desk.matters WHERE customer_no = %(customer)s::text",
        subject=f"M/V Nordlys {chance.randint(1, 10**6)} / 新造船",
        kind=chance.choice(("NEWB", "REFI", "ARR ")),
        office=chance.choice(("OSL", "PIR", "SIN")),
        urgency=chance.choice(("A", " ", None)),
        claim=desk.money(100_000),
        never=NOT_CLOSED,
    )
    for _ in range(chance.randint(1, 3)):
        _take_seat(desk)
    for _ in range(chance.randint(0, 2)):
        _post(desk)


def _take_seat(desk: _Desk) -> None:
    desk.execute(
        "seats.inserted",
        "INSERT INTO desk.seats (customer_no, matter_no, party_id, capacity_code, claimed, joined, changed)"
        f" VALUES (%(customer)s, %(matter)s, %(party)s, %(capacity)s, %(claimed)s, {_LOCAL_NOW}, {_LOCAL_NOW})",
        matter=desk.choose("matters", "matter_no"),
        party=desk.choose("parties", "party_id"),
        capacity=desk.chance.choice(("LENDER", "owner", "COUNSEL ")),
        claimed=desk.chance.choice((None, desk.money(10_000))),
    )


def _post(desk: _Desk) -> None:
    desk.execute(
        "ledger.inserted",
        "INSERT INTO desk.ledger (customer_no, matter_no, booked, amount, account)"
        " VALUES (%(customer)s, %(matter)s, %(day)s, %(amount)s, '1500')",
        matter=desk.choose("matters", "matter_no"),
        day=date(2025, 10, 1) + timedelta(days=desk.chance.randint(0, 90)),
        amount=desk.money(5_000) * desk.chance.choice((1, -1)),
    )


def _note(desk: _Desk) -> None:
    desk.execute(
        "diary.inserted",
        "INSERT INTO desk.diary VALUES (%(customer)s, %(matter)s, now(), 'ringte, ingen svarte')",
        matter=desk.choose("matters", "matter_no"),
    )


def _change_state(desk: _Desk) -> None:
    state = desk.chance.choice((10, 20, 30, 90))
    desk.execute(
        "matters.updated",
        "UPDATE desk.matters SET state_no = %(state)s, changed = now(),"
        " closed = CASE WHEN %(state)s = 90 THEN greatest(now(), opened) ELSE %(never)s::timestamptz END"
        " WHERE customer_no = %(customer)s AND matter_no = %(matter)s",
        state=state,
        never=NOT_CLOSED,
        matter=desk.choose("matters", "matter_no"),
    )


def _admit(desk: _Desk) -> None:
    desk.execute(
        "seats.updated",
        f"UPDATE desk.seats SET admitted = {_LOCAL_NOW}, changed = {_LOCAL_NOW} WHERE seat_id = %(seat)s",
        seat=desk.choose("seats", "seat_id"),
    )


def _rename(desk: _Desk) -> None:
    desk.execute(
        "parties.updated",
        "UPDATE desk.parties SET display_name = %(name)s, changed = now() WHERE party_id = %(party)s",
        name=desk.chance.choice(_NAMES),
        party=desk.choose("parties", "party_id"),
    )


def _strike_out(desk: _Desk) -> None:
    desk.execute(
        "diary.deleted",
        "DELETE FROM desk.diary WHERE ctid = (SELECT ctid FROM desk.diary WHERE client_no = %(customer)s LIMIT 1)",
    )
