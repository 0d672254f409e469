"""What the fault suite did and what it found, counted over a session and printed at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one session. `faults` are those that were met, by kind; rows, tables and records are what was found
    wrong, and every one of them fails its test as well. `most_tries`: of the unluckier of two loaders, for one load."""

    cases: int = 0
    checks: int = 0
    loads: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    rows_strange: int = 0
    tables_unreadable: int = 0
    records_lost: int = 0
    records_that_lied: int = 0
    most_tries: int = 1
    races: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    errors: Counter[str] = field(default_factory=Counter[str])
    seeds: list[str] = field(default_factory=list[str])

    def lines(self) -> Iterator[str]:
        """The report."""
        yield f"cases run              {self.cases} ({self.loads} loads and maintenance steps, {self.checks} checks)"
        yield f"faults injected        {self.faults.total()}"
        yield from (f"    {kind:<34} {number}" for kind, number in sorted(self.faults.items()))
        yield f"rows lost              {self.rows_lost}"
        yield f"rows doubled           {self.rows_doubled}"
        yield f"rows the source never had  {self.rows_strange}"
        yield f"tables unreadable      {self.tables_unreadable}"
        yield f"commit records lost    {self.records_lost}, that lied {self.records_that_lied}"
        yield f"tries of the unluckier of two loaders  {self.most_tries} (in {self.races} races)"
        raised = ", ".join(f"{name} {number}" for name, number in sorted(self.errors.items())) or "none"
        yield f"errors an operator would have seen     {raised}"
        yield from (f"seed of {seed}" for seed in self.seeds)
