"""The repository's files follow the rules, and every rule is seen to fail on a bad file."""

from __future__ import annotations

import pytest
from file_rules import RULES
from project_files import SourceFile, project_files

HASH = "--hash=sha256:" + "0" * 64
# Put together, so that this file does not break the rules it tests.
SOMEBODY = "/".join(("", "home", "somebody", "mozart"))
LATER = "TO" + "DO"

BAD: list[tuple[str, str, str]] = [
    ("files_are_small", "docs/picture.svg", "x" * 600_001),
    ("no_path_of_a_machine", "docs/x.md", f"run `{SOMEBODY}/run`"),
    ("no_path_of_a_machine", "src/mozart/x.py", f"A = '{SOMEBODY}'"),
    ("no_path_of_a_machine", "prefect.yaml", "directory: " + "/".join(("", "root", "mozart"))),
    ("no_path_of_a_machine", "docs/x.md", "/".join(("", "Users", "me"))),
    ("nothing_is_left_for_later", "src/mozart/x.py", f"# {LATER}: later"),
    ("nothing_is_left_for_later", "docs/x.md", "FIX" + "ME"),
    ("dbt_holds_no_python", "dbt/__init__.py", ""),
    ("dbt_holds_no_python", "dbt/macros/x.py", ""),
    ("nothing_hides_an_installed_module", "flows/redis.py", ""),
    ("nothing_hides_an_installed_module", "flows/json.py", ""),
    ("nothing_hides_an_installed_module", "flows/yaml/__init__.py", ""),
    ("nothing_hides_an_installed_module", "prefect.py", ""),
    ("nothing_hides_an_installed_module", "dbt/__init__.py", ""),
    ("lock_files_hold_names_and_hashes_only", "requirements/x.txt", "--index-url https://example.org\n"),
    ("lock_files_hold_names_and_hashes_only", "requirements/x.txt", "# from https://example.org\n"),
    ("lock_files_hold_names_and_hashes_only", "requirements/x.txt", f"a @ https://example.org/a.whl {HASH}\n"),
    ("lock_files_hold_names_and_hashes_only", "requirements/x.txt", "a==1 \\\n    --hash=md5:00\n"),
    ("lock_files_hold_names_and_hashes_only", "requirements/x.txt", f"a>=1 \\\n    {HASH}\n"),
]

GOOD: list[tuple[str, str, str]] = [
    ("files_are_small", "docs/picture.svg", "x" * 600_000),
    ("no_path_of_a_machine", "docs/x.md", "https://example.org/home/x, ./work/x, /opt/mozart, $HOME/work/x, /health"),
    ("nothing_is_left_for_later", "src/mozart/x.py", "methodology, hacking"),
    ("dbt_holds_no_python", "dbt/macros/x.sql", ""),
    ("nothing_hides_an_installed_module", "flows/tenant_pipeline.py", ""),
    ("nothing_hides_an_installed_module", "flows/__init__.py", ""),
    ("nothing_hides_an_installed_module", "src/mozart/lake/json.py", ""),
    (
        "lock_files_hold_names_and_hashes_only",
        "requirements/x.txt",
        f"a[b]==1.0 ; x == 'y' \\\n    {HASH} \\\n    {HASH}\n# note\n",
    ),
    ("lock_files_hold_names_and_hashes_only", "requirements/README.md", "https://example.org"),
]


@pytest.mark.parametrize("name", RULES)
def test_the_repository_follows_the_rule(name: str) -> None:
    violations = [line for file in project_files() for line in RULES[name](file)]
    assert not violations, "\n".join(["", *violations])


@pytest.mark.parametrize(("name", "path", "content"), BAD)
def test_the_rule_can_fail(name: str, path: str, content: str) -> None:
    assert RULES[name](SourceFile(path, content.encode()))


@pytest.mark.parametrize(("name", "path", "content"), GOOD)
def test_the_rule_lets_good_files_pass(name: str, path: str, content: str) -> None:
    assert RULES[name](SourceFile(path, content.encode())) == []


def test_every_rule_is_shown_to_fail_and_to_pass() -> None:
    assert {name for name, _, _ in BAD} == set(RULES) == {name for name, _, _ in GOOD}


def test_the_rules_see_the_repository() -> None:
    paths = {file.path for file in project_files()}
    assert {"pyproject.toml", "src/mozart/errors.py", "requirements/runtime.txt"} <= paths
    assert not any(path.startswith((".mozart/", ".venv/", ".git/")) for path in paths)
