"""Triggers have names that PostgreSQL does not cut, and are made again exactly when they would differ."""

from __future__ import annotations

from dataclasses import replace

from mozart.olap.tracking import Column, Tracked, fingerprint, plan_tracking, trigger_names, trigger_statements

CASES = {name: Column(name, kind) for name, kind in (("case_id", "bigint"), ("a", "numeric"), ("b", "jsonb"))}


def test_long_names_stay_apart() -> None:
    stem = "t" * 50
    names = [name for end in ("x", "y") for name in trigger_names(Tracked("public", stem + end, "case_id", None))]
    assert len(set(names)) == 8 and all(len(name) <= 63 for name in names)


def test_fingerprint_follows_what_is_watched() -> None:
    tracked = Tracked("public", "cases", "case_id", (CASES["a"],))
    assert fingerprint(tracked) == fingerprint(replace(tracked))
    others = [replace(tracked, columns=None), replace(tracked, key=None), replace(tracked, bulk_rows=9)]
    assert len({fingerprint(each) for each in (tracked, *others)}) == 4


def test_plan_joins_what_views_want_of_a_table() -> None:
    sources = {"one": (("cases",), "case_id"), "two": (("cases",), None), "three": (("cases",), "a")}
    plan = plan_tracking("public", sources, {"cases": CASES}, {"cases": frozenset({"a"})}, {"cases": 1e9})
    assert [(each.key, [c.name for c in each.columns or ()]) for each in plan] == [
        ("a", ["a"]),
        ("case_id", ["a", "case_id"]),
    ]
    assert plan[0].bulk_rows == 20_000_000


def test_column_that_cannot_be_compared_makes_every_update_count() -> None:
    plan = plan_tracking("public", {"v": (("cases",), "case_id")}, {"cases": CASES}, {"cases": frozenset("b")}, {})
    assert plan[0].columns is None
    assert not any("EXCEPT" in statement for statement in trigger_statements(plan[0]))


def test_identifiers_and_values_are_quoted() -> None:
    tracked = Tracked('sch"ema', "ta'ble", 'ke"y', None)
    text = "\n".join(trigger_statements(tracked))
    assert '"sch""ema"."ta\'ble"' in text and '"ke""y"::pg_catalog.text' in text
