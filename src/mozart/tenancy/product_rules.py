"""A tenant's declared marts against the product schema: what `mozart validate` can say without running anything.

Contracts and key tests are compared, at the line that declares them. That the SQL keeps its contract is for the build
on empty tables (`mozart.engine.validate_models`), that the rows do for every run (`mozart.engine.product_check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mozart.errors import Problem
from mozart.tenancy.model_properties import DeclaredColumn, DeclaredModel
from mozart.tenancy.names import ModelName
from mozart.tenancy.product_page import PRODUCT_PAGE
from mozart.tenancy.product_schema import MART_PREFIX, Mart, MartColumn, ProductSchema, portable_type


def missing_marts(product: ProductSchema, tenant_id: str, present: set[str]) -> list[Problem]:
    """The marts of the product for which the tenant has no model; `present` are the names of its models."""
    return [
        Problem(f"tenants/{tenant_id}/models/mart/{model}.sql", "", f"is missing; every tenant offers {mart.name}")
        for mart in product.marts
        if (model := mart_model(tenant_id, mart.name)) not in present
    ]


def mart_model(tenant_id: str, mart: str) -> str:
    """The name of a tenant's model of a mart: `acme__mart_case`."""
    return str(ModelName(tenant_id, "mart", mart.removeprefix(MART_PREFIX)))


def contract_problems(mart: Mart, model: DeclaredModel) -> Iterator[Problem]:
    """Where the model's declared columns and tests differ from the mart's."""
    declared = {column.name: column for column in model.columns}
    wanted = {column.name: column for column in mart.columns}
    for name, column in wanted.items():
        if name not in declared:
            message = f"column {name} of the product schema is missing; declare it as {column.contract_type}"
            yield _at(model, model.line, model.name, message)
    for name, found in declared.items():
        if name not in wanted:
            yield _at(model, found.line, name, f"is no column of {mart.name} in the product schema; see {PRODUCT_PAGE}")
        else:
            yield from _column_problems(model, wanted[name], found)
    order = [name for name in declared if name in wanted]
    if set(order) == set(wanted) and order != list(wanted):
        yield _at(model, *_first_out_of_place(declared, order, list(wanted)))
    yield from _key_problems(mart, model)


def _column_problems(model: DeclaredModel, wanted: MartColumn, found: DeclaredColumn) -> Iterator[Problem]:
    if found.data_type is None:
        yield _at(model, found.line, wanted.name, f"has no data_type; the product schema says {wanted.contract_type}")
    elif portable_type(found.data_type) != wanted.type:
        message = f"is declared as {found.data_type}; the product schema says {wanted.contract_type}"
        yield _at(model, found.type_line, wanted.name, message)
    if found.is_required and wanted.nullable:
        yield _at(model, found.line, wanted.name, "may be NULL in the product schema; remove its not_null constraint")
    elif not found.is_required and not wanted.nullable:
        message = "is never NULL in the product schema; add `constraints: [{type: not_null}]`"
        yield _at(model, found.line, wanted.name, message)


def _key_problems(mart: Mart, model: DeclaredModel) -> Iterator[Problem]:
    """The key's tests: not_null on each of its columns, and uniqueness."""
    for name in mart.key:
        column = model.column(name)
        if column is not None and "not_null" not in column.tests:
            yield _at(model, column.line, name, f"is part of the key of {mart.name}; add the data test not_null")
    first = model.column(mart.key[0])
    is_tested = frozenset(mart.key) in model.unique_sets or (
        len(mart.key) == 1 and first is not None and "unique" in first.tests
    )
    if not is_tested:
        test = "unique" if len(mart.key) == 1 else f"unique_together of [{', '.join(mart.key)}]"
        line = first.line if first is not None and len(mart.key) == 1 else model.line
        yield _at(model, line, model.name, f"the key of {mart.name} is not tested; add the data test {test}")


def _first_out_of_place(
    declared: Mapping[str, DeclaredColumn], order: list[str], wanted: list[str]
) -> tuple[int, str, str]:
    name, expected = next(pair for pair in zip(order, wanted, strict=True) if pair[0] != pair[1])
    message = f"stands where the product schema has {expected}; keep its order of columns"
    return declared[name].line, name, message


def _at(model: DeclaredModel, line: int, key: str, message: str) -> Problem:
    return Problem(f"{model.file}:{line}", key, message)
