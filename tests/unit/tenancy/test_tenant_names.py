"""The grammar of names: fixed examples of the specification, and that parsing inverts formatting."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from prefect.types.names import raise_on_name_alphanumeric_dashes_only

from mozart.errors import ConfigurationError
from mozart.tenancy import names

IDS = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
ENTITIES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)


def test_the_examples_of_the_specification() -> None:
    spaces = names.namespaces("iceberg", "acme")
    assert str(spaces.raw_table("cases")) == "iceberg.acme_raw.cases"
    assert str(spaces.staging_table("cases")) == "iceberg.acme.stg_cases"
    assert str(spaces.mart_table("case")) == "iceberg.acme.mart_case"
    assert names.raw_asset("acme", "cases") == "iceberg://acme/input/cases"
    assert names.model_asset(names.parse_model_name("acme__stg_cases")) == "iceberg://acme/staging/stg_cases"
    assert names.model_asset(names.parse_model_name("acme__mart_case")) == "iceberg://acme/output/mart_case"
    assert names.raw_source("acme") == "acme_raw"
    assert (names.source_block("acme"), names.lakehouse_block("acme")) == ("acme-source", "acme-lakehouse")
    assert names.source_limit("acme") == "source-acme"
    assert names.tenant_tag("acme") == "tenant:acme"


def test_a_branch_has_places_of_its_own() -> None:
    spaces = names.namespaces("iceberg", "acme", "_dev")
    assert (spaces.core, spaces.raw) == ("acme_dev", "acme_dev_raw")
    assert names.deployment_name("acme", "_dev") == "acme_dev"
    assert names.raw_asset("acme", "cases", "_dev") == "iceberg://acme_dev/input/cases"
    folders = {names.dbt_target_folder(Path("s"), *given) for given in (("a", ""), ("a", "_dev"), ("a_dev", ""))}
    assert len(folders) == 3


@given(IDS, st.sampled_from(["stg", "mart"]), ENTITIES)
def test_a_models_name_is_read_back_as_it_was_written(tenant: str, layer: names.Layer, entity: str) -> None:
    assume(names.namespace_mistake(tenant) is None)
    model = names.ModelName(tenant, layer, entity)
    assert names.parse_model_name(str(model)) == model
    assert model.alias == f"{layer}_{entity}"


@pytest.mark.parametrize(
    "name",
    [
        "acme_stg_cases",
        "acme__cases",
        "Acme__stg_cases",
        "acme__stg_",
        "__stg_x",
        "acme__int_x",
        "acme__stg_X",
        "acme_raw__stg_x",
    ],
)
def test_other_names_are_no_models(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a model is named"):
        names.parse_model_name(name)


@given(IDS, IDS)
def test_block_documents_have_names_prefect_takes_and_no_two_tenants_share(first: str, second: str) -> None:
    assert raise_on_name_alphanumeric_dashes_only(names.source_block(first))
    assert (names.source_block(first) == names.source_block(second)) == (first == second)
    assert names.source_block(first) != names.lakehouse_block(second)


@given(IDS, IDS)
def test_no_two_good_ids_share_a_namespace(first: str, second: str) -> None:
    assume(first != second and names.namespace_mistake(first) is None and names.namespace_mistake(second) is None)
    one, other = names.namespaces("c", first), names.namespaces("c", second)
    assert not {one.core, one.raw} & {other.core, other.raw}


def test_the_longest_id_fits_with_every_suffix() -> None:
    longest = "a" * names.SCHEMA_LENGTH
    assert names.namespace_mistake(longest) is None
    branch = "_" + "b" * (names.BRANCH_SUFFIX_LENGTH - 1)
    assert len(names.namespaces("c", longest, branch).raw) == names.IDENTIFIER_LENGTH
