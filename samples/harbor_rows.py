"""The rows of the Harbor sample, made by the server as Axiom Core's are: every value a hash of its row's number.

Four customers share the tables; the tenant's has half of everything. The others are named so that a filter that trims,
folds case or matches a beginning would read their rows as well. Numbers of matters are the same for every customer.
"""

# ruff: noqa: RUF001 - letters of many scripts are the point of this data

from __future__ import annotations

from dataclasses import dataclass

from mozart.sql import quote_literal
from samples.axiom_rows import pick
from samples.harbor_schema import ZONE

CUSTOMER = "H-1042"
"""The customer whose rows tenant harbor reads."""
OTHERS = ("H-104", "h-1042", "H-1042 ")
CUSTOMERS = (CUSTOMER, *OTHERS)

NOT_CLOSED = "1900-01-01 00:00:00+00"


@dataclass(frozen=True)
class Sizes:
    """Row counts of the tenant's customer; the three others have a third each."""

    matters: int
    parties: int
    seats: int
    postings: int
    notes: int

    @classmethod
    def of_scale(cls, scale: float) -> Sizes:
        matters = max(12, round(12_000 * scale))
        return cls(
            matters=matters,
            parties=matters * 3 // 4,
            seats=matters * 5 // 2,
            postings=matters * 5,
            notes=matters // 2,
        )


def fill_statements(sizes: Sizes) -> tuple[str, ...]:
    """A temporary table of the customers, then one INSERT a table."""
    return (_customers(sizes), _KINDS, _STATES, _OFFICES, _CAPACITIES, _MATTERS, _PARTIES, _SEATS, _LEDGER, _DIARY)


def _customers(sizes: Sizes) -> str:
    """`first_*` is how many rows the customers before have: numbers of rows are unique over all customers."""
    counts = (sizes.matters, sizes.parties, sizes.seats, sizes.postings, sizes.notes)
    rows: list[str] = []
    first = [0] * len(counts)
    for name in CUSTOMERS:
        own = [count if name == CUSTOMER else max(4, count // len(OTHERS)) for count in counts]
        rows.append(f"({quote_literal(name)}, {', '.join(map(str, [*first, *own]))})")
        first = [before + count for before, count in zip(first, own, strict=True)]
    columns = ("matters", "parties", "seats", "postings", "notes")
    names = [*(f"first_{column}" for column in columns), *columns]
    declared = ", ".join(f"{name} bigint" for name in names)
    return f"""
CREATE TEMP TABLE customer (customer_no text, {declared}) ON COMMIT DROP;
INSERT INTO customer VALUES {", ".join(rows)}
"""


_KINDS = """
INSERT INTO desk.matter_kinds
SELECT customer_no, code, name, CASE WHEN code = 'SCRP' THEN date '2023-06-30' END
FROM customer, (VALUES ('NEWB', 'Newbuilding loan'), ('REFI', 'Refinancing'), ('LEAS', 'Sale & leaseback'),
    ('ARR ', 'Arrest – Beslag'), ('SALV', 'Bergelønn'), ('SCRP', 'Scrapping')) AS t(code, name)
"""

_STATES = """
INSERT INTO desk.matter_states
SELECT customer_no, n, token, meaning
FROM customer, (VALUES (10, 'OPEN', 'Åpen'), (20, 'REVIEW', 'Til vurdering'), (30, 'HOLD', 'På vent'),
    (90, 'DONE', 'Avsluttet')) AS t(n, token, meaning)
"""

_OFFICES = """
INSERT INTO desk.offices
SELECT customer_no, code, title, ctry
FROM customer, (VALUES ('OSL', 'Oslo', 'no'), ('BGO', 'Bergen ', 'no'), ('PIR', 'Πειραιάς', 'gr'),
    ('HAM', 'Hamburg', 'de'), ('SIN', 'Singapore 新加坡', 'sg'), ('LON', 'London', 'gb'), ('MUM', 'मुंबई', 'in')
    ) AS t(code, title, ctry)
"""

_CAPACITIES = """
INSERT INTO desk.capacities
SELECT customer_no, code, label, side
FROM customer, (VALUES ('LENDER', 'Långiver', 'A'), ('OWNER', 'Reder', 'B'), ('INSURER', 'P&I club', 'A'),
    ('GUARANTOR', 'Garantist', 'B'), ('TRUSTEE', 'Trustee', 'O'), ('COUNSEL', 'Advokat', 'C')) AS t(code, label, side)
"""

_MATTERS = f"""
INSERT INTO desk.matters
SELECT customer_no, m, 'HB/' || to_char(opened AT TIME ZONE 'UTC', 'YYYY') || '/' || lpad(m::text, 6, '0'),
    CASE WHEN n % 17 = 0 THEN ' ' ELSE '' END || {pick("subject", "pg_temp.h(n, 21)")} || ' M/V ' || m,
    (ARRAY['NEWB', 'REFI', 'LEAS', 'ARR ', 'SALV', 'SCRP'])[1 + floor(6 * pg_temp.u(n, 22) * pg_temp.u(n, 23))::int],
    (ARRAY['OSL', 'BGO', 'PIR', 'HAM', 'SIN', 'LON', 'MUM'])[1 + pg_temp.h(n, 24) % 7],
    state_no, (ARRAY['A', 'B', 'C', 'D', 'E', ' ', NULL])[1 + pg_temp.h(n, 25) % 7], pg_temp.h(n, 26) % 12 / 10,
    CASE WHEN pg_temp.h(n, 27) % 9 <> 0 THEN pg_temp.money(n, 28, 50000000) END,
    (ARRAY['WEB', 'TEL', 'MAIL', 'PART', ''])[1 + pg_temp.h(n, 30) % 5], opened,
    CASE WHEN state_no = 90 THEN pg_temp.later(opened, 250, n, 31) ELSE '{NOT_CLOSED}'::timestamptz END,
    pg_temp.later(opened, 300, n, 31)
FROM (SELECT customer_no, m, n, pg_temp.opened(n) AS opened,
        (ARRAY[10, 10, 10, 10, 20, 20, 30, 90, 90, 90])[1 + pg_temp.h(n, 20) % 10]::smallint AS state_no
    FROM (SELECT customer_no, m, first_matters + m AS n FROM customer, generate_series(1, matters) m) numbered) dated
"""

_PARTIES = f"""
INSERT INTO desk.parties
SELECT n, customer_no,
    CASE WHEN n % 37 = 0 THEN '  ' ELSE '' END || CASE legal_form
        WHEN 'P' THEN {pick("given", "pg_temp.h(n, 42)")} || ' ' || {pick("family", "pg_temp.h(n, 43)")}
        ELSE {pick("firm", "pg_temp.h(n, 44)")} || ' ' || n END,
    legal_form, CASE WHEN pg_temp.h(n, 45) % 8 <> 0 THEN 'Desk' || n || '@Ship.Example' ELSE '' END,
    CASE WHEN pg_temp.h(n, 46) % 9 <> 0 THEN lower({pick("country", "pg_temp.h(n, 47)")}) ELSE 'xx' END,
    CASE WHEN legal_form = 'P' THEN 'N' || (pg_temp.h(n, 48) % 100000000) END, pg_temp.opened(n)
FROM (SELECT customer_no, n, (ARRAY['P', 'P', 'P', 'AS', 'AB', 'GmbH', 'Ltd'])[1 + pg_temp.h(n, 41) % 7] AS legal_form
    FROM (SELECT customer_no, first_parties + p AS n FROM customer, generate_series(1, parties) p) numbered) shaped
"""

# Every 1999th joins in the hour that Oslo's clocks have twice, every 2003rd in the one that they skip.
_SEATS = f"""
INSERT INTO desk.seats
SELECT n, customer_no, m, party_id,
    CASE WHEN n % 13 = 0 THEN lower(capacity) WHEN n % 19 = 0 THEN capacity || ' ' ELSE capacity END,
    CASE WHEN pg_temp.h(n, 63) % 3 <> 0 THEN pg_temp.money(n, 64, 1000000) END, joined,
    CASE WHEN pg_temp.h(n, 66) % 10 < 6 THEN joined + (pg_temp.h(n, 67) % 7776000) * interval '1 second' END,
    joined + (pg_temp.h(n, 68) % 12960000) * interval '1 second'
FROM (SELECT customer_no, n, 1 + pg_temp.h(n, 60) % matters AS m,
        first_parties + 1 + floor(parties * pg_temp.u(n, 61) * (1 + pg_temp.u(n, 61)) / 2)::bigint AS party_id,
        (ARRAY['LENDER', 'OWNER', 'INSURER', 'GUARANTOR', 'TRUSTEE', 'COUNSEL'])[1 + pg_temp.h(n, 62) % 6] AS capacity,
        CASE WHEN n % 1999 = 0 THEN timestamp '2023-10-29 02:15:00' + (n % 7) * interval '5 min'
            WHEN n % 2003 = 0 THEN timestamp '2023-03-26 02:15:00' + (n % 7) * interval '5 min'
            ELSE pg_temp.later(pg_temp.opened(n), 60, n, 65) AT TIME ZONE '{ZONE}' END AS joined
    FROM (SELECT customer.*, first_seats + s AS n FROM customer, generate_series(1, seats) s) numbered) placed
"""

_LEDGER = f"""
INSERT INTO desk.ledger
SELECT n, customer_no, CASE WHEN pg_temp.h(n, 80) % 150 <> 0 THEN m END,
    (pg_temp.later(pg_temp.opened(n), 250, n, 82) AT TIME ZONE 'UTC')::date,
    CASE WHEN n % 997 = 0 THEN 0
        ELSE pg_temp.money(n, 83, 250000) * (ARRAY[1, 1, 1, -1, -1])[1 + pg_temp.h(n, 85) % 5] END,
    (ARRAY['1500', '2400', '3010', '67  '])[1 + pg_temp.h(n, 86) % 4],
    CASE WHEN pg_temp.h(n, 87) % 3 = 0 THEN {pick("memo", "pg_temp.h(n, 88)")} END
FROM (SELECT customer_no, n, 1 + floor(matters * pg_temp.u(n, 81) * (1 + pg_temp.u(n, 81)) / 2)::bigint AS m
    FROM (SELECT customer.*, first_postings + p AS n FROM customer, generate_series(1, postings) p) numbered) placed
"""

# Two of three lines stand there twice: nothing tells them apart.
_DIARY = f"""
INSERT INTO desk.diary
SELECT customer_no, 1 + pg_temp.h(n, 90) % matters, pg_temp.later(pg_temp.opened(n), 300, n, 91),
    {pick("memo", "pg_temp.h(n, 92)")}
FROM (SELECT customer.*, first_notes + (k - 1) / 3 * 3 + (k - 1) % 3 / 2 AS n
    FROM customer, generate_series(1, notes) k) numbered
"""
