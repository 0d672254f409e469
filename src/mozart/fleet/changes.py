"""What was done to one object of the Prefect API: the words in which a deploy is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Change = Literal["created", "updated", "unchanged", "removed"]
Kind = Literal["block", "limit", "automation", "deployment", "login"]


@dataclass(frozen=True)
class Applied:
    """One object and what became of it."""

    kind: Kind
    name: str
    change: Change
    note: str = ""
    """What an operator should know besides, such as where a removed tenant's data still lies."""
