"""The product's modules follow the rules, and every rule is seen to fail on a bad module."""

from __future__ import annotations

import pytest
from project_files import SourceFile, project_files
from source_rules import RULES

BAD: list[tuple[str, str, str]] = [
    ("imports_go_one_way", "src/mozart/lake/x.py", "import prefect"),
    ("imports_go_one_way", "src/mozart/lake/x.py", "def f():\n    from prefect_dbt import PrefectDbtRunner"),
    ("imports_go_one_way", "src/mozart/lake/x.py", "from mozart.fleet.plan import plan_fleet"),
    ("imports_go_one_way", "src/mozart/lake/x.py", "from mozart import fleet"),
    ("imports_go_one_way", "src/mozart/lake/x.py", "from ..cli import main"),
    ("imports_go_one_way", "src/mozart/lake/x.py", "import importlib\nimportlib.import_module('blocks.source')"),
    ("imports_go_one_way", "src/mozart/settings.py", "import blocks"),
    ("imports_go_one_way", "blocks/x.py", "from tasks.lake import load_table"),
    ("imports_go_one_way", "blocks/x.py", "import mozart.cli.main"),
    ("imports_go_one_way", "tasks/x.py", "from flows import tenant_pipeline"),
    ("imports_go_one_way", "tasks/x.py", "from mozart.fleet import apply"),
    ("imports_go_one_way", "flows/x.py", "from mozart.cli import main"),
    ("imports_go_one_way", "src/mozart/fleet/apply.py", "from flows.tenant_pipeline import tenant_pipeline"),
    ("imports_go_one_way", "src/mozart/fleet/plan.py", "import prefect.client"),
    ("imports_go_one_way", "src/mozart/cli/x.py", "import tasks"),
    ("flows_only_orchestrate", "flows/x.py", "class A: ..."),
    ("flows_only_orchestrate", "flows/x.py", "q = 'SELECT a FROM t'"),
    ("flows_only_orchestrate", "flows/x.py", "q = f'refresh materialized view {v}'"),
    ("flows_only_orchestrate", "flows/x.py", "async def f():\n    open('x')"),
    ("flows_only_orchestrate", "flows/x.py", "from pathlib import Path"),
    ("flows_only_orchestrate", "flows/x.py", "import pyiceberg.catalog"),
    ("flows_are_async", "flows/x.py", "@flow\ndef f(): ..."),
    ("flows_are_async", "flows/x.py", "@prefect.flow(name='f')\ndef f(): ..."),
    ("modules_are_short", "src/mozart/x.py", "a = 1\n" * 601),
    ("modules_are_short", "samples/x.py", "a = 1\n" * 601),
    ("names_say_what_is_inside", "src/mozart/lake/utils.py", ""),
    ("names_say_what_is_inside", "tests/unit/helpers.py", ""),
    ("names_say_what_is_inside", "tasks/common/x.py", ""),
    ("environment_is_not_read_at_import", "src/mozart/x.py", "import os\nA = os.environ['A']"),
    ("environment_is_not_read_at_import", "tasks/x.py", "from os import getenv\nif getenv('A'): pass"),
    ("environment_is_not_read_at_import", "blocks/x.py", "import os\nclass A:\n    b = os.environ.get('B')"),
    ("environment_is_not_read_at_import", "flows/x.py", "import os\ndef f(a=os.getenv('A')): ..."),
    ("environment_is_not_read_at_import", "flows/x.py", "@flow(name=os.environ['A'])\nasync def f(): ..."),
    ("environment_is_not_read_at_import", "flows/x.py", "SETTINGS = load_settings()"),
    ("public_things_have_docstrings", "src/mozart/x.py", "a = 1"),
    ("public_things_have_docstrings", "src/mozart/x.py", "'''Says it.'''\ndef f(): ..."),
    ("public_things_have_docstrings", "src/mozart/x.py", "'''Says it.'''\nclass A: ..."),
    ("public_things_have_docstrings", "flows/x.py", "import prefect"),
    ("identifiers_are_quoted_in_one_place", "src/mozart/x.py", "q = f'select * from \"{t}\"'"),
    ("identifiers_are_quoted_in_one_place", "src/mozart/x.py", "q = 'select \"' + c + '\" from t'"),
    ("identifiers_are_quoted_in_one_place", "src/mozart/x.py", 'q = f\'"{s}"."{t}"\''),
    ("identifiers_are_quoted_in_one_place", "src/mozart/cli/query.py", "def _sql(t):\n    return '\"' + t + '\"'"),
    ("identifiers_are_quoted_in_one_place", "src/mozart/x.py", "q = c.replace('\"', '\"\"')"),
]

GOOD: list[tuple[str, str, str]] = [
    ("imports_go_one_way", "src/mozart/lake/x.py", "import mozart.settings, prefectionist\nfrom . import commit"),
    ("imports_go_one_way", "blocks/x.py", "import prefect\nfrom mozart.lake import lakehouse"),
    ("imports_go_one_way", "tasks/x.py", "import blocks.source, prefect"),
    ("imports_go_one_way", "flows/x.py", "from tasks.lake import load_table\nfrom prefect import flow"),
    ("imports_go_one_way", "src/mozart/fleet/apply.py", "import prefect, blocks.source\nfrom mozart.fleet import plan"),
    ("imports_go_one_way", "src/mozart/cli/x.py", "from mozart.fleet import plan"),
    ("imports_go_one_way", "tests/unit/x.py", "import prefect, flows, mozart.cli"),
    ("flows_only_orchestrate", "flows/x.py", "'''Select what comes from the plan.'''\n@flow\nasync def f(): ..."),
    ("flows_only_orchestrate", "tasks/x.py", "class A: ..."),
    ("flows_are_async", "flows/x.py", "@flow(name='f')\nasync def f(): ...\ndef g(): ..."),
    ("modules_are_short", "src/mozart/x.py", "a = 1\n" * 600),
    ("names_say_what_is_inside", "src/mozart/lake/landing.py", ""),
    ("environment_is_not_read_at_import", "src/mozart/x.py", "import os\ndef f():\n    return os.environ['A']"),
    ("environment_is_not_read_at_import", "src/mozart/x.py", "import os\nf = lambda: os.getenv('A')"),
    ("environment_is_not_read_at_import", "src/mozart/x.py", "from mozart.settings import load_settings"),
    ("public_things_have_docstrings", "src/mozart/x.py", "'''Says it.'''\ndef _f(): ...\nclass A:\n    '''Is it.'''"),
    ("public_things_have_docstrings", "src/mozart/__init__.py", ""),
    ("identifiers_are_quoted_in_one_place", "src/mozart/x.py", "q = f'select * from {quote_identifier(t)}' + '\"a\"'"),
    ("identifiers_are_quoted_in_one_place", "src/mozart/x.py", "line = f'requirepass \"{password}\"'"),
    (
        "identifiers_are_quoted_in_one_place",
        "src/mozart/cli/query.py",
        "def _csv_field(t):\n    return '\"' + t + '\"'",
    ),
    ("identifiers_are_quoted_in_one_place", "src/mozart/sql.py", "q = '\"' + c + '\"'"),
]


@pytest.mark.parametrize("name", RULES)
def test_the_project_follows_the_rule(name: str) -> None:
    violations = [line for file in project_files() if file.is_python for line in RULES[name](file)]
    assert not violations, "\n".join(["", *violations])


@pytest.mark.parametrize(("name", "path", "source"), BAD)
def test_the_rule_can_fail(name: str, path: str, source: str) -> None:
    assert RULES[name](SourceFile(path, source.encode()))


@pytest.mark.parametrize(("name", "path", "source"), GOOD)
def test_the_rule_lets_good_code_pass(name: str, path: str, source: str) -> None:
    assert RULES[name](SourceFile(path, source.encode())) == []


def test_every_rule_is_shown_to_fail_and_to_pass() -> None:
    assert {name for name, _, _ in BAD} == set(RULES) == {name for name, _, _ in GOOD}
