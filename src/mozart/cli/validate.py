"""`mozart validate`: everything that can be said about tenants and definitions before anything runs.

Configuration, names, SQL on empty tables, the product schema, generated files, entrypoints. Resolves no variable, needs
no secret and no server, and writes into the local state only. Each tenant is checked by itself: what is broken in one
neither hides nor breaks another. With tenants named, only what is theirs is looked at: the others' mistakes do not
count, and the flows, which are the project's, are not imported (3 CPU s of Prefect; they come with the whole fleet).

Exit codes: 0 nothing wrong; 1 problems, each a line `file:line: message`; 2 no such tenant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import yaml

from mozart.cli.sync import PREFECT_YAML, generated_files, project_views
from mozart.engine.validate_models import ModelCheck, check_models
from mozart.errors import ConfigurationError, MozartError, Problem
from mozart.fleet.olap_plan import with_olap
from mozart.fleet.plan import plan_fleet
from mozart.fleet.prefect_yaml import render
from mozart.olap.registry import ViewRegistry
from mozart.settings import find_root
from mozart.tenancy.load import Fleet, load_fleet, tenant_folders
from mozart.tenancy.model import Tenant
from mozart.tenancy.product_schema import ProductSchema, load_product_schema

FAILED = 1
_AT_ONCE = 2
_RUNS_SHOWN = 3
_PLACE = re.compile(r"(?P<file>.+?)(?::(?P<line>[0-9]+))?")


@dataclass
class Report:
    """One tenant's part of the report; the project's own has the id None."""

    tenant: str | None
    problems: list[Problem] = field(default_factory=list[Problem])
    check: ModelCheck | None = None
    next_runs: list[datetime] = field(default_factory=list[datetime])


@click.command(epilog="Example: mozart validate acme --json")
@click.argument("tenants", metavar="[TENANT]...", nargs=-1)
@click.option("--parse-only", is_flag=True, help="Parse the models, and do not build them on empty tables.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="The project's folder.")
def command(tenants: tuple[str, ...], parse_only: bool, as_json: bool, root: Path | None) -> None:
    """Check tenants (all, or those named), their models and the project's definitions.

    Needs no secret and no server. Exits 0 when nothing is wrong, 1 with problems, 2 when there is no such tenant.
    """
    project = (root or find_root()).resolve()
    fleet = load_fleet(project)
    for tenant_id in tenants:
        if tenant_id not in fleet.broken:
            fleet.tenant(tenant_id)  # raises, naming those there are
    reports = validate(project, fleet, tenants or None, parse_only=parse_only)
    _show(reports, as_json=as_json)
    if any(report.problems for report in reports):
        raise SystemExit(FAILED)


def validate(project: Path, fleet: Fleet, named: Sequence[str] | None, *, parse_only: bool = False) -> list[Report]:
    """Check the tenants named, or with None all of them and the definitions; the project's own report comes first."""
    own = Report(None)
    known = [folder.name for folder in tenant_folders(project)]
    chosen = [tenant_id for tenant_id in known if named is None or tenant_id in named]
    product = _product(project, own)
    reports = [Report(tenant_id, list(fleet.broken.get(tenant_id, ()))) for tenant_id in chosen]
    good = {tenant.id: tenant for tenant in fleet.tenants}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        checks = [
            pool.submit(_check_tenant, project, good[report.tenant], product, report, parse_only)
            for report in reports
            if report.tenant in good
        ]
        _check_generated(project, fleet, own, reports, whole=named is None and not fleet.broken)
        if named is None:
            _check_deployments(project, fleet, own, reports)
        for check in checks:
            check.result()
    return [own, *reports]


def _product(project: Path, own: Report) -> ProductSchema | None:
    try:
        return load_product_schema(project)
    except ConfigurationError as error:
        own.problems += error.problems
        return None


def _check_tenant(
    project: Path, tenant: Tenant, product: ProductSchema | None, report: Report, parse_only: bool
) -> None:
    place = f"tenants/{tenant.id}/models"
    try:
        report.check = check_models(project, project / ".mozart", tenant, product, parse_only=parse_only)
        report.problems += report.check.problems
    except ConfigurationError as error:
        report.problems += error.problems
    except MozartError as error:
        report.problems.append(Problem(place, "", str(error)))
    except Exception as error:  # noqa: BLE001 - one tenant's check must not take the others' along
        message = f"the check itself broke off: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        report.problems.append(Problem(place, "", message))


def _check_generated(project: Path, fleet: Fleet, own: Report, reports: Sequence[Report], *, whole: bool) -> None:
    """The generated files; where not the whole can be judged, each asked-for deployment by itself."""
    try:
        if whole:
            own.problems += _drift(project, fleet)
        else:
            _compare_deployments(project, fleet, {report.tenant: report for report in reports})
    except ConfigurationError as error:
        own.problems += [problem for problem in error.problems if problem not in own.problems]


def _check_deployments(project: Path, fleet: Fleet, own: Report, reports: Sequence[Report]) -> None:
    """Entrypoints that import, and for information when each tenant runs next."""
    from mozart.fleet.definitions import entrypoint_problems, next_runs  # noqa: PLC0415 - imports Prefect

    by_tenant = {report.tenant: report for report in reports}
    plan = with_olap(plan_fleet(fleet.tenants), _views(project, own))
    own.problems += entrypoint_problems(project, plan.all_deployments)
    for deployment in plan.deployments:
        if deployment.schedule:
            by_tenant[deployment.parameters["tenant"]].next_runs = next_runs(deployment.schedule, _RUNS_SHOWN)


def _views(project: Path, own: Report) -> ViewRegistry:
    try:
        return project_views(project)
    except ConfigurationError as error:
        own.problems += [problem for problem in error.problems if problem not in own.problems]
        return ViewRegistry(())


def _drift(project: Path, fleet: Fleet) -> list[Problem]:
    message = "is not what `mozart sync` would write; run it"
    return [Problem(file.path, "", message) for file in generated_files(project, fleet) if not file.is_current]


def _compare_deployments(project: Path, fleet: Fleet, asked: Mapping[str | None, Report]) -> None:
    """Each deployment as prefect.yaml has it against its tenant's file, whatever stands beside it."""
    try:
        present = _entries((project / PREFECT_YAML).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        present = {}
    plan = plan_fleet(fleet.tenants)
    wanted = _entries(render(plan))
    for deployment in plan.all_deployments:
        report = asked.get(deployment.parameters["tenant"])
        key = (deployment.entrypoint, deployment.name)
        if report is not None and present.get(key) != wanted[key]:
            message = f"deployment {deployment.full_name} is not what `mozart sync` would write; run it"
            report.problems.append(Problem(PREFECT_YAML, "", message))


def _entries(text: str) -> dict[tuple[str, str], Any]:
    """A file's deployments by entrypoint and name: a name is unique within its flow only."""
    tree = yaml.safe_load(text)
    listed = tree.get("deployments") if isinstance(tree, dict) else None
    entries = [entry for entry in listed or () if isinstance(entry, dict) and "name" in entry]
    # As text: in a file edited by hand either may be anything.
    return {(str(entry.get("entrypoint")), str(entry["name"])): entry for entry in entries}


def _show(reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_json(reports)))
        return
    for report in reports:
        for problem in report.problems:
            click.echo(str(problem))
    for report in reports:
        if report.tenant is not None:
            click.echo(_line(report))
    own = reports[0].problems
    if own:
        click.echo(f"project: {_counted(len(own))}")


def _line(report: Report) -> str:
    check = report.check
    models = "" if check is None else f", {check.models} model{'' if check.models == 1 else 's'}"
    if report.problems:
        rest = "; its models could not be built, so there may be more" if check and not check.was_built else ""
        return f"{report.tenant}: {_counted(len(report.problems))}{models}{rest}"
    runs = ", ".join(f"{run:%Y-%m-%d %H:%M}" for run in report.next_runs)
    return f"{report.tenant}: ok{models}{f'; next runs {runs} UTC' if runs else ''}"


def _counted(count: int) -> str:
    return f"{count} problem{'' if count == 1 else 's'}"


def _as_json(reports: Sequence[Report]) -> dict[str, Any]:
    own, *tenants = reports
    return {
        "ok": not any(report.problems for report in reports),
        "problems": [_problem(problem) for problem in own.problems],
        "tenants": [
            {
                "id": report.tenant,
                "ok": not report.problems,
                "models": report.check.models if report.check else None,
                "built": report.check.was_built if report.check else False,
                "next_runs": [run.isoformat() for run in report.next_runs],
                "problems": [_problem(problem) for problem in report.problems],
            }
            for report in tenants
        ],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    match = _PLACE.fullmatch(problem.file)
    line = match["line"] if match else None
    return {
        "file": match["file"] if match else problem.file,
        "line": int(line) if line else None,
        "key": problem.key,
        "message": problem.message,
    }
