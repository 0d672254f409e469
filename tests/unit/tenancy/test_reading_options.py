"""What tenant.yaml may say about how a source is read and what becomes of odd values and new columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mozart.connectors.options import COMMON, ReadLimits, duration, option_mistake, option_names
from mozart.connectors.registry import registered_types
from mozart.errors import ConfigurationError
from mozart.tenancy.load import load_tenant

WriteTenant = Callable[..., Path]
SOURCE = """tenant:
  id: acme
  source: {{type: {kind}, host: h, database: d, username: u, password: "${{P}}", options: {{{options}}}}}
tables:
  - {{name: cases, source_table: cases, primary_key: [id], incremental_column: at, mode: incremental{table}}}
"""


def text(kind: str = "postgresql", options: str = "", table: str = "") -> str:
    return SOURCE.format(kind=kind, options=options, table=table and f", {table}")


def test_the_options_of_a_source_are_read(write_tenant: WriteTenant) -> None:
    options = "sslmode: verify-full, sslrootcert: /ca.pem, max_connections: 2, chunk_rows: 5000, snapshot_age: 30min"
    tenant = load_tenant(write_tenant(text(options=options)))
    limits = ReadLimits.of(tenant.source.options)
    assert (limits.max_connections, limits.chunk_rows, limits.chunk_by) == (2, 5000, "auto")
    assert limits.snapshot_age == timedelta(minutes=30)
    tenant = load_tenant(write_tenant(text("mysql", "zero_dates: null")))
    assert tenant.source.options == {"zero_dates": "null"}, "YAML's null is a word here"


@pytest.mark.parametrize(
    ("kind", "option", "said"),
    [
        ("postgresql", "sslmod: require", r"options\.sslmod: unknown key; did you mean 'sslmode'"),
        ("postgresql", "sslmode: on", r"options\.sslmode"),
        ("postgresql", "sslmode: verify_full", r"options\.sslmode: is 'verify_full'; it takes disable, .*verify-full"),
        ("postgresql", "zero_dates: fail", r"options\.zero_dates: unknown key"),
        ("postgresql", "snapshot_age: soon", r"options\.snapshot_age: is 'soon'; give a duration such as 90s"),
        ("mysql", "max_connections: 0", r"options\.max_connections: is '0'; give a whole number from 1 to 64"),
        ("mysql", "statement_timeout: 1h", r"options\.statement_timeout: is '1h'; give a whole number"),
        ("sqlite", "chunk_by: pages", r"options\.chunk_by: is 'pages'; it takes auto, key, place, none"),
    ],
)
def test_a_wrong_option_is_one_clear_line(write_tenant: WriteTenant, kind: str, option: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"tenant\.yaml:3: tenant\.source\." + said) as found:
        load_tenant(write_tenant(text(kind, option)))
    assert len(found.value.problems) == 1


def test_the_policies_of_a_table_are_read(write_tenant: WriteTenant) -> None:
    policies = "schema_changes: freeze, unfit_values: null, null_watermarks: fail, layout: key"
    (table,) = load_tenant(write_tenant(text(table=policies))).tables
    assert (table.schema_changes, table.unfit_values, table.null_watermarks, table.layout) == (
        "freeze",
        "null",
        "fail",
        "key",
    )
    (table,) = load_tenant(write_tenant(text())).tables
    assert (table.schema_changes, table.unfit_values, table.null_watermarks) == ("evolve", "fail", "read")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("schema_changes: follow", "schema_changes: 'follow' is not one of evolve, freeze, ignore"),
        ("unfit_values: drop", "unfit_values: 'drop' is not one of fail, null"),
        ("null_watermarks: null", "null_watermarks: is empty"),
        ("layout: random", "layout: 'random' is not one of source, key"),
    ],
)
def test_a_wrong_policy_is_one_clear_line(write_tenant: WriteTenant, policy: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"tables\[0\]\.{said}"):
        load_tenant(write_tenant(text(table=policy)))


@pytest.mark.parametrize("kind", registered_types())
def test_every_kind_of_source_takes_the_common_options(kind: str) -> None:
    assert set(COMMON) <= option_names(kind)
    for name in option_names(kind):
        assert option_mistake(kind, name, "\n") is not None, f"{name} takes anything"


def test_durations() -> None:
    assert [duration(text) for text in ("90", "90s", "15min", "2h", "1d", "500ms")] == [
        timedelta(seconds=seconds) for seconds in (90, 90, 900, 7200, 86_400, 0.5)
    ]
    for wrong in ("", "0", "-1", "1.5h", "1 h", "h", "1w", "٣"):
        with pytest.raises(ValueError, match="not a duration"):
            duration(wrong)
