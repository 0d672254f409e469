"""The product schema while models run: a mart that breaks it stays unpublished, whatever its tenant declares."""

from __future__ import annotations

import pytest

from mozart.lake.commit import read_head
from mozart.tenancy.product_schema import Mart, MartColumn, ProductSchema
from tests.integration.engine.conftest import CASES, TinyTenant, tiny, tiny_root

__all__ = ["tiny", "tiny_root"]

FREE = "{{ config(alias='mart_title', contract={'enforced': false}) }}"
PLAIN = """\
version: 2
models:
  - name: tiny__stg_cases
    columns: [{name: id, data_type: bigint}, {name: title, data_type: varchar}, {name: amount, data_type: bigint}]
  - name: tiny__stg_flows
    columns: [{name: id, data_type: bigint}, {name: case_id, data_type: bigint}, {name: amount, data_type: bigint}]
  - name: tiny__mart_case
    columns: [{name: case_id, data_type: bigint}, {name: title, data_type: varchar}, {name: total, data_type: bigint}]
"""


def mart(name: str, key: str, **types: str) -> Mart:
    columns = tuple(MartColumn(name=column, type=kind, description=".") for column, kind in types.items())
    return Mart(name=name, description=".", key=(key,), columns=columns)


PRODUCT = ProductSchema(
    version=1,
    marts=(
        mart("mart_case", "case_id", case_id="long", title="string", total="long"),
        mart("mart_title", "title", title="string", cases="long"),
    ),
)


def test_a_tenant_that_declares_nothing_cannot_publish_a_breach(tiny: TinyTenant) -> None:
    assert {result.status for result in tiny.build(product=PRODUCT).values()} == {"published"}
    before = tiny.rows("mart_title")
    tiny.write("_models.yml", PLAIN)
    for select, reason in (
        ("title, count(*)::int as cases", "column cases is int, not long"),
        ("title, count(*) as cases, 1 as more", "column more is not part of it"),
        ("count(*) as cases, title", "its columns stand in another order than title, cases"),
        ("nullif(title, 'a') as title, count(*) as cases", "column title is NULL in 1 row"),
    ):
        tiny.write(
            "mart/tiny__mart_title.sql", f"{FREE}\nselect {select} from {{{{ ref('tiny__stg_cases') }}}} group by title"
        )
        results = tiny.build(product=PRODUCT)
        assert results["mart_title"].status == "failed"
        expected = f"mart_title breaks the product schema: {reason}"
        assert expected in (results["mart_title"].reason or ""), results["mart_title"]
        assert results["mart_case"].status in ("published", "unchanged")
    assert tiny.rows("mart_title") == before
    assert len(tiny.snapshots("mart_title")) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_duplicate_keys_stay_out_also_at_the_first_publication(tiny: TinyTenant, is_first: bool) -> None:
    if not is_first:
        tiny.build(product=PRODUCT)
    tiny.write("_models.yml", PLAIN)
    tiny.write("mart/tiny__mart_title.sql", f"{FREE}\nselect title, id as cases from {{{{ ref('tiny__stg_cases') }}}}")
    tiny.load("cases", CASES, [(1, "a", 1), (2, "a", 2), (3, "b", 3)])
    result = tiny.build(product=PRODUCT)["mart_title"]
    assert (result.status, tiny.is_published("mart_title")) == ("failed", not is_first)
    assert "1 value of the key (title) not unique" in (result.reason or "")


def test_a_changed_product_schema_is_held_against_unchanged_models(tiny: TinyTenant) -> None:
    tiny.build(product=PRODUCT)
    reworded = PRODUCT.model_copy(update={"version": 2})
    assert {result.status for result in tiny.build(product=reworded).values()} == {"unchanged"}
    stricter = PRODUCT.model_copy(update={"marts": (PRODUCT.marts[0],)})
    results = tiny.build(product=stricter)
    assert "mart_title is no mart of the product schema" in (results["mart_title"].reason or "")
    assert results["mart_case"].status == "published"
    head = read_head(tiny.lakehouse.catalog(), (tiny.namespace, "mart_title"))
    assert head.record is not None and head.record.run_id == "run-1"
