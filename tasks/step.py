"""The one way to make a task: named for people, retried only for what may pass, never cached, never persisted.

A step's work is a core function that runs without Prefect. Steps have side effects, so a result is never taken for
done: a rescheduled run looks at the data's own record instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from mozart.errors import TransientError

P = ParamSpec("P")
R = TypeVar("R")

RETRY_DELAYS_SECONDS = (2, 10, 30)


def step(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task whose runs are called `name` (its parameters in braces); transient failures are tried three times more."""

    def make(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=function.__name__,
            task_run_name=name,
            retries=len(RETRY_DELAYS_SECONDS),
            retry_delay_seconds=list(RETRY_DELAYS_SECONDS),
            retry_condition_fn=_may_pass,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(function)

    return make


async def _may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(await state.aresult(raise_on_failure=False), TransientError)
