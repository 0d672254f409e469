"""A copy of the project with its sample tenant, to be broken and checked by dbt on empty tables.

The copy's marts are plain ones of the right shape, a column a line, so that what the tests break does not depend on how
the sample's own are written.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from mozart.engine.validate_models import ModelCheck, check_models
from mozart.tenancy.load import load_tenant
from mozart.tenancy.product_schema import Mart, load_product_schema

ROOT = Path(__file__).parents[3]


@dataclass
class Copy:
    """The copied project; `state` outlives a test, for a cold parse costs seconds."""

    root: Path
    state: Path

    @property
    def models(self) -> Path:
        return self.root / "tenants" / "acme" / "models"

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.models / file
        text = path.read_text(encoding="utf-8")
        assert old in text, (file, old)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def check(self, **options: bool) -> ModelCheck:
        tenant = load_tenant(self.root / "tenants" / "acme")
        return check_models(self.root, self.state, tenant, load_product_schema(self.root), **options)

    def said(self) -> list[str]:
        """Every problem, without the way to the tenant's folder; each one line."""
        lines = [str(problem).removeprefix("tenants/acme/models/") for problem in self.check().problems]
        assert all("\n" not in line and "Traceback" not in line for line in lines), lines
        return lines


def plain_mart(mart: Mart) -> str:
    """A model of the right shape that reads one staging model; column n stands in line 9 + n."""
    first, *rest = mart.columns
    columns = [f"cast(cases.case_id as {first.contract_type}) as {first.name}"]
    columns += [f"cast(null as {column.contract_type}) as {column.name}" for column in rest]
    lines = [f"{{{{ config(alias='{mart.name}') }}}}", "", "with cases as (", ""]
    lines += ["    select * from {{ ref('acme__stg_cases') }}", "", ")", "", "select"]
    return "\n".join([*lines, ",\n".join(f"    {column}" for column in columns), "from cases", ""])


@pytest.fixture(scope="session")
def validate_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("validate-state")


@pytest.fixture
def copy(tmp_path: Path, validate_state: Path) -> Copy:
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__")
    for name in ("dbt", "tenants/acme", "flows"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "pyproject.toml").touch()
    copied = Copy(tmp_path, validate_state)
    for mart in load_product_schema(tmp_path).marts:
        (copied.models / "mart" / f"acme__{mart.name}.sql").write_text(plain_mart(mart), encoding="utf-8")
    return copied
