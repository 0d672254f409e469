"""The OLAP layer on the deployed project: its database, its daemons, its history, and receivers of alerts."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from mozart.olap.database import OlapDatabase, olap_database_from_settings
from mozart.olap.state import Attempt, ViewState, read_history, read_states
from samples import axiom_core
from tests.e2e.deployment import Deployed, wait_until

FULL_SYNC = "olap-full-sync/daily"
RESUME = "olap-full-sync/resume"
DIMENSIONS = ("dim_case_type", "dim_org", "dim_stakeholder_type", "dim_time")
FACTS = ("mv_business_fact", "mv_cashflow_fact")
DIMENSION_STEPS = ("refresh_dim_case_type", "refresh_dim_org", "refresh_dim_time", "refresh_dim_stakeholder")
FACT_STEPS = ("refresh_business_fact", "refresh_cashflow_fact")


@dataclass(frozen=True)
class Olap:
    """The layer as its operator sees it."""

    project: Deployed

    @property
    def database(self) -> OlapDatabase:
        return olap_database_from_settings(self.project.settings)

    # -- the database -------------------------------------------------------------------------------------------

    def change(self, seed: int, inserts: int = 8, updates: int = 8) -> None:
        """Business, with its events."""
        with self.database.connect(autocommit=False) as connection:
            axiom_core.apply_changes(connection, seed=seed, inserts=inserts, updates=updates)

    def states(self) -> dict[str, ViewState]:
        with self.database.connect() as connection:
            return {state.name: state for state in read_states(connection)}

    def history(self, view: str | None = None) -> list[Attempt]:
        """The newest first."""
        with self.database.connect() as connection:
            return read_history(connection, view=view, limit=500)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with self.database.connect() as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def is_fresh(self, *views: str) -> bool:
        states = self.states()
        return not any(states[view].is_stale for view in views)

    def wait_fresh(self, *views: str, seconds: float = 60) -> float:
        return wait_until(lambda: self.is_fresh(*views), seconds, f"{', '.join(views)} are fresh")

    @contextmanager
    def holding_view(self, view: str) -> Generator[None]:
        """As if another sync were at this view until the block is left."""
        with self.database.connect(autocommit=False) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('mv:' || %s, 0))", [view])
            yield
            connection.rollback()

    # -- Prefect ------------------------------------------------------------------------------------------------

    def deployment(self, name: str) -> dict[str, Any]:
        return self.project.get(f"deployments/name/{name}")

    def start(self, name: str, **parameters: Any) -> str:
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.project.post(f"deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"])

    def runs(self, name: str) -> list[dict[str, Any]]:
        """The deployment's runs that somebody asked for, the newest first."""
        body = {
            "sort": "EXPECTED_START_TIME_DESC",
            "deployments": {"id": {"any_": [self.deployment(name)["id"]]}},
        }
        return [run for run in self.project.post("flow_runs/filter", body) if not run["auto_scheduled"]]

    def steps(self, run: str) -> dict[str, dict[str, Any]]:
        """The run's steps by name, once all of them are written as ended."""
        found: dict[str, dict[str, Any]] = {}

        def are_written() -> bool:
            rows = self.project.post("task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
            found.clear()
            found.update({row["name"]: row for row in rows})
            final = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
            return "record_sync_completion" in found and all(row["state"]["type"] in final for row in rows)

        wait_until(are_written, 60, f"the steps of run {run} are written")
        return found


# -- receivers --------------------------------------------------------------------------------------------------------


@dataclass
class Received:
    """What the receivers of alerts got."""

    posts: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    http_port: int = 0
    smtp_port: int = 0

    def mail_of(self, subject: str) -> EmailMessage | None:
        return next((mail for mail in self.mails if subject in str(mail["Subject"])), None)


@contextmanager
def receivers() -> Generator[Received]:
    """A webhook and a mail server on loopback, at ports of their own."""
    received = Received()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.posts.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
            return

    class Mail(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 test")
            while line := self.rfile.readline().decode().strip():
                verb = line.split(" ")[0].upper()
                if verb == "DATA":
                    self._say("354 go on")
                    received.mails.append(self._message())
                self._say("221 bye" if verb == "QUIT" else "250 ok")
                if verb == "QUIT":
                    return

        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def _message(self) -> EmailMessage:
            lines = iter(self.rfile.readline, b".\r\n")
            return cast(EmailMessage, email.message_from_bytes(b"".join(lines), policy=email.policy.default))

    http = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    received.http_port, received.smtp_port = http.server_address[1], smtp.server_address[1]
    servers = (http, smtp)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
