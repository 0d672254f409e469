"""The three sample tenants deployed on one stack by the commands an operator uses, and their sources at hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import sql

from mozart.services.secrets import ensure_secrets
from mozart.services.stack import Stack
from samples import atlas, axiom_core, harbor
from tests.e2e.deployment import Deployed
from tests.integration.tenants.conftest import Rows, ask_file, ask_server
from tests.integration.tenants.test_three_sources import MARTS, expected_rows

SCALE = 0.05
VICTIM, OTHERS = "harbor", ("acme", "atlas")
DATABASES = {"acme": axiom_core, "harbor": harbor}


@dataclass
class DeployedFleet:
    """The three sample tenants on one stack."""

    project: Deployed
    seeds: Iterator[int] = field(default_factory=lambda: iter(range(100, 200)))

    @property
    def atlas_file(self) -> Path:
        return self.project.root / ".mozart" / "samples" / "atlas.db"

    def change_sources(self) -> None:
        """Let business go on everywhere."""
        seed = next(self.seeds)
        for name, sample in DATABASES.items():
            with self.project.stack.postgres.superuser(name).connect() as connection:
                sample.apply_changes(connection, seed=seed, inserts=10, updates=6)
        atlas.apply_changes(self.atlas_file, seed=seed, inserts=4, updates=6, deletes=3)

    def start_all(self) -> dict[str, str]:
        """Ask for a run of each; run ids by tenant."""
        return {name: self.project.start(name) for name in (VICTIM, *OTHERS)}

    def heads(self) -> dict[str, int | None]:
        """The snapshots of the victim's marts."""
        return {mart: self.project.head(VICTIM, mart).snapshot_id for mart in MARTS}

    def compare_with_source(self, name: str) -> None:
        """Every mart of the tenant, row by row, with the same question asked of its source."""
        for mart in MARTS:
            published = self.project.read_by_pyiceberg(name, mart)
            fields = self.project.catalog.load_table((name, mart)).schema().fields
            expected = expected_rows(name, mart, [str(column.field_type) for column in fields], self._ask(name))
            assert Counter(zip(*published.to_pydict().values(), strict=True)) == Counter(expected), f"{name}.{mart}"

    def _ask(self, name: str) -> Callable[[str], Rows]:
        if name == "atlas":
            return lambda question: ask_file(self.atlas_file, question)
        return lambda question: ask_server(self.project.stack.postgres.superuser(name), question)


def deploy_fleet(stack: Stack) -> DeployedFleet:
    """All three deployed by the command; the victim has run once."""
    fleet = DeployedFleet(Deployed(stack))
    project, port = fleet.project, stack.postgres.ports["sql"].number
    with stack.settings.env_file.open("a") as file:
        for name in DATABASES:
            file.write(f"{name.upper()}_DB_HOST=127.0.0.1\n{name.upper()}_DB_PORT={port}\n")
    ensure_secrets(project.root, [f"{name.upper()}_DB_PASSWORD" for name in DATABASES])
    for name, sample in DATABASES.items():
        password = project.settings.get(f"{name.upper()}_DB_PASSWORD")
        stack.postgres.create_database(name, owner=name, password=password)
        with stack.postgres.superuser(name).connect() as connection:
            sample.create(connection, scale=SCALE)
            sample.grant_reader(connection, name)
    fleet.atlas_file.parent.mkdir(parents=True, exist_ok=True)
    atlas.create(fleet.atlas_file, scale=SCALE)
    for name in (VICTIM, *OTHERS):
        _unschedule(project.root / "tenants" / name / "tenant.yaml")
    project.must("deploy")
    project.complete(VICTIM)
    return fleet


def _unschedule(file: Path) -> None:
    """A scheduled run would take the tenant's only slot from the test: leave it to the next 29th of February."""
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(r'(?m)^  schedule: ".*"$', '  schedule: "0 0 29 2 *"', text), encoding="utf-8")


@contextmanager
def edited(file: Path, old: str, new: str) -> Generator[None]:
    """The file with other words in it, for as long as the block lasts."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")


@contextmanager
def source_down(fleet: DeployedFleet) -> Generator[None]:
    """Nobody gets into harbor's database; the server that acme's is on goes on."""
    database = sql.Identifier(VICTIM)
    with fleet.project.stack.postgres.superuser().connect(autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(database))
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(database))
