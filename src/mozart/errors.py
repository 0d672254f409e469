"""The error tree: one root, four kinds, and only one of them is worth a retry.

MozartError
├── ConfigurationError   what a person wrote is wrong; says file and key, all mistakes at once
├── TransientError       the same call may go through later: retried
│   ├── CommitConflictError   another writer was first: plan again on the new head
│   └── CommitInDoubtError    the catalog's answer was lost and the outcome cannot be read: nothing is deleted
├── TerminalError        retrying cannot help: a missing table, a refused login, a type that has no answer
└── DataQualityError     the data breaks a contract or a test: the last good version stays
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MozartError(Exception):
    """Root of every error Mozart raises on purpose. Its text is meant for an operator and holds no secret."""


@dataclass(frozen=True)
class Problem:
    """One mistake in one place: `file` relative to the project, `key` as a dotted path, `message` with the cure."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.message}"


class ConfigurationError(MozartError):
    """What a person wrote is wrong. Carries every mistake found, not only the first."""

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = [Problem(problems, "", "")]
            text = problems[0].file
        else:
            problems = [problems] if isinstance(problems, Problem) else list(problems)
            text = "\n".join(str(problem) for problem in problems)
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(text)


class TransientError(MozartError):
    """The same call may go through later; the only kind that is retried."""


class CommitConflictError(TransientError):
    """Another writer committed first; the plan is stale and must be made again on the new head."""


class CommitInDoubtError(TransientError):
    """A commit was sent, its answer was lost, and the catalog cannot be asked. No file may be deleted."""


class TerminalError(MozartError):
    """Retrying cannot help."""


class DataQualityError(MozartError):
    """The data breaks a contract or a test; what was published before stays."""
