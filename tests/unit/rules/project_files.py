"""What the rules look at: the repository's own files, and its Python modules parsed once."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[3]
_NOT_OURS = {".git", ".venv", ".mozart", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "node_modules"}


@dataclass(frozen=True)
class SourceFile:
    """One file: its path relative to the project, with slashes, and its bytes."""

    path: str
    content: bytes

    @cached_property
    def text(self) -> str | None:
        """The file's text; None when it is not text."""
        if b"\x00" in self.content:
            return None
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text or "", self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def module(self) -> str:
        """The dotted name it is imported by: `mozart.lake.commit`, `flows.tenant_pipeline`."""
        parts = self.parts[1:] if self.parts[0] == "src" else self.parts
        names = [*parts[:-1], parts[-1].removesuffix(".py")]
        return ".".join(names[:-1] if names[-1] == "__init__" else names)


@cache
def project_files() -> tuple[SourceFile, ...]:
    """Every file git tracks or would track; without git, every file that is not local state."""
    paths = [path for path in sorted(_listed_by_git() or _listed_by_walking()) if (ROOT / path).is_file()]
    return tuple(SourceFile(path, (ROOT / path).read_bytes()) for path in paths)


def _listed_by_git() -> set[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    return set(filter(None, done.stdout.decode().split("\0")))


def _listed_by_walking() -> set[str]:
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
    return {path.as_posix() for path in paths if not _NOT_OURS & set(path.parts)}
