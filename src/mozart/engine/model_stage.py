"""A copy of the dbt project with one tenant's models, in which what is broken has been replaced by what it declares.

dbt stops at the first file it cannot parse and skips whatever reads a model that failed. To tell a tenant everything at
once, a broken model gives way to a stub: an empty SELECT of its declared columns. A broken model that declares none is
left out, and so is every model that reads it.

The copy lies in the local state, so that nothing of a check is written into the checkout.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import duckdb

from mozart.engine.duckdb import connect
from mozart.sql import quote_identifier
from mozart.tenancy.model_folder import TYPE_TEXT, ModelFile, ModelFolder
from mozart.tenancy.model_properties import DeclaredColumn

_IGNORED = shutil.ignore_patterns("target", "logs", "__pycache__")
_UNKNOWN = "varchar"


@dataclass
class Stage:
    """The copy at `root`. `broken` are the models whose SQL is not used, `left_out` those that are not there at all."""

    folder: ModelFolder
    root: Path
    broken: set[str] = field(default_factory=set[str])
    left_out: set[str] = field(default_factory=set[str])

    def write(self) -> None:
        """Make the copy anew, from what is sound and the stubs of what is `broken`."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.folder.root / "dbt", self.root / "dbt", ignore=_IGNORED)
        self.broken |= {name for name, model in self.folder.models.items() if not self._is_usable(model)}
        self.left_out = self._without_stand_in()
        for name, model in self.folder.models.items():
            if name not in self.left_out:
                self._put(model.file, self.stub(name) if name in self.broken else model.text)
        for file in self.folder.properties:
            self._put(file, (self.folder.root / file).read_text(encoding="utf-8-sig"))

    def columns(self, name: str) -> tuple[tuple[str, str], ...] | None:
        """Names and types that the model declares; None when it declares none, or no type for one of them."""
        declared = self.folder.declared.get(name)
        return typed_columns(declared.columns) if declared else None

    def stub(self, name: str) -> str:
        """An empty model with the declared columns; KeyError without any."""
        columns = self.columns(name)
        if columns is None:
            raise KeyError(name)
        model = self.folder.models[name]
        selected = ", ".join(f"cast(null as {kind}) as {quote_identifier(column)}" for column, kind in columns)
        return f"{{{{ config(alias='{model.name.alias}') }}}}\nselect {selected} where false\n"

    def _is_usable(self, model: ModelFile) -> bool:
        tables = self.folder.raw_tables
        return model.is_sound and all(name in tables and typed_columns(tables[name].columns) for name in model.raw)

    def _without_stand_in(self) -> set[str]:
        """Broken models that declare nothing, and over any distance the sound ones that read them."""
        out = {name for name in self.broken if self.columns(name) is None}
        grown = True
        while grown:
            readers = {
                name
                for name, model in self.folder.models.items()
                if name not in self.broken and out.intersection(model.reads)
            }
            grown = not readers <= out
            out |= readers
        return out

    def _put(self, file: str, text: str) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def typed_columns(columns: Iterable[DeclaredColumn]) -> tuple[tuple[str, str], ...] | None:
    """Names with types that DuckDB takes, an unknown type as text; None without columns or where one has no type."""
    listed = list({column.name: column for column in columns}.values())
    if not listed or any(column.data_type is None for column in listed):
        return None
    return tuple((c.name, c.data_type if c.data_type and is_type(c.data_type) else _UNKNOWN) for c in listed)


@cache
def is_type(text: str) -> bool:
    """Whether DuckDB knows the type."""
    if not TYPE_TEXT.fullmatch(text):
        return False
    try:
        with connect() as connection:
            connection.execute(f"SELECT CAST(NULL AS {text})")
    except duckdb.Error:
        return False
    return True
