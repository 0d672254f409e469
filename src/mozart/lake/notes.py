"""What a load that was cut off leaves for the next one: which parts of a table it had landed already.

Notes lie beside the landed files, under the id of what is read (`LoadPlan.read_id`), which changes with every commit of
the table, and the note of the division goes as soon as its files are committed or discarded. Notes are Parquet files
of one text each, for the sweep takes landing files by that ending: what is left over goes with the files it names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO


@dataclass(frozen=True)
class Notes:
    """The notes under one folder (an s3 URI)."""

    io: FileIO
    folder: str

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Keep `content` (JSON) under `name`, in place of what was there."""
        table = pa.table({"note": pa.array([json.dumps(content)], pa.string())})
        with self.io.new_output(self._path(name)).create(overwrite=True) as stream:
            pq.write_table(table, cast(Any, stream))

    def read(self, name: str) -> dict[str, Any] | None:
        """What was kept under `name`; None when there is nothing, or nothing that can be read."""
        source = self.io.new_input(self._path(name))
        if not source.exists():
            return None
        with source.open() as stream:
            table = pq.read_table(cast(Any, stream))
        try:
            return cast(dict[str, Any], json.loads(table.column("note")[0].as_py()))
        except (KeyError, ValueError, TypeError):
            return None

    def forget(self, name: str) -> None:
        """Remove what was kept under `name`, so that no later load takes it up."""
        self.io.delete(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.folder}/notes/{name}.parquet"
