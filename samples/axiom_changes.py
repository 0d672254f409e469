"""Business that goes on in Axiom Core: small transactions, each with the events it would publish.

Kinds of insert take turns (a case with its parties and first payments, a payment, a stakeholder, a performance
record), so do kinds of update (status, admission, correction) and of deletion (three cancelled payments to one case
withdrawn with everything that hangs on it). Which rows are hit follows from the seed and the rows there; times do
not, for they are now(). Rows are locked before they are changed and cases before their children, so that any number
of these writers run side by side without deadlocks.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from itertools import cycle, islice

import psycopg

from mozart.errors import TerminalError

_NAMES = ("Renée Ångström", "Γιώργος Νικολάου", "Наталія Коваль", "陳美玲", "ليلى حداد", "Seán O'Neill 🎻")
_STATUSES = ("open", "in_review", "on_hold", "closed")
_CHILDREN = ("case_user_roles", "cash_flow_entries", "assets", "performance_records", "stakeholders")


@dataclass(frozen=True)
class ChangePlan:
    """How many business transactions of each sort to run; `seed` decides which rows they hit."""

    seed: int
    inserts: int
    updates: int
    deletes: int


@dataclass
class _Business:
    connection: psycopg.Connection
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter[str])

    def insert(self, table: str, statement: bytes, values: dict[str, object]) -> int:
        """Run an INSERT … RETURNING of one bigint; returns it."""
        row = self.connection.execute(statement, values).fetchone()
        self.counts[f"{table}.inserted"] += 1
        return int(row[0]) if row else 0

    def emit(self, topic: str, **payload: object) -> None:
        self.connection.execute(
            "INSERT INTO event_outbox (topic, payload) VALUES (%s, %s::jsonb)", (topic, json.dumps(payload))
        )
        self.counts["event_outbox.inserted"] += 1

    def choose(self, table: str, key: str, *, where: str = "true", lock: str = "FOR UPDATE SKIP LOCKED") -> int:
        """The key of a locked row at or after a random place, or of the first row."""
        newest = self.connection.execute(f"SELECT max({key}) FROM {table}".encode()).fetchone()
        if newest is None or newest[0] is None:
            raise TerminalError(f"Axiom Core has no row left in {table}; create the sample again")
        start = self.chance.randint(1, int(newest[0]))
        for least in (start, 0):
            query = f"SELECT {key} FROM {table} WHERE {key} >= %s AND {where} ORDER BY {key} LIMIT 1 {lock}"
            row = self.connection.execute(query.encode(), (least,)).fetchone()
            if row is not None:
                return int(row[0])
        raise TerminalError(f"Axiom Core has no row with {where} in {table} that nobody else holds")

    def choose_case(self) -> int:
        return self.choose("cases", "case_id", lock="FOR KEY SHARE SKIP LOCKED")

    def money(self, most: int) -> Decimal:
        return Decimal(self.chance.randint(1, most * 100)) / 100


def run_changes(connection: psycopg.Connection, plan: ChangePlan) -> dict[str, int]:
    """Run the plan, a transaction a change; returns rows by `table.inserted|updated|deleted`."""
    business = _Business(connection, random.Random(plan.seed))
    for change in _changes(plan):
        with connection.transaction():
            change(business)
    return dict(sorted(business.counts.items()))


def _changes(plan: ChangePlan) -> Iterator[Callable[[_Business], None]]:
    yield from islice(cycle((_open_case, _pay, _register, _measure)), plan.inserts)
    yield from islice(cycle((_change_status, _admit, _correct)), plan.updates)
    yield from islice(cycle((_cancel_payment, _cancel_payment, _cancel_payment, _withdraw_case)), plan.deletes)


def _open_case(business: _Business) -> None:
    chance = business.chance
    case_id = business.insert(
        "cases",
        b"INSERT INTO cases (reference, case_type_id, org_id, title, priority, amount, attributes, tags)"
        b" VALUES ('AX-' || substr(gen_random_uuid()::text, 1, 13), %(type)s, %(org)s, %(title)s, %(priority)s,"
        b" %(amount)s, '{\"channel\": \"web\"}', '{neu}') RETURNING case_id",
        {
            "type": chance.randint(1, 10),
            "org": chance.randint(1, 50),
            "title": f"Fall {chance.randint(1, 10**6)} / 新規",
            "priority": chance.choice((None, 1, 3)),
            "amount": business.money(100_000),
        },
    )
    business.emit("case_created", case_id=case_id)
    business.insert(
        "case_user_roles",
        b"INSERT INTO case_user_roles (case_id, user_id, role) VALUES (%(case)s, %(user)s, 'owner') RETURNING user_id",
        {"case": case_id, "user": chance.randint(1, 1000)},
    )
    for _ in range(chance.randint(1, 3)):
        _add_stakeholder(business, case_id)
    for _ in range(chance.randint(0, 2)):
        _add_payment(business, case_id)


def _pay(business: _Business) -> None:
    _add_payment(business, business.choose_case())


def _register(business: _Business) -> None:
    _add_stakeholder(business, business.choose_case())


def _measure(business: _Business) -> None:
    case_id = business.choose_case()
    record_id = business.insert(
        "performance_records",
        b"INSERT INTO performance_records (case_id, metric, period_start, score)"
        b" VALUES (%(case)s, 'service_quality', %(month)s, %(score)s) RETURNING record_id",
        {"case": case_id, "month": date(2026, 1, 1), "score": business.money(100)},
    )
    business.emit("performance_recorded", case_id=case_id, record_id=record_id)


def _add_stakeholder(business: _Business, case_id: int) -> None:
    chance = business.chance
    stakeholder_id = business.insert(
        "stakeholders",
        b"INSERT INTO stakeholders (case_id, stk_type_id, party_no, is_organisation, name, country)"
        b" VALUES (%(case)s, %(type)s, %(party)s, false, %(name)s, %(country)s) RETURNING stakeholder_id",
        {
            "case": case_id,
            "type": chance.randint(1, 6),
            "party": chance.randint(10**9, 2 * 10**9),
            "name": chance.choice(_NAMES),
            "country": chance.choice(("NO", "IE", None)),
        },
    )
    business.emit("stakeholder_registered", case_id=case_id, stakeholder_id=stakeholder_id)


def _add_payment(business: _Business, case_id: int) -> None:
    chance = business.chance
    direction, category = chance.choice((("in", "repayment"), ("out", "fee")))
    entry_id = business.insert(
        "cash_flow_entries",
        b"INSERT INTO cash_flow_entries (case_id, flow_type, category, amount, entry_date)"
        b" VALUES (%(case)s, %(direction)s, %(category)s, %(amount)s, %(day)s) RETURNING entry_id",
        {
            "case": case_id,
            "direction": direction,
            "category": category,
            "amount": business.money(5_000),
            "day": date(2025, 10, 1) + timedelta(days=chance.randint(0, 90)),
        },
    )
    business.emit("cash_flow_entry_created", case_id=case_id, entry_id=entry_id)


def _change_status(business: _Business) -> None:
    case_id = business.choose("cases", "case_id")
    row = business.connection.execute("SELECT status::text FROM cases WHERE case_id = %s", (case_id,)).fetchone()
    before = str(row[0]) if row else ""
    status = business.chance.choice([name for name in _STATUSES if name != before])
    business.connection.execute(
        "UPDATE cases SET status = %(status)s::case_status,"
        " closed_at = CASE WHEN %(status)s::text = 'closed' THEN now() END WHERE case_id = %(case)s",
        {"status": status, "case": case_id},
    )
    business.counts["cases.updated"] += 1
    business.emit("case_status_changed", case_id=case_id, before=before, after=status)


def _admit(business: _Business) -> None:
    stakeholder_id = business.choose("stakeholders", "stakeholder_id", where="admitted_at IS NULL")
    row = business.connection.execute(
        "UPDATE stakeholders SET admitted_at = now() WHERE stakeholder_id = %s RETURNING case_id", (stakeholder_id,)
    ).fetchone()
    business.counts["stakeholders.updated"] += 1
    business.emit("stakeholder_admitted", case_id=row[0] if row else None, stakeholder_id=stakeholder_id)


def _correct(business: _Business) -> None:
    entry_id = business.choose("cash_flow_entries", "entry_id")
    business.connection.execute(
        "UPDATE cash_flow_entries SET amount = amount + %s, is_final = true WHERE entry_id = %s",
        (business.money(10), entry_id),
    )
    business.counts["cash_flow_entries.updated"] += 1


def _cancel_payment(business: _Business) -> None:
    entry_id = business.choose("cash_flow_entries", "entry_id")
    business.connection.execute("DELETE FROM cash_flow_entries WHERE entry_id = %s", (entry_id,))
    business.counts["cash_flow_entries.deleted"] += 1


def _withdraw_case(business: _Business) -> None:
    case_id = business.choose("cases", "case_id")
    for table in (*_CHILDREN, "cases"):
        cursor = business.connection.execute(f"DELETE FROM {table} WHERE case_id = %s".encode(), (case_id,))
        business.counts[f"{table}.deleted"] += cursor.rowcount
