"""The rows of Axiom Core, made by the server: one INSERT … SELECT a table, every value a hash of its row number.

Does not use random(): `h(n, salt)` is hashint8extended, so the same seed and scale give the same rows, in the same
order, on every PostgreSQL of one major version. Times are fixed (2022 to 2025) and made of seconds, never of days,
because adding days to a timestamptz depends on the session's zone. Floating point uses + and * only: pow() and
friends differ between C libraries.
"""

# ruff: noqa: RUF001 - letters of many scripts are the point of this data

from __future__ import annotations

from dataclasses import dataclass

from mozart.sql import quote_literal

_WORDS = {
    # Given names by script, so that a pipeline which mangles one of them is seen.
    "given": (
        "Zoë|José|Łukasz|Søren|Jürgen|Aoife|Ηλέκτρα|Νίκος|Ольга|Юрій|יעל|نور|"
        "फ़रहान|अनन्या|สมชาย|小明|美咲|지우|Nguyễn|Ọlá"
    ),
    "family": (
        "Müller|García Ñuñez|Kowalczyk|Ødegård|O'Brien|Παπαδόπουλος|Иванова|Шевченко|כהן|الحسن|खान|ศรีสุข|"
        "王|渡辺|김|Trần|D’Angelo|Smith-Jones|Çelik|Ó Súilleabháin"
    ),
    "firm": (
        "Østlund & Sønner A/S|Crédit Léman|Ακρόπολις ΑΕ|Ромашка ООО|مصرف الشرق|東京信託|"
        "한빛물산|Zażółć Sp. z o.o.|GreenLeaf 🌿|Núñez Hermanos"
    ),
    "country": "DE|FR|ES|PL|NO|GR|UA|IL|EG|IN|TH|CN|JP|KR|VN|NG|IE|TR",
    "region": "EMEA|APAC|Américas|Nórdicos",
    "subject": (
        "Bridge loan|Réclamation|Облигации|Wind farm Ø12|倉庫契約|Trade credit|"
        "Claim “A”|Hotel Ångström|Fleet 🚚|Leasing"
    ),
    "tag": "urgent|übertragen|cross-border|litigation|審査|green|legacy|kyc",
    "channel": "web|phone|e-mail|partner",
    "metric": "recovery_rate|days_to_decision|collection_rate|service_quality",
    "inflow": "repayment|interest|disposal|contribution",
    "outflow": "fee|drawdown|tax|distribution",
    "memo": (
        'Rate 3/12|Überweisung|Оплата по счёту|支払い|rien à signaler|✅ checked|see "annex"; §4|line one\nline two'
    ),
    "asset_class": "RE |VEH|IP |EQP|FIN",
    "user_role": "owner|reviewer|viewer|approver",
}
_EPOCH = "timestamptz '2022-01-01 00:00:00+00'"
_THREE_YEARS_S = 94_694_400
_DAY_S = 86_400


@dataclass(frozen=True)
class Sizes:
    """Row counts of the generated tables; `of_scale(1)` is about 40k cases and 200k cash flows."""

    cases: int
    stakeholders: int
    parties: int
    performance_records: int
    assets: int
    cash_flow_entries: int
    organisations: int = 50

    @classmethod
    def of_scale(cls, scale: float) -> Sizes:
        cases = max(10, round(40_000 * scale))
        return cls(
            cases=cases,
            stakeholders=cases * 3,
            parties=max(5, cases * 6 // 10),
            performance_records=cases,
            assets=cases // 2,
            cash_flow_entries=cases * 5,
        )


def helper_functions(seed: int) -> str:
    """Hash helpers in pg_temp, inlined by the planner; they vanish with the session."""
    return f"""
CREATE FUNCTION pg_temp.h(n bigint, salt int) RETURNS bigint LANGUAGE sql IMMUTABLE
    RETURN hashint8extended(n, {int(seed)}::bigint * 1000 + salt) & 9223372036854775807;
CREATE FUNCTION pg_temp.u(n bigint, salt int) RETURNS float8 LANGUAGE sql IMMUTABLE
    RETURN (pg_temp.h(n, salt) % 1000003)::float8 / 1000003;
CREATE FUNCTION pg_temp.opened(case_id bigint) RETURNS timestamptz LANGUAGE sql STABLE
    RETURN {_EPOCH} + (pg_temp.h(case_id, 1) % {_THREE_YEARS_S}) * interval '1 second';
CREATE FUNCTION pg_temp.later(at timestamptz, days int, n bigint, salt int) RETURNS timestamptz LANGUAGE sql STABLE
    RETURN at + (pg_temp.h(n, salt) % (days::bigint * {_DAY_S} * 1000000)) * interval '1 microsecond';
CREATE FUNCTION pg_temp.money(n bigint, salt int, most bigint) RETURNS numeric LANGUAGE sql IMMUTABLE
    RETURN (1 + pg_temp.h(n, salt) % 1000 * (pg_temp.h(n, salt + 1) % (most / 10)))::numeric / 100;
"""


def fill_statements(sizes: Sizes) -> tuple[str, ...]:
    """One INSERT a table, in the order of their foreign keys."""
    return (
        _CASE_TYPES,
        _organisations(sizes),
        _STAKEHOLDER_TYPES,
        _cases(sizes),
        _stakeholders(sizes),
        _performance_records(sizes),
        _assets(sizes),
        _cash_flow_entries(sizes),
        _case_user_roles(sizes),
    )


def pick(words: str, expression: str) -> str:
    """An SQL expression that chooses one of a word list by the bigint `expression`."""
    options = _WORDS[words].split("|")
    array = ", ".join(quote_literal(option) for option in options)
    return f"(ARRAY[{array}])[1 + ({expression}) % {len(options)}]"


_CASE_TYPES = """
INSERT INTO case_types
SELECT n, upper(left(name, 3)) || '-' || n % 10, name, n <> 9, (0.5 + n * 0.25)::real,
    time '16:00' + n * interval '15 min'
FROM unnest(ARRAY['Insolvency', 'Restructuring', 'Trade credit', 'Project finance', 'Leasing', 'Real estate',
    'Société en difficulté', 'Litigation', 'Wind-down', 'Other']) WITH ORDINALITY AS t(name, n)
"""

_STAKEHOLDER_TYPES = """
INSERT INTO stakeholder_types VALUES
    (1, 'CREDITOR', 'Creditor', 'claimant', true), (2, 'DEBTOR', 'Debtor', 'respondent', false),
    (3, 'INVESTOR', 'Investor', 'claimant', true), (4, 'GUARANTOR', 'Guarantor', 'respondent', false),
    (5, 'ADMINISTRATOR', 'Administrator', 'officer', false), (6, 'ADVISER', 'Conseiller', 'adviser', false)
"""


def _organisations(sizes: Sizes) -> str:
    return f"""
INSERT INTO organisations
SELECT n, 'ORG-' || lpad(n::text, 4, '0'), {pick("firm", "n")} || ' ' || n, {pick("country", "pg_temp.h(n, 900)")},
    {pick("region", "n")}, CASE WHEN n % 7 <> 0 THEN date '1950-01-01' + (pg_temp.h(n, 901) % 25000)::int END,
    CASE WHEN n % 9 = 0 THEN '{{}}'::text[] ELSE ARRAY['org' || n || '.example', 'bücher' || n || '.example'] END,
    CASE WHEN n % 5 <> 0 THEN ('10.' || n % 256 || '.0.0/16')::inet END,
    CASE WHEN n % 4 <> 0 THEN timestamp '2019-03-31 02:30:00' + n * interval '1 hour' END
FROM generate_series(1, {sizes.organisations}::bigint) n
"""


def _cases(sizes: Sizes) -> str:
    return f"""
INSERT INTO cases
SELECT n, md5('case' || pg_temp.h(n, 100))::uuid, 'AX-' || lpad(n::text, 8, '0'),
    1 + floor(10 * pg_temp.u(n, 101) * pg_temp.u(n, 102))::int,
    1 + floor({sizes.organisations} * pg_temp.u(n, 103) * pg_temp.u(n, 103))::int,
    status, {pick("subject", "pg_temp.h(n, 105)")} || ' ' || n,
    CASE WHEN pg_temp.h(n, 106) % 8 <> 0 THEN 1 + pg_temp.h(n, 107) % 5 END, pg_temp.h(n, 108) % 20 = 0,
    pg_temp.money(n, 109, 10000000), CASE WHEN pg_temp.h(n, 111) % 6 <> 0 THEN pg_temp.u(n, 112) END, opened,
    CASE WHEN status = 'closed' THEN pg_temp.later(opened, 250, n, 113) END,
    CASE WHEN pg_temp.h(n, 114) % 4 <> 0 THEN (opened AT TIME ZONE 'UTC')::date + (pg_temp.h(n, 115) % 400)::int END,
    CASE WHEN pg_temp.h(n, 116) % 3 <> 0 THEN (pg_temp.h(n, 117) % 720) * interval '1 hour' END,
    CASE WHEN pg_temp.h(n, 118) % 10 <> 0 THEN jsonb_build_object(
        'channel', {pick("channel", "pg_temp.h(n, 119)")}, 'score', pg_temp.h(n, 120) % 100,
        'note', {pick("memo", "pg_temp.h(n, 121)")}) END,
    CASE pg_temp.h(n, 122) % 3 WHEN 0 THEN '{{}}'::text[] WHEN 1 THEN ARRAY[{pick("tag", "pg_temp.h(n, 123)")}]
        ELSE ARRAY[{pick("tag", "pg_temp.h(n, 123)")}, {pick("tag", "pg_temp.h(n, 124) / 8")}] END,
    pg_temp.later(opened, 250, n, 113)
FROM (SELECT n, pg_temp.opened(n) AS opened, CASE WHEN pg_temp.h(n, 104) % 100 < 45 THEN 'open'
        WHEN pg_temp.h(n, 104) % 100 < 60 THEN 'in_review' WHEN pg_temp.h(n, 104) % 100 < 70 THEN 'on_hold'
        ELSE 'closed' END::case_status AS status
    FROM generate_series(1, {sizes.cases}::bigint) n) numbered
"""


def _stakeholders(sizes: Sizes) -> str:
    """A party's name, address and country hang on `p` (party_no): the same party looks alike in every case."""
    return f"""
INSERT INTO stakeholders
SELECT n, c, 1 + (pg_temp.h(n, 203) % 15 % 6)::int, p, is_org,
    CASE WHEN n % 37 = 0 THEN '  ' ELSE '' END || CASE WHEN is_org
        THEN {pick("firm", "pg_temp.h(p, 204)")} || ' ' || p
        ELSE {pick("given", "pg_temp.h(p, 205)")} || ' ' || {pick("family", "pg_temp.h(p, 206)")} END
        || CASE WHEN n % 41 = 0 THEN ' ' ELSE '' END,
    CASE WHEN pg_temp.h(p, 207) % 12 <> 0 THEN
        CASE WHEN n % 5 = 0 THEN 'Party' ELSE 'party' END || p || '@Example.com' END,
    CASE WHEN pg_temp.h(p, 208) % 3 <> 0 THEN '+49 30 ' || lpad((pg_temp.h(p, 209) % 10000000)::text, 7, '0') END,
    CASE WHEN pg_temp.h(p, 210) % 25 <> 0 THEN {pick("country", "pg_temp.h(p, 211)")} END,
    CASE WHEN pg_temp.h(n, 212) % 3 <> 0 THEN pg_temp.money(n, 213, 1000000) END,
    registered, CASE WHEN pg_temp.h(n, 215) % 10 < 6 THEN pg_temp.later(registered, 90, n, 216) END,
    CASE WHEN pg_temp.h(n, 217) % 4 = 0 THEN time '08:00' + (pg_temp.h(n, 218) % 600) * interval '1 min' END,
    CASE WHEN pg_temp.h(n, 219) % 5 = 0 THEN ('192.0.2.' || pg_temp.h(n, 220) % 256)::inet END,
    pg_temp.later(registered, 150, n, 221)
FROM (SELECT n, c, p, pg_temp.h(p, 202) % 4 = 0 AS is_org, pg_temp.later(pg_temp.opened(c), 60, n, 214) AS registered
    FROM (SELECT n, 1 + pg_temp.h(n, 200) % {sizes.cases} AS c,
            1 + floor({sizes.parties} * pg_temp.u(n, 201) * (1 + pg_temp.u(n, 201)) / 2)::bigint AS p
        FROM generate_series(1, {sizes.stakeholders}::bigint) n) numbered) party
"""


def _performance_records(sizes: Sizes) -> str:
    return f"""
INSERT INTO performance_records
SELECT n, c, {pick("metric", "pg_temp.h(n, 301)")}, date_trunc('month', recorded AT TIME ZONE 'UTC')::date,
    (pg_temp.h(n, 302) % 10001)::numeric / 100,
    CASE WHEN pg_temp.h(n, 303) % 4 <> 0 THEN (pg_temp.h(n, 304) % 4096)::real / 4096 END,
    CASE WHEN pg_temp.h(n, 305) % 3 <> 0 THEN ARRAY[pg_temp.h(n, 306) % 100, NULL, pg_temp.h(n, 307) % 100]::int[] END,
    recorded, pg_temp.later(recorded, 60, n, 308)
FROM (SELECT n, c, pg_temp.later(pg_temp.opened(c), 200, n, 309) AS recorded
    FROM (SELECT n, 1 + pg_temp.h(n, 300) % {sizes.cases} AS c
        FROM generate_series(1, {sizes.performance_records}::bigint) n) numbered) dated
"""


def _assets(sizes: Sizes) -> str:
    return f"""
INSERT INTO assets
SELECT n, c, {pick("asset_class", "pg_temp.h(n, 401)")}, {pick("subject", "pg_temp.h(n, 402)")} || ' #' || n,
    pg_temp.money(n, 403, 5000000) + (pg_temp.h(n, 405) % 100)::numeric / 10000,
    CASE WHEN pg_temp.h(n, 406) % 3 <> 0 THEN (pg_temp.h(n, 407) % 8000)::float8 / 8 END,
    CASE WHEN pg_temp.h(n, 408) % 4 <> 0 THEN decode(md5(n::text), 'hex') END,
    CASE WHEN pg_temp.h(n, 409) % 5 <> 0 THEN date '1999-12-31' + (pg_temp.h(n, 410) % 8000)::int END,
    CASE WHEN pg_temp.h(n, 411) % 3 <> 0 THEN timestamp '2022-03-27 02:30:00' + (pg_temp.h(n, 412) % 90000000)
        * interval '1 second' END,
    pg_temp.later(pg_temp.opened(c), 200, n, 413)
FROM (SELECT n, 1 + pg_temp.h(n, 400) % {sizes.cases} AS c FROM generate_series(1, {sizes.assets}::bigint) n) numbered
"""


def _cash_flow_entries(sizes: Sizes) -> str:
    return f"""
INSERT INTO cash_flow_entries
SELECT n, c, CASE WHEN is_in THEN 'in' ELSE 'out' END::flow_type,
    CASE WHEN is_in THEN {pick("inflow", "pg_temp.h(n, 502)")} ELSE {pick("outflow", "pg_temp.h(n, 502)")} END,
    pg_temp.money(n, 503, 100000), (booked AT TIME ZONE 'UTC')::date,
    CASE WHEN pg_temp.h(n, 505) % 4 = 0 THEN (booked AT TIME ZONE 'UTC')::time END, pg_temp.h(n, 506) % 10 <> 0,
    CASE WHEN pg_temp.h(n, 507) % 3 = 0 THEN {pick("memo", "pg_temp.h(n, 508)")} END,
    pg_temp.later(booked, 45, n, 509)
FROM (SELECT n, c, pg_temp.h(n, 501) % 10 < 6 AS is_in, pg_temp.later(pg_temp.opened(c), 250, n, 510) AS booked
    FROM (SELECT n, 1 + floor({sizes.cases} * pg_temp.u(n, 500) * (1 + pg_temp.u(n, 500)) / 2)::bigint AS c
        FROM generate_series(1, {sizes.cash_flow_entries}::bigint) n) numbered) dated
"""


def _case_user_roles(sizes: Sizes) -> str:
    return f"""
INSERT INTO case_user_roles
SELECT c, (pg_temp.h(c, 601) % 500 * 2 + k)::int, {pick("user_role", "pg_temp.h(c, 602 + k)")},
    pg_temp.opened(c), pg_temp.later(pg_temp.opened(c), 100, c * 2 + k, 604)
FROM generate_series(1, {sizes.cases}::bigint) c, generate_series(0, 1) k WHERE pg_temp.h(c, 600) % 3 > k
"""
