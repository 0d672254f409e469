"""Cron and time zones: what we accept, Prefect's own parser must accept as well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.schedules import CronSchedule

from mozart.tenancy.schedule import cron_mistake, timezone_mistake


@pytest.mark.parametrize(
    "cron",
    [
        "0 */2 * * *",
        "* * * * *",
        "5,10-20/5 0 1 jan-MAR mon",
        "0 3 * * 0",
        "0 3 * * 7",
        "0 0 29 2 *",
        "0 0 31 2 mon",
        "5/15 * * * *",
    ],
)
def test_good_expressions(cron: str) -> None:
    assert cron_mistake(cron) is None


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "* * L * *",
        "* * * * mon#1",
        "? * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "1, * * * *",
        "-1 * * * *",
        "*  * * * *",
        "\u0661 * * * *",
        "R * * * *",
        "1-2-3 * * * *",
        "*/x * * * *",
        "0 0\t* * *",
    ],
)
def test_bad_expressions(cron: str) -> None:
    assert cron_mistake(cron) is not None


PARTS = st.sampled_from(
    ["*", "*/7", "0", "1", "5", "12", "1-3", "2-6/2", "1,4", "3/2", "mon", "jan", "7", "28", "31", "L", "?"]
)


@given(st.lists(PARTS, min_size=5, max_size=5))
def test_what_is_accepted_prefect_accepts(parts: list[str]) -> None:
    cron = " ".join(parts)
    if cron_mistake(cron) is None:
        assert CronSchedule(cron=cron).cron == cron


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3"])
def test_good_zones(zone: str) -> None:
    assert timezone_mistake(zone) is None
    assert CronSchedule(cron="0 0 * * *", timezone=zone).timezone == zone


@pytest.mark.parametrize(
    "zone", ["", "Mars/Base", "../UTC", "/etc/passwd", "Europe", "localtime", "Europe/", "utc\n", "x" * 9999]
)
def test_bad_zones(zone: str) -> None:
    assert timezone_mistake(zone) is not None


def test_a_near_miss_is_named() -> None:
    assert timezone_mistake("Europe/Berln") == "'Europe/Berln' is not a time zone; did you mean Europe/Berlin?"
