"""dbt's and DuckDB's words as lines of the tenant's own files."""

from __future__ import annotations

import pytest

from mozart.engine.model_problems import column_line, parse_problem, plain_message, source_line
from mozart.tenancy.model_folder import ModelFile
from mozart.tenancy.names import ModelName

SOURCE = """\
{{ config(alias='mart_case') }}

{% for name in ['a', 'b', 'c'] %}
-- {{ name }}
{% endfor %}
select
    {{ cents('x') }} as x,
    y
from {{ ref('acme__stg_cases') }}
"""
COMPILED = """\


-- a

-- b

-- c

select
    x * 100
      as x,
    y
from "candidates"."acme"."stg_cases"
"""


@pytest.mark.parametrize(("compiled", "line"), [(9, 6), (12, 8), (13, 9), (99, 9), (None, 1)])
def test_a_compiled_line_finds_its_source(compiled: int | None, line: int) -> None:
    assert source_line(SOURCE, COMPILED, compiled) == line


def test_a_column_is_found_where_the_last_select_makes_it() -> None:
    text = "with a as (select total from t)\nselect subtotal,\n  Total\nfrom a"
    model = ModelFile("m.sql", ModelName("acme", "mart", "case"), text, (), (), True)
    assert (column_line(model, "total"), column_line(model, "nothing")) == (3, 1)


def test_headings_pointers_and_callers_go() -> None:
    message = (
        "Runtime Error in model acme__stg_x (../tenants/acme/models/staging/acme__stg_x.sql)\n"
        '  Binder Error: Referenced column "a" not found\n  Candidate bindings: "b"\n\nLINE 3: select a\n        ^'
    )
    assert plain_message(message) == 'Binder Error: Referenced column "a" not found Candidate bindings: "b"'
    compilation = (
        "CompilationError: Compilation Error in model acme__stg_x (../tenants/acme/models/staging/acme__stg_x.sql)\n"
        "  'nothing' is undefined. This can happen\n  \n  > in macro x (macros/x.sql)\n  > called by <Unknown>"
    )
    assert plain_message(compilation) == "'nothing' is undefined. This can happen"


def test_a_parse_error_names_the_tenants_file_or_none() -> None:
    text = "Compilation Error in model x (../tenants/acme/models/staging/acme__stg_x.sql)\n  bad\n    line 4\n"
    problem, file = parse_problem("acme", text)
    assert (problem.file, file) == ("tenants/acme/models/staging/acme__stg_x.sql:4", file)
    assert file == "tenants/acme/models/staging/acme__stg_x.sql"
    problem, file = parse_problem("acme", "Parsing Error\n  dbt_project.yml is odd")
    assert (str(problem), file) == ("tenants/acme/models: dbt cannot parse it: dbt_project.yml is odd", None)
