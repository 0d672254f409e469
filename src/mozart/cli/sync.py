"""`mozart sync`: write what is generated from tenants, views and the product schema, or check that it is up to date.

Generated: `prefect.yaml`, production-shaped whatever the environment, and `dbt/PRODUCT_SCHEMA.md` where the project has
a product schema. Resolves no variable and needs no secret, no server and no database. Exit codes: 0 up to date or
written; 1 drift, with --check; 2 a tenant is broken, and then nothing is written, for a file without that tenant would
take its deployment away.
"""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mozart.errors import ConfigurationError, Problem
from mozart.fleet.olap_plan import with_olap
from mozart.fleet.plan import plan_fleet
from mozart.fleet.prefect_yaml import render
from mozart.olap.registry import ViewRegistry, read_views
from mozart.settings import find_root
from mozart.tenancy.load import Fleet, load_fleet
from mozart.tenancy.product_page import PRODUCT_PAGE, render_product_page
from mozart.tenancy.product_schema import PRODUCT_FILE, load_product_schema

PREFECT_YAML = "prefect.yaml"
DRIFT = 1
BROKEN = 2


@dataclass(frozen=True)
class GeneratedFile:
    """A file that `sync` owns: `path` relative to the project, what it holds now and what it should hold."""

    path: str
    current: str | None
    wanted: str

    @property
    def is_current(self) -> bool:
        return self.current == self.wanted

    def diff(self) -> str:
        """A unified diff from what is there to what should be; empty when they are equal."""
        before = (self.current or "").splitlines(keepends=True)
        after = self.wanted.splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, after, f"a/{self.path}", f"b/{self.path}"))


@click.command(epilog="Example: mozart sync --check")
@click.option("--check", is_flag=True, help="Write nothing; print the difference and exit 1 if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="The project's folder.")
def command(check: bool, as_json: bool, root: Path | None) -> None:
    """Write prefect.yaml from the tenants' and views' files, and dbt/PRODUCT_SCHEMA.md from dbt/product_schema.yml.

    Exits 0 when everything is up to date or was written, 1 on drift with --check, 2 when a tenant's file is broken.
    """
    project = (root or find_root()).resolve()
    fleet = load_fleet(project)
    if fleet.broken:
        _report_broken(fleet, as_json=as_json)
        raise SystemExit(BROKEN)
    try:
        files = generated_files(project, fleet)
        if not check:
            _write(project, files)
    except ConfigurationError as error:
        _report_problems(error.problems, as_json=as_json)
        raise SystemExit(BROKEN) from error
    _report(files, fleet, check=check, as_json=as_json)
    if check and not all(file.is_current for file in files):
        raise SystemExit(DRIFT)


def generated_files(project: Path, fleet: Fleet) -> tuple[GeneratedFile, ...]:
    """Every generated file of the project, with its present and its wanted text."""
    wanted = {PREFECT_YAML: render(with_olap(plan_fleet(fleet.tenants), project_views(project)))}
    if (project / PRODUCT_FILE).exists():
        wanted[PRODUCT_PAGE] = render_product_page(load_product_schema(project))
    return tuple(GeneratedFile(path, _current(project, path), text) for path, text in wanted.items())


def project_views(project: Path) -> ViewRegistry:
    """The project's OLAP views; none without a folder of them. ConfigurationError with every mistake."""
    return read_views(project) if (project / "views").is_dir() else ViewRegistry(())


def write_generated(project: Path) -> None:
    """Bring every generated file up to date; ConfigurationError with all mistakes when a tenant is broken."""
    fleet = load_fleet(project)
    if fleet.broken:
        raise ConfigurationError(fleet.problems)
    files = generated_files(project, fleet)
    _write(project, files)
    _report(files, fleet, check=False, as_json=False)


def _write(project: Path, files: Sequence[GeneratedFile]) -> None:
    for file in files:
        if file.is_current:
            continue
        try:
            write_atomically(project / file.path, file.wanted)
        except OSError as error:
            raise ConfigurationError(Problem(file.path, "", f"cannot be written: {error.strerror}")) from error


def write_atomically(path: Path, text: str) -> None:
    """Replace `path`; a reader sees the old or the new text, never half of one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _current(project: Path, path: str) -> str | None:
    file = project / path
    if not file.exists():
        return None
    try:
        # Bytes, so that other line ends count as drift.
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            Problem(path, "", "is not UTF-8; it is generated, so remove it and sync again")
        ) from error
    except OSError as error:
        raise ConfigurationError(Problem(path, "", f"cannot be read: {error.strerror}")) from error


def _report(files: Sequence[GeneratedFile], fleet: Fleet, *, check: bool, as_json: bool) -> None:
    changed = "drift" if check else "written"
    if as_json:
        entries = [
            {"path": file.path, "status": "unchanged" if file.is_current else changed, "diff": file.diff()}
            for file in files
        ]
        click.echo(json.dumps({"tenants": [t.id for t in fleet.tenants], "files": entries, "problems": []}))
        return
    for file in files:
        if file.is_current:
            click.echo(f"{file.path}: up to date")
        elif check:
            click.echo(file.diff(), nl=False)
            click.echo(f"{file.path}: differs from what it is generated from; run `mozart sync`", err=True)
        else:
            click.echo(f"{file.path}: written")


def _report_broken(fleet: Fleet, *, as_json: bool) -> None:
    _report_problems(fleet.problems, as_json=as_json)
    if not as_json:
        count = len(fleet.broken)
        click.echo(f"nothing written: {count} broken tenant{'' if count == 1 else 's'}", err=True)


def _report_problems(problems: Sequence[Problem], *, as_json: bool) -> None:
    if as_json:
        entries = [{"file": p.file, "key": p.key, "message": p.message} for p in problems]
        click.echo(json.dumps({"tenants": [], "files": [], "problems": entries}))
        return
    for problem in problems:
        click.echo(str(problem), err=True)
