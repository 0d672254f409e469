"""What many tenants cost the operator's commands and Trino's files, without a server: 100, 1,000 and more of them.

    python -m benchmarks.bench_fleet                     # 100 and 1,000
    python -m benchmarks.bench_fleet --tenants 10000

Copies of tenant acme (nine tables) under other names, in a project of this run alone. Measured is the CPU of this
process: reading and checking every tenant's file (what `mozart sync`, `validate` and `deploy` begin with), planning and
rendering `prefect.yaml`, and Trino's rules and passwords, the first time and when nothing changed.

Does not measure what a Prefect server or Trino makes of so many, nor a tenant's run: these do not depend on the others.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from benchmarks.result import Targets, print_result
from mozart.engine.trino_client import TrinoAddress
from mozart.fleet.plan import FleetEnvironment, plan_fleet
from mozart.fleet.prefect_yaml import render
from mozart.services.trino_logins import RULES, TrinoLogins
from mozart.tenancy.load import Fleet, load_fleet
from mozart.tenancy.names import namespaces

CHECKOUT = Path(__file__).resolve().parents[1]
PATTERN = CHECKOUT / "tenants" / "acme" / "tenant.yaml"
TARGETS: Targets = {}


def write_tenants(root: Path, count: int) -> None:
    """So many tenants, each in a schema and under a prefix of its own."""
    shutil.rmtree(root, ignore_errors=True)
    text = PATTERN.read_text()
    for number in range(count):
        name = f"t{number:05}"
        folder = root / "tenants" / name
        folder.mkdir(parents=True)
        (folder / "tenant.yaml").write_text(re.sub(r"\bacme\b", name, text))
    (root / "pyproject.toml").touch()


def bench(root: Path, count: int) -> dict[str, float]:
    """CPU seconds of each step at so many tenants."""
    write_tenants(root, count)
    fleet, reading = cpu_of(lambda: load_fleet(root))
    if len(fleet.tenants) != count:
        raise RuntimeError(f"{count - len(fleet.tenants)} tenants are broken: {fleet.problems[:3]}")
    text, planning = cpu_of(lambda: render(plan_fleet(fleet.tenants, FleetEnvironment())))
    logins = TrinoLogins(root / "access", TrinoAddress(host="x", port=1, username="mozart", password=SecretStr("pw")))
    _, first = cpu_of(lambda: put(logins, fleet))
    _, again = cpu_of(lambda: put(logins, fleet))
    figures = {
        "read_cpu_s": reading,
        "plan_cpu_s": planning,
        "trino_logins_first_cpu_s": first,
        "trino_logins_again_cpu_s": again,
        "prefect_yaml_mb": len(text) / 2**20,
        "trino_rules_mb": (root / "access" / RULES).stat().st_size / 2**20,
    }
    print(f"{count:,} tenants: " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
    return {f"{name}_{count}": round(value, 3) for name, value in figures.items()}


def put(logins: TrinoLogins, fleet: Fleet) -> None:
    logins.put("", [namespaces("iceberg", tenant.id) for tenant in fleet.tenants])


def cpu_of(action: Callable[[], Any]) -> tuple[Any, float]:
    """What `action` gives, and the CPU seconds it took."""
    started = time.process_time()
    value = action()
    return value, time.process_time() - started


def parse_arguments() -> Sequence[int]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], epilog="example: --tenants 10000")
    parser.add_argument("--tenants", type=int, nargs="+", default=[100, 1000], metavar="N")
    return parser.parse_args().tenants


def main() -> None:
    """Run everything; the last line printed is the JSON."""
    counts = sorted(parse_arguments())
    print(f"PYTHONDONTWRITEBYTECODE={os.environ.get('PYTHONDONTWRITEBYTECODE', '')!r}, tenants {counts}")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mozart-bench-", ignore_cleanup_errors=True) as name:
        for count in counts:
            figures |= bench(Path(name) / "project", count)
    print_result("fleet", figures, TARGETS)


if __name__ == "__main__":
    main()
