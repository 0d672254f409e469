"""A catalog and an object store that lose, delay, cut and refuse: loads either land or fail with an error of ours.

Every kind of request of a load and of maintenance meets every kind of fault, once and for good. The short form takes a
few of them by the seed, the long form as many as its time allows.
"""

from __future__ import annotations

import random
import time
from itertools import product

from mozart.errors import MozartError
from tests.faults.jobs import Kind
from tests.faults.proxy import Fault, Rule
from tests.faults.world import World

_CHOSEN = 4

_SEEN = (
    (Fault.DROP_BEFORE, 0),
    (Fault.DROP_AFTER, 0),
    (Fault.TRUNCATE, 0),
    (Fault.DELAY, 0),
    (Fault.REPEAT, 0),
    *((Fault.STATUS_BEFORE, status) for status in (403, 409, 429, 500, 503, 507)),
    *((Fault.STATUS_AFTER, status) for status in (500, 503)),
)
"""Every fault, with the status where it answers one."""

_REQUESTS = (
    ("catalog", "POST", r"/oauth/tokens"),
    ("catalog", "GET", r"/v1/.*config"),
    ("catalog", "GET", r"/tables/[^/]+$"),
    ("catalog", "POST", r"/tables/[^/]+$"),
    ("store", "PUT", r"/landing/.*\.parquet"),
    ("store", "POST", r"/landing/.*\.parquet"),
    ("store", "PUT", r"\.avro"),
    ("store", "POST", r"\.avro"),
    ("store", "GET", r"\.avro"),
    ("store", "GET", r"\.parquet"),
    ("store", "HEAD", r"\.parquet"),
    ("store", "GET", r"\.metadata\.json"),
)
"""What the clients ask for: the service, the method and a regular expression of the path."""

_TIMES = (1, None)
# A reply that is late every time only takes long: every client waits for its deadline, at every try.
_CASES = tuple(case for case in product(_REQUESTS, _SEEN, _TIMES) if case[1][0] is not Fault.DELAY or case[2])


def test_a_load_among_faults(loaded: World, rng: random.Random, does_all: bool, seconds: float) -> None:
    cases = rng.sample(_CASES, len(_CASES) if does_all else _CHOSEN)
    end = time.monotonic() + seconds
    kinds: tuple[Kind, ...] = ("load", "load", "load", "compact", "fold", "delete pass")
    for number, ((service, method, path), (fault, status), times) in enumerate(cases):
        if does_all and time.monotonic() > end:
            break
        kind = rng.choice(kinds)
        print(f"{kind}: {service} {method} {path} {fault.value} {status or ''} {'once' if times else 'always'}")
        loaded.tally.cases += 1
        loaded.change(1000 + 10 * number)
        proxy = loaded.catalog_proxy if service == "catalog" else loaded.store_proxy
        proxy.inject(Rule(fault, method, path, status=status or 503, seconds=5.0, times=times))
        loaded.run_disturbed(kind)
        loaded.check()
        loaded.load_exactly()
    loaded.check_files()


def test_a_reply_lost_after_the_commit_costs_one_more_reading_of_the_head(loaded: World) -> None:
    """The load itself finds its commit: one try, no error, and the rows once."""
    loaded.tally.cases += 1
    loaded.change(1000)
    loaded.catalog_proxy.inject(Rule(Fault.DROP_AFTER, path=r"/tables/[^/]+$", times=1))
    result = loaded.run_disturbed("load", compaction=None)
    assert not isinstance(result, MozartError), result
    assert (result.status, result.attempts) == ("committed", 1)
    loaded.check_exact(result.mode)
