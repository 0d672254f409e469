"""Three tenants, three sources that have nothing in common, one set of marts: the same tables, and the right rows.

Each mart is compared, row by row, with the same question asked of its source by SQL that has nothing of the models:
subqueries where they join, the source's own functions where they use macros. For atlas Python makes money and moments
of what SQLite answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml

from mozart.tenancy.product_schema import load_product_schema
from tests.integration.samples.test_acme_models import QUESTIONS as ACME
from tests.integration.tenants.conftest import CHECKOUT, Rows, SampleTenant

MARTS = ("mart_case", "mart_cashflow_monthly", "mart_stakeholder")

_OURS = "customer_no = 'H-1042'"

HARBOR = {
    "mart_case": f"""
        SELECT m.matter_no, file_ref::text, btrim(subject),
            coalesce((ARRAY['open', 'in_review', 'on_hold'])[state_no / 10], 'closed'),
            btrim(kind_code),
            (SELECT caption::text FROM desk.matter_kinds k WHERE k.{_OURS} AND k.kind_code = m.kind_code),
            office_code::text,
            (SELECT btrim(title) FROM desk.offices o WHERE o.{_OURS} AND o.office_code = m.office_code),
            (SELECT upper(ctry) FROM desk.offices o WHERE o.{_OURS} AND o.office_code = m.office_code),
            '{{"WEB": "web", "TEL": "phone", "MAIL": "e-mail", "PART": "partner"}}'::jsonb ->> intake,
            array_position(ARRAY['E', 'D', 'C', 'B', 'A'], urgency::text), secrecy IN (1, 2),
            coalesce(claim, 0)::numeric(18,2), opened, to_char(opened AT TIME ZONE 'UTC', 'YYYYMM')::int,
            CASE WHEN state_no = 90 THEN closed END,
            CASE WHEN state_no = 90 THEN (closed AT TIME ZONE 'UTC')::date - (opened AT TIME ZONE 'UTC')::date END,
            (SELECT count(*) FROM desk.seats s WHERE s.{_OURS} AND s.matter_no = m.matter_no),
            (SELECT count(DISTINCT party_id) FROM desk.seats s WHERE s.{_OURS} AND s.matter_no = m.matter_no),
            (SELECT count(*) FROM desk.seats s WHERE s.{_OURS} AND s.matter_no = m.matter_no AND admitted IS NOT NULL),
            (SELECT count(*) FROM desk.ledger l WHERE l.{_OURS} AND l.matter_no = m.matter_no),
            (SELECT coalesce(sum(greatest(amount, 0)), 0) FROM desk.ledger l
                WHERE l.{_OURS} AND l.matter_no = m.matter_no),
            (SELECT coalesce(-sum(least(amount, 0)), 0) FROM desk.ledger l
                WHERE l.{_OURS} AND l.matter_no = m.matter_no),
            (SELECT coalesce(sum(amount), 0) FROM desk.ledger l WHERE l.{_OURS} AND l.matter_no = m.matter_no),
            (SELECT booked FROM desk.ledger l WHERE l.{_OURS} AND l.matter_no = m.matter_no
                ORDER BY booked DESC LIMIT 1),
            changed
        FROM desk.matters m WHERE m.{_OURS}""",
    "mart_cashflow_monthly": f"""
        SELECT btrim(kind_code),
            (SELECT caption::text FROM desk.matter_kinds k WHERE k.{_OURS} AND k.kind_code = m.kind_code),
            office_code::text,
            (SELECT btrim(title) FROM desk.offices o WHERE o.{_OURS} AND o.office_code = m.office_code),
            to_char(min(booked), 'YYYYMM')::int, to_char(min(booked), 'YYYY-MM-01')::date,
            count(DISTINCT m.matter_no), count(*), coalesce(sum(amount) FILTER (WHERE amount > 0), 0),
            coalesce(sum(abs(amount)) FILTER (WHERE amount < 0), 0), sum(amount)
        FROM desk.matters m JOIN desk.ledger l ON l.{_OURS} AND l.matter_no = m.matter_no
        WHERE m.{_OURS} GROUP BY kind_code, office_code, to_char(booked, 'YYYY-MM')""",
    "mart_stakeholder": f"""
        SELECT p.party_id, btrim(display_name), nullif(lower(mail), ''),
            CASE ctry WHEN 'xx' THEN NULL ELSE upper(ctry) END, legal_form IN ('AS', 'AB', 'GmbH', 'Ltd'),
            (SELECT string_agg(role, ', ' ORDER BY role COLLATE "C")
                FROM (VALUES ('claimant', 'A'), ('respondent', 'B'), ('officer', 'O'), ('adviser', 'C')) r (role, side)
                WHERE EXISTS (SELECT FROM desk.seats s JOIN desk.capacities c ON c.{_OURS}
                    AND lower(c.capacity_code) = lower(btrim(s.capacity_code))
                    WHERE s.party_id = p.party_id AND c.side = r.side)),
            count(*), count(DISTINCT s.matter_no), count(admitted), coalesce(sum(claimed), 0),
            (array_agg(s.matter_no ORDER BY joined AT TIME ZONE 'Europe/Oslo' DESC, seat_id DESC))[1],
            min(joined AT TIME ZONE 'Europe/Oslo'), max(joined AT TIME ZONE 'Europe/Oslo'),
            min(admitted AT TIME ZONE 'Europe/Oslo')
        FROM desk.parties p JOIN desk.seats s ON s.party_id = p.party_id
        WHERE p.{_OURS} AND s.{_OURS} GROUP BY p.party_id""",
}
ATLAS = {
    "mart_case": """
        SELECT d.DossierId, DossierRef, trim(Heading),
            (SELECT column2 FROM (VALUES ('offen', 'open'), ('prüfung', 'in_review'), ('ruht', 'on_hold'),
                ('erledigt', 'closed')) WHERE column1 = Phase),
            ifnull(KindCode, 'UNKNOWN'),
            (SELECT KindName FROM Dossier k WHERE k.KindCode = d.KindCode ORDER BY DossierId DESC LIMIT 1),
            OfficeCode, OfficeName, OfficeLand,
            (SELECT column2 FROM (VALUES ('Netz', 'web'), ('Telefon', 'phone'), ('Post', 'mail'))
                WHERE column1 = ReceivedBy),
            iif(Priority > 0, Priority, NULL), IsLocked, ClaimCents, OpenedAt,
            strftime('%Y%m', OpenedAt, 'unixepoch'), iif(Phase = 'erledigt', ClosedAt, NULL),
            iif(Phase = 'erledigt',
                julianday(date(ClosedAt, 'unixepoch')) - julianday(date(OpenedAt, 'unixepoch')), NULL),
            (SELECT count(*) FROM Participant p WHERE p.DossierId = d.DossierId),
            (SELECT count(DISTINCT PersonNo) FROM Participant p WHERE p.DossierId = d.DossierId),
            (SELECT count(*) FROM Participant p WHERE p.DossierId = d.DossierId AND AdmittedAt IS NOT NULL),
            (SELECT count(*) FROM Booking b WHERE b.DossierId = d.DossierId),
            (SELECT ifnull(sum(CentsIn), 0) FROM Booking b WHERE b.DossierId = d.DossierId),
            (SELECT ifnull(sum(CentsOut), 0) FROM Booking b WHERE b.DossierId = d.DossierId),
            (SELECT ifnull(sum(CentsIn - CentsOut), 0) FROM Booking b WHERE b.DossierId = d.DossierId),
            (SELECT max(BookingDay) FROM Booking b WHERE b.DossierId = d.DossierId),
            strftime('%s', ModifiedOn)
        FROM Dossier d""",
    "mart_cashflow_monthly": """
        SELECT ifnull(KindCode, 'UNKNOWN'),
            (SELECT KindName FROM Dossier k WHERE k.KindCode = d.KindCode ORDER BY DossierId DESC LIMIT 1),
            OfficeCode, OfficeName, replace(substr(BookingDay, 1, 7), '-', ''), substr(BookingDay, 1, 7) || '-01',
            count(DISTINCT d.DossierId), count(*), sum(CentsIn), sum(CentsOut), sum(CentsIn) - sum(CentsOut)
        FROM Booking JOIN Dossier d USING (DossierId)
        GROUP BY ifnull(KindCode, 'UNKNOWN'), OfficeCode, substr(BookingDay, 1, 7)""",
    "mart_stakeholder": """
        SELECT PersonNo, trim(PersonName), nullif(lower(PersonMail), ''), nullif(upper(PersonLand), ''), IsCompany,
            (SELECT group_concat(RoleSide, ', ') FROM (SELECT DISTINCT RoleSide FROM Participant r
                WHERE r.PersonNo = p.PersonNo ORDER BY RoleSide)),
            (SELECT count(*) FROM Participant x WHERE x.PersonNo = p.PersonNo),
            (SELECT count(DISTINCT DossierId) FROM Participant x WHERE x.PersonNo = p.PersonNo),
            (SELECT count(AdmittedAt) FROM Participant x WHERE x.PersonNo = p.PersonNo),
            (SELECT ifnull(sum(ClaimCents), 0) FROM Participant x WHERE x.PersonNo = p.PersonNo), DossierId,
            (SELECT strftime('%s', min(RegisteredOn)) FROM Participant x WHERE x.PersonNo = p.PersonNo),
            (SELECT strftime('%s', max(RegisteredOn)) FROM Participant x WHERE x.PersonNo = p.PersonNo),
            (SELECT min(AdmittedAt) FROM Participant x WHERE x.PersonNo = p.PersonNo)
        FROM Participant p WHERE ParticipantId = (SELECT ParticipantId FROM Participant x WHERE x.PersonNo = p.PersonNo
            ORDER BY RegisteredOn DESC, ParticipantId DESC LIMIT 1)""",
}

QUESTIONS: Mapping[str, Mapping[str, str]] = {"acme": ACME, "harbor": HARBOR, "atlas": ATLAS}

_FROM_SQLITE: Mapping[str, Callable[[Any], Any]] = {
    "boolean": bool,
    "int": int,
    "long": int,
    "date": date.fromisoformat,
    "timestamptz": lambda seconds: datetime.fromtimestamp(int(seconds), UTC),
    "decimal(18, 2)": lambda cents: Decimal(cents).scaleb(-2),
    "string": str,
}


def expected_rows(name: str, mart: str, types: Sequence[str], ask: Callable[[str], Rows]) -> Rows:
    """What the source of tenant `name` answers, as values of the mart's `types`."""
    rows = ask(QUESTIONS[name][mart])
    if name != "atlas":
        return rows
    return [
        tuple(None if value is None else _FROM_SQLITE[kind](value) for kind, value in zip(types, row, strict=True))
        for row in rows
    ]


def test_every_table_is_loaded_and_every_model_published(fleet: Mapping[str, SampleTenant]) -> None:
    for tenant in fleet.values():
        assert {model.status for model in tenant.models} == {"published"}, tenant.models
        assert len(tenant.models) == len(list((tenant.root / "tenants" / tenant.name / "models").rglob("*.sql")))


@pytest.mark.parametrize("mart", MARTS)
def test_the_mart_is_the_same_table_for_every_tenant(fleet: Mapping[str, SampleTenant], mart: str) -> None:
    schemas = {name: tenant.schema(mart) for name, tenant in fleet.items()}
    assert schemas["harbor"] == schemas["acme"]
    assert schemas["atlas"] == schemas["acme"]
    product = next(each for each in load_product_schema(CHECKOUT).marts if each.name == mart)
    assert [name for name, _, _ in schemas["acme"]] == [column.name for column in product.columns]


@pytest.mark.parametrize("mart", MARTS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_the_mart_says_what_its_source_says(fleet: Mapping[str, SampleTenant], name: str, mart: str) -> None:
    tenant = fleet[name]
    types = [kind for _, kind, _ in tenant.schema(mart)]
    published, expected = Counter(tenant.mart(mart)), Counter(expected_rows(name, mart, types, tenant.ask))
    assert published - expected == Counter(), "rows that the source does not know"
    assert expected - published == Counter(), "rows that the mart misses"
    assert published.total() > 300


def test_the_types_that_sources_declare_are_those_of_raw(fleet: Mapping[str, SampleTenant]) -> None:
    """`mozart validate` builds the models on empty tables of the declared types."""
    for tenant in fleet.values():
        file = tenant.root / "tenants" / tenant.name / "models" / "_sources.yml"
        (source,) = yaml.safe_load(file.read_text(encoding="utf-8"))["sources"]
        for table in source["tables"]:
            declared = [(column["name"], column["data_type"].upper()) for column in table["columns"]]
            assert declared == tenant.describe_raw(table["name"]), f"{tenant.name}.{table['name']}"


def test_incremental_tables_of_the_second_load_read_what_changed_and_no_more(
    fleet: Mapping[str, SampleTenant],
) -> None:
    """A table whose incremental column is a number has no clock to trust: its second load is in full as well."""
    for tenant in (fleet["acme"], fleet["harbor"]):
        first, second = tenant.loads[0], tenant.loads[1]
        for table in tenant.tenant.tables:
            if table.name == "ledger":
                assert table.incremental_column == "posting_no"
                assert second[table.name].mode == "full_refresh"
            elif table.mode == "incremental":
                load = second[table.name]
                assert load.mode == "incremental", load
                assert load.rows_read < first[table.name].rows_read / 5, load


def test_harbors_raw_tables_hold_one_customer_and_atlass_lose_what_was_deleted(
    fleet: Mapping[str, SampleTenant],
) -> None:
    harbor, atlas = fleet["harbor"], fleet["atlas"]
    for table in harbor.tenant.tables:
        column = "client_no" if table.name == "diary" else "customer_no"
        source = f'desk."{table.source_table}"'
        assert set(harbor.raw(table.name, column)) == {("H-1042",)}, table.name
        (counts,) = harbor.ask(f"SELECT count(*) FILTER (WHERE {column} = 'H-1042'), count(*) FROM {source}")
        assert len(harbor.raw(table.name)) == counts[0] < counts[1], table.name
    for table in atlas.tenant.tables:
        assert [(len(atlas.raw(table.name)),)] == atlas.ask(f"SELECT count(*) FROM {table.source_table}")
    assert len(harbor.raw("diary")) > len(set(harbor.raw("diary"))), "equal lines stay as many as they are"
