"""The catalog's reply is lost, late, cut or wrong: the committer tells what happened, and no landed file is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from pyiceberg.catalog import Catalog

from mozart.errors import CommitConflictError, CommitInDoubtError, TerminalError, TransientError
from mozart.lake import commit
from mozart.lake.catalog_client import Deadline, set_deadline
from tests.contract.lake.conftest import LakeTable, people
from tests.faults.proxy import Fault, FaultProxy, Rule

pytestmark = pytest.mark.faults

COMMIT = r"/tables/[^/]+$"
AFTER = {
    "dropped": Rule(Fault.DROP_AFTER, path=COMMIT),
    "truncated": Rule(Fault.TRUNCATE, path=COMMIT),
    "garbage": Rule(Fault.STATUS_AFTER, path=COMMIT, status=200, body=b"<html>welcome</html>"),
    "another table's reply": Rule(Fault.STATUS_AFTER, path=COMMIT, status=200, body=b"{}"),
    **{f"{status} after": Rule(Fault.STATUS_AFTER, path=COMMIT, status=status) for status in (500, 502, 503, 504)},
    "409 after": Rule(Fault.STATUS_AFTER, path=COMMIT, status=409),
    "400 after": Rule(Fault.STATUS_AFTER, path=COMMIT, status=400),
    "401 after, once": Rule(Fault.STATUS_AFTER, path=COMMIT, status=401, times=1),
    "sent twice by a gateway": Rule(Fault.REPEAT, path=COMMIT),
}

BEFORE: dict[str, tuple[Rule, type[Exception]]] = {
    "dropped before": (Rule(Fault.DROP_BEFORE, path=COMMIT), CommitInDoubtError),
    "503 before": (Rule(Fault.STATUS_BEFORE, path=COMMIT, status=503), CommitInDoubtError),
    "500 before": (Rule(Fault.STATUS_BEFORE, path=COMMIT, status=500), CommitInDoubtError),
    "409 before": (Rule(Fault.STATUS_BEFORE, path=COMMIT, status=409), CommitConflictError),
    "429 before": (Rule(Fault.STATUS_BEFORE, path=COMMIT, status=429), TransientError),
    "403 before": (Rule(Fault.STATUS_BEFORE, path=COMMIT, status=403), TerminalError),
    "400 before": (Rule(Fault.STATUS_BEFORE, path=COMMIT, status=400), TerminalError),
}


@pytest.mark.parametrize(
    ("verb", "name"),
    [("merge", name) for name in AFTER]
    + [(verb, name) for verb in ("append", "replace") for name in ("dropped", "500 after", "409 after")],
)
def test_a_commit_that_landed_is_found(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog], name: str, verb: str
) -> None:
    loaded.load("merge", people([4], "before"))
    plan = loaded.plan(verb, people([3, 30], "faulty") if verb != "append" else people([30], "faulty"))
    catalog = proxied()
    proxy.inject(AFTER[name])
    outcome = plan.send(catalog)
    assert (outcome.status, outcome.rows_added) == ("committed", len(plan.rows))
    assert proxy.served(AFTER[name].fault), "the fault was not met"
    loaded.landed(plan)
    loaded.check()
    # whoever runs the load again finds it done
    again = loaded.plan(verb, people([3, 30], "faulty"), load_id=plan.record.load_id)
    assert again.send(loaded.catalog).status == "already_done"
    assert loaded.head().snapshot_id == outcome.snapshot_id


@pytest.mark.parametrize("name", ["dropped", "truncated", "500 after", "409 after", "sent twice by a gateway"])
def test_a_table_that_was_created_is_found(
    lake_table: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog], name: str
) -> None:
    plan = lake_table.plan("append", people(range(5)))
    catalog = proxied()
    proxy.inject(AFTER[name])
    assert plan.send(catalog).status == "committed"
    lake_table.landed(plan)
    lake_table.check()


@pytest.mark.parametrize(
    ("verb", "name"),
    [("merge", name) for name in BEFORE]
    + [("append", "409 before"), ("replace", "409 before"), ("replace", "503 before")],
)
def test_a_commit_that_did_not_land_can_be_made_again(
    loaded: LakeTable,
    proxy: FaultProxy,
    proxied: Callable[[], Catalog],
    name: str,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commit, "_PAUSES", (0.0, 0.0))
    loaded.load("merge", people([4], "before"))
    plan = loaded.plan(verb, people([30]))
    catalog = proxied()
    rule, error = BEFORE[name]
    proxy.inject(rule)
    with pytest.raises(error) as raised:
        plan.send(catalog)
    assert type(raised.value) is error
    assert loaded.identifier[1] in str(raised.value)
    loaded.check()
    proxy.clear()
    loaded.load(verb, people([30]), load_id=plan.record.load_id)
    loaded.check()


def test_a_reply_that_comes_too_late(loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog]) -> None:
    plan = loaded.plan("merge", people([3, 30], "late"))
    catalog = proxied()
    set_deadline(catalog, Deadline(connect=5, read=0.5))
    proxy.inject(Rule(Fault.DELAY, path=COMMIT))
    assert plan.send(catalog).status == "committed"
    loaded.landed(plan)
    loaded.check()


def test_a_commit_under_way_lands_once_whoever_is_first(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is stuck between client and catalog; the load is made again; then the first request arrives."""
    monkeypatch.setattr(commit, "_PAUSES", (0.0, 0.0))
    plan = loaded.plan("merge", people([3, 30], "stuck"))
    catalog = proxied()
    set_deadline(catalog, Deadline(connect=5, read=0.3))
    proxy.inject(Rule(Fault.HOLD, path=COMMIT, times=1))
    with pytest.raises(CommitInDoubtError, match="will not be committed twice"):
        plan.send(catalog)
    loaded.check()
    again = loaded.plan("merge", people([3, 30], "stuck"), load_id=plan.record.load_id)
    assert again.head.snapshot_id == plan.head.snapshot_id
    proxy.release()
    assert proxy.wait_until_served(Fault.HOLD).status == 200
    # the first has landed now; the second was planned on the same head
    assert again.send(loaded.catalog).status == "already_done"
    loaded.landed(plan)
    loaded.check()


def test_a_commit_under_way_that_comes_second_is_refused(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_PAUSES", (0.0,))
    plan = loaded.plan("merge", people([3, 30], "stuck"))
    catalog = proxied()
    set_deadline(catalog, Deadline(connect=5, read=0.3))
    proxy.inject(Rule(Fault.HOLD, path=COMMIT, times=1))
    with pytest.raises(CommitInDoubtError):
        plan.send(catalog)
    loaded.load("merge", people([3, 30], "stuck"), load_id=plan.record.load_id)
    proxy.release()
    assert proxy.wait_until_served(Fault.HOLD).status == 409
    loaded.check()


def test_a_lost_reply_while_another_commits(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog]
) -> None:
    """Ours lands, its reply is held, another load lands on top of it: ours is still found."""
    plan = loaded.plan("merge", people([3, 30], "ours"))
    catalog = proxied()
    proxy.inject(Rule(Fault.DELAY, path=COMMIT))
    proxy.inject(Rule(Fault.DROP_AFTER, path=COMMIT))
    statuses: list[str] = []
    set_deadline(catalog, Deadline(connect=5, read=20))
    sender = threading.Thread(target=lambda: statuses.append(plan.send(catalog).status))
    sender.start()
    proxy.wait_until_served(Fault.DELAY)
    loaded.landed(plan)
    loaded.load("merge", people([3, 31], "theirs"))
    proxy.release()
    sender.join(30)
    assert statuses == ["committed"]
    loaded.check()


def test_the_catalog_goes_away_with_the_reply(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "_PAUSES", (0.0, 0.0))
    plan = loaded.plan("merge", people([3, 30], "in doubt"))
    catalog = proxied()
    proxy.inject(Rule(Fault.DROP_AFTER, path=COMMIT))
    proxy.inject(Rule(Fault.STATUS_BEFORE, method="GET", status=503))
    with pytest.raises(CommitInDoubtError, match="no file may be deleted"):
        plan.send(catalog)
    loaded.landed(plan)
    loaded.check()
    proxy.clear()
    again = loaded.plan("merge", people([3, 30], "in doubt"), load_id=plan.record.load_id)
    assert again.send(catalog).status == "already_done"
    loaded.check()


def test_reading_the_head_fails_as_an_operator_can_use(
    loaded: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog]
) -> None:
    catalog = proxied()
    for status, error in ((503, TransientError), (500, TransientError), (403, TerminalError)):
        proxy.inject(Rule(Fault.STATUS_BEFORE, method="GET", path="/tables/", status=status, times=1))
        with pytest.raises(error, match="reading table") as raised:
            commit.read_head(catalog, loaded.identifier)
        assert loaded.lakehouse.secret_access_key.get_secret_value() not in str(raised.value)
    proxy.inject(Rule(Fault.TRUNCATE, method="GET", path="/tables/", times=1))
    with pytest.raises(TransientError, match="reading table"):
        commit.read_head(catalog, loaded.identifier)


def test_staging_a_table_fails_before_anything_is_sent(
    lake_table: LakeTable, proxy: FaultProxy, proxied: Callable[[], Catalog]
) -> None:
    plan = lake_table.plan("append", people([1]))
    catalog = proxied()
    proxy.inject(Rule(Fault.STATUS_BEFORE, path="/tables$", status=503, times=1))
    with pytest.raises(TransientError, match="nothing was committed"):
        plan.send(catalog)
    assert lake_table.head().table is None


def test_the_store_fails_while_manifests_are_written(
    loaded: LakeTable, lakehouse_store: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    through = loaded.lakehouse.model_copy(update={"s3_endpoint": lakehouse_store.url}).catalog()
    plan = loaded.plan("append", people([30]), head=commit.read_head(through, loaded.identifier))
    lakehouse_store.inject(Rule(Fault.STATUS_BEFORE, method="PUT", path=r"\.avro", status=403))
    with pytest.raises(TransientError, match="nothing was committed"):
        plan.send(through)
    assert lakehouse_store.exchanges
    loaded.check()
