"""harbor reads one customer's rows of a shared database: seen in the statements that reached the server, in what other
customers' broken rows do not break, and in what filter values do that were made to break out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql

from mozart.errors import ConfigurationError, DataQualityError
from mozart.lake.load_plan import LoadRequest
from mozart.lake.tenant_run import RunOptions, TenantRun
from mozart.services.postgres import Postgres
from mozart.services.seaweedfs import SeaweedFS
from mozart.tenancy.model import TableSpec
from samples.harbor_rows import CUSTOMER, OTHERS
from tests.integration.tenants.conftest import SampleTenant, Sources, make_tenant

_LOG_LINE = re.compile(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ UTC \[\d+\] ")
_READ = re.compile(r'FROM "desk"\."(?P<table>\w+)"(?P<rest>.*)', re.DOTALL)
# After the filter: at most the window of an incremental read, then the end of the query.
_REST = r"""(?: AND \("\w+" > '[^']+' OR "\w+" IS NULL\))?(?:\)|;?\s*$)"""

HOSTILE = (
    *("x' OR '1'='1", "x' OR true --", "H-1042' --", "'; DELETE FROM desk.everybody; --", "''", "'", '"', "\\"),
    *("\\' OR 1=1 --", "\\\\'", "E'\\x27'", "$$ OR $$", "$1", "?", "%s", "%(customer)s", "{0}", "${HOME}", "%", "_"),
    *(
        "NULL",
        "null",
        "*",
        "0",
        "-1",
        "true",
        "H-1042",
        "h-1042",
        "H-1042 ",
        " H-1042",
        "H-104",
        "H-1042/*",
        "U&'\\0027'",
    ),
    *(
        "Ærø",
        "Ærø".lower(),
        "\u00e5",
        "a\u030a",
        "\uff07 OR 1=1",
        "\u2019",
        "🚢",
        "עסק",
        "a\u200bb",
        "a\u2028b",
        "İ",
        "ß",
    ),
    *("", " ", "\n", "a\nb", "a\tb", "x" * 100_000, "'" * 20_000),
)


@pytest.fixture(scope="module")
def harbor(sources: Sources, seaweedfs: SeaweedFS, project_root: Path) -> SampleTenant:
    return make_tenant(project_root, "harbor", seaweedfs.lakehouse, sources.harbor)


@pytest.fixture
def server_log(postgres: Postgres, sources: Sources) -> Iterator[Path]:
    """The server's log, in which every statement of harbor's login is written out."""
    role = sql.Identifier(sources.harbor.user)
    with postgres.superuser().connect(autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} SET log_statement = 'all'").format(role))
        yield postgres.log
        connection.execute(sql.SQL("ALTER ROLE {} RESET log_statement").format(role))


def _statements(log: Path, start: int) -> list[str]:
    """What was logged after the byte `start`, entry by entry."""
    with log.open("rb") as file:
        file.seek(start)
        return _LOG_LINE.split(file.read().decode())


def test_every_statement_that_reads_a_shared_table_says_whose_rows(harbor: SampleTenant, server_log: Path) -> None:
    start = server_log.stat().st_size
    harbor.load()
    harbor.load()
    reads = [(entry, match) for entry in _statements(server_log, start) if (match := _READ.search(entry))]
    tables = Counter(match["table"] for _, match in reads)
    assert set(tables) == {table.source_table for table in harbor.tenant.tables}
    assert min(tables.values()) >= 2, "both loads were seen"
    for entry, match in reads:
        column = "client_no" if match["table"] == "diary" else "customer_no"
        filtered = re.escape(f" WHERE \"{column}\" = '{CUSTOMER}'") + _REST
        assert re.match(filtered, match["rest"]) and entry.count('"desk".') == 1, entry


def test_other_customers_rows_are_not_read_even_where_they_cannot_be(
    harbor: SampleTenant, postgres: Postgres, sources: Sources
) -> None:
    """An infinite time fails the load of whoever reads it."""
    with postgres.superuser(sources.harbor.name).connect(autocommit=True) as source:
        source.execute("CREATE TEMP TABLE kept AS SELECT * FROM desk.matters")
        source.execute("UPDATE desk.matters SET opened = 'infinity' WHERE customer_no <> %s", [CUSTOMER])
        try:
            assert harbor.load(["matters"], full_refresh=True)["matters"].status == "committed"
            poisoned = replace(harbor, place=replace(harbor.place, params={"customer_no": OTHERS[0]}))
            with pytest.raises(DataQualityError, match="infinite"):
                poisoned.load(["matters"], full_refresh=True)
        finally:
            source.execute(
                "UPDATE desk.matters m SET opened = k.opened FROM kept k"
                " WHERE (m.customer_no, m.matter_no) = (k.customer_no, k.matter_no)"
            )


def test_a_hostile_customer_number_reads_the_rows_of_exactly_that_customer(
    harbor: SampleTenant, postgres: Postgres, sources: Sources
) -> None:
    known = HOSTILE[::2]
    with postgres.superuser(sources.harbor.name).connect(autocommit=True) as source:
        source.execute("DROP TABLE IF EXISTS desk.everybody; CREATE TABLE desk.everybody (customer_no text, n int)")
        source.execute(sql.SQL("GRANT SELECT ON desk.everybody TO {}").format(sql.Identifier(sources.harbor.user)))
        with source.cursor() as cursor:
            cursor.executemany("INSERT INTO desk.everybody VALUES (%s, %s)", [(v, n) for n, v in enumerate(known)])
    spec = TableSpec(name="everybody", source_schema="desk", source_table="everybody")
    with TenantRun(harbor.tenant, harbor.place, RunOptions(()), "hostile", harbor.root / ".mozart") as run:
        for number, value in enumerate(HOSTILE):
            request = LoadRequest(
                "harbor", harbor.place.namespaces.raw, spec, f"run-{number}", equals={"customer_no": value}
            )
            run.load(request, lambda _line: None)
            rows = run.place.lakehouse.catalog().load_table((run.place.namespaces.raw, "everybody")).scan().to_arrow()
            expected = [{"customer_no": value, "n": known.index(value)}] if value in known else []
            assert rows.to_pylist() == expected, value[:60]
    assert harbor.ask("SELECT count(*) FROM desk.everybody") == [(len(known),)]


def test_a_customer_number_reaches_the_filter_letter_by_letter_or_is_refused(
    project_root: Path, sources: Sources, seaweedfs: SeaweedFS
) -> None:
    for value in HOSTILE:
        values = {"HARBOR_CUSTOMER_NO": value}
        if any(character in value for character in "\n\t") or value == " ":
            with pytest.raises(ConfigurationError, match=r"params\.customer_no"):
                make_tenant(project_root, "harbor", seaweedfs.lakehouse, sources.harbor, values)
        else:
            made = make_tenant(project_root, "harbor", seaweedfs.lakehouse, sources.harbor, values)
            assert made.place.params == {"customer_no": value or CUSTOMER}


def test_without_its_parameter_nothing_is_read(harbor: SampleTenant) -> None:
    bare = replace(harbor, place=replace(harbor.place, params={}))
    with pytest.raises(ConfigurationError, match=r"params\.customer_no.*mozart deploy"):
        bare.load(["offices"])
