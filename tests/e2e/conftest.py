"""One deployed project for all end-to-end tests: stack, sample, sync, deploy and a first full run, once a session.

Tests share it and leave it whole: sources, files and blocks as they found them, the tenant's next run completing.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mozart.services.secrets import ensure_secrets
from mozart.services.stack import Stack, load_stack
from samples import axiom_core
from tests.e2e.deployment import TENANT, Deployed
from tests.e2e.olap import Olap, Received, receivers
from tests.projects import PROJECT_FILES, make_project

SCALE = 0.05
"""2,000 cases and 10,000 cash flows."""


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack of these tests' own, for they kill its parts; its project has one tenant."""
    with tempfile.TemporaryDirectory(prefix="mozart-e2e-", ignore_cleanup_errors=True) as name:
        root = Path(name).resolve()
        make_project(root, copied=PROJECT_FILES)
        for folder in (root / "tenants").iterdir():
            if folder.is_dir() and folder.name != TENANT:
                shutil.rmtree(folder)
        running = load_stack(root, durable=False)
        try:
            running.up()
            yield running
        finally:
            running.down()


@pytest.fixture(scope="session")
def deployed(stack: Stack) -> Deployed:
    """Tenant acme deployed by the commands, loaded and built once."""
    project = Deployed(stack)
    port = stack.postgres.ports["sql"].number
    with stack.settings.env_file.open("a") as file:
        file.write(f"ACME_DB_HOST=127.0.0.1\nACME_DB_PORT={port}\n")
    ensure_secrets(stack.settings.root, ("ACME_DB_PASSWORD",))
    password = project.settings.get("ACME_DB_PASSWORD")
    stack.postgres.create_database(TENANT, owner=TENANT, password=password)
    with project.connect_source() as connection:
        axiom_core.create(connection, scale=SCALE)
        axiom_core.grant_reader(connection, TENANT)
    _unschedule(project)
    project.must("sync")
    project.must("deploy")
    project.complete()
    return project


@pytest.fixture(scope="session")
def received() -> Iterator[Received]:
    """What a webhook and a mail server on loopback were sent as alerts."""
    with receivers() as received:
        yield received


@pytest.fixture(scope="session")
def olap(deployed: Deployed, received: Received) -> Olap:
    """Axiom Core with its views installed and deployed, the daemons running, windows of a second."""
    with deployed.settings.env_file.open("a") as file:
        file.write(f"MOZART_ALERT_SLACK_URL=http://127.0.0.1:{received.http_port}/hook\n")
        file.write(f"MOZART_ALERT_SMTP_HOST=127.0.0.1\nMOZART_ALERT_SMTP_PORT={received.smtp_port}\n")
        file.write("MOZART_OLAP_SYNC_SECONDS=10\n")
    for file in deployed.root.glob("views/*/view.yaml"):
        file.write_text(f"{file.read_text()}debounce_seconds: 1\ndebounce_max_wait_seconds: 5\n")
    layer = Olap(deployed)
    database = layer.database
    deployed.stack.postgres.create_database(database.database, owner="axiom", password="axiom-pw")
    with database.connect(autocommit=False) as connection:
        axiom_core.create(connection, scale=SCALE)
    deployed.must("olap", "install")
    deployed.must("sync")
    deployed.must("deploy")
    deployed.must("up")
    return layer


def _unschedule(project: Deployed) -> None:
    """A scheduled run would take the tenant's only slot from a test: leave it to the next 29th of February."""
    file = project.root / "tenants" / TENANT / "tenant.yaml"
    text, count = re.subn(r'(?m)^  schedule: ".*"$', '  schedule: "0 0 29 2 *"', file.read_text())
    assert count == 1
    file.write_text(text)
