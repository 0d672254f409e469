"""The work pools of the local stack: their names, job templates, and making them over HTTP.

`mozart` is a process pool: a run is a process of its own (`python -m prefect.engine`, without the supervising process
that Prefect adds by default, which costs one CPU second a run). `mozart-inline` runs short flows inside its worker.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from mozart.errors import TransientError
from mozart.services import loopback

PROCESS_POOL = "mozart"
INLINE_POOL = "mozart-inline"
PROCESS_TYPE = "process"
INLINE_TYPE = "mozart-inline"

_TEXT: Mapping[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def ensure_pools(api_url: str, root: Path) -> None:
    """Create the stack's two pools, or give the existing ones these templates; limits and pauses stay as they are."""
    ensure_pool(api_url, PROCESS_POOL, PROCESS_TYPE, process_template(root))
    ensure_pool(api_url, INLINE_POOL, INLINE_TYPE, inline_template())


def process_template(root: Path) -> dict[str, Any]:
    """The job template of the process pool: runs start in `root`, without a supervising process."""
    engine = f"{shlex.quote(sys.executable)} -m prefect.engine"
    return job_template(
        command={**_TEXT, "default": engine, "title": "Command"},
        working_dir={**_TEXT, "default": str(root), "title": "Working directory"},
        stream_output={"type": "boolean", "default": True, "title": "Stream output"},
    )


def inline_template() -> dict[str, Any]:
    """The job template of the in-process pool."""
    return job_template(command={**_TEXT, "default": None, "title": "Command"})


def job_template(**variables: Mapping[str, Any]) -> dict[str, Any]:
    """A base job template in Prefect's form, with the variables every worker has and those given."""
    properties: dict[str, Any] = {
        "name": {**_TEXT, "default": None, "title": "Name"},
        "env": {
            "type": "object",
            "title": "Environment variables",
            "additionalProperties": _TEXT,
            "description": "Added to a run's environment. Never a secret: flow runs read blocks.",
        },
        "labels": {"type": "object", "title": "Labels", "additionalProperties": {"type": "string"}},
        **variables,
    }
    return {
        "job_configuration": {name: f"{{{{ {name} }}}}" for name in properties},
        "variables": {"type": "object", "properties": properties},
    }


def ensure_pool(api_url: str, name: str, pool_type: str, template: Mapping[str, Any]) -> None:
    """Create the work pool, or give the existing one this template. Raises TransientError."""
    http = loopback.client()
    try:
        known = http.get(f"{api_url}/work_pools/{name}")
        if known.status_code == 404:
            body = {"name": name, "type": pool_type, "base_job_template": template}
            http.post(f"{api_url}/work_pools/", json=body).raise_for_status()
        elif known.raise_for_status().json().get("base_job_template") != template:
            http.patch(f"{api_url}/work_pools/{name}", json={"base_job_template": template}).raise_for_status()
    except httpx.HTTPError as error:
        raise TransientError(f"the work pool {name} could not be made at {api_url}: {error}") from error
