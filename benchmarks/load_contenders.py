"""The contenders of `bench_load.py`: each loads one table once, in a process of its own that the benchmark measures.

Run as `python -m benchmarks.load_contenders NAME` with the places as JSON on standard input, so that no password is in
an argument. Rivals are called as their documentation says for bulk loads: dlt with its fast backends, parallel workers
left at their defaults, into local Parquet files (no upload and no Iceberg commit, which Mozart's time includes); pandas
in chunks, appended by pyiceberg.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 100_000


@dataclass(frozen=True)
class Places:
    """Where the table is and where it goes."""

    table: str
    key: tuple[str, ...]
    namespace: str
    source: Mapping[str, Any]
    lakehouse: Mapping[str, Any]
    folder: Path

    @property
    def address(self) -> str:
        """The source as SQLAlchemy's and connectorx's drivers take it."""
        login = f"{self.source['username']}:{self.source['password']}"
        return f"postgresql://{login}@{self.source['host']}:{self.source['port']}/{self.source['database']}"


def mozart(places: Places) -> int:
    """The product's own way: a run's source, session and load."""
    from mozart.connectors.base import SourceConnection
    from mozart.connectors.registry import create_connector
    from mozart.lake.lakehouse import Lakehouse
    from mozart.lake.load import load_table
    from mozart.lake.load_plan import LoadRequest
    from mozart.lake.session import open_lake
    from mozart.tenancy.model import TableSpec

    connector = create_connector(SourceConnection(**places.source), application="mozart/bench")
    spec = TableSpec(name=places.table, source_schema="public", source_table=places.table, primary_key=places.key)
    request = LoadRequest("bench", places.namespace, spec, "bench")
    extensions = places.folder / "extensions"
    with (
        open_lake(
            Lakehouse(**places.lakehouse),
            scratch=places.folder / "scratch",
            extensions=connector.extensions,
            extension_folder=extensions,
        ) as lake,
        connector.open() as reader,
    ):
        reader.attach(lake.connection)
        return load_table(request, reader, lake).rows_committed


def dlt_connectorx(places: Places) -> int:
    """dlt's fastest backend for wide numbers; connectorx reads the whole table into memory."""
    return _dlt(places, "connectorx", {"conn": places.address, "return_type": "arrow"})


def dlt_pyarrow(places: Places) -> int:
    """dlt's backend that keeps types, in chunks."""
    return _dlt(places, "pyarrow", {"tz": "UTC"})


def _dlt(places: Places, backend: str, kwargs: dict[str, Any]) -> int:
    import dlt
    from dlt.destinations import filesystem
    from dlt.sources.sql_database import sql_table

    table = sql_table(
        credentials=places.address.replace("postgresql://", "postgresql+psycopg://"),
        table=places.table,
        backend=backend,
        chunk_size=CHUNK,
        backend_kwargs=kwargs,
        reflection_level="full_with_precision",
    )
    with tempfile.TemporaryDirectory(dir=places.folder) as folder:
        pipeline = dlt.pipeline(
            pipeline_name="bench",
            pipelines_dir=f"{folder}/pipelines",
            destination=filesystem(bucket_url=f"file://{folder}/out"),
            dataset_name="bench",
        )
        pipeline.run(table, loader_file_format="parquet", write_disposition="replace")
        return pipeline.last_trace.last_normalize_info.row_counts[places.table]


def pandas(places: Places) -> int:
    """SQLAlchemy's stream into pandas, chunk by chunk, appended to an Iceberg table."""
    import pandas as pd
    import pyarrow as pa
    import sqlalchemy as sa

    from mozart.lake.lakehouse import Lakehouse

    catalog = Lakehouse(**places.lakehouse).catalog()
    engine = sa.create_engine(places.address.replace("postgresql://", "postgresql+psycopg://"))
    rows, target = 0, None
    with engine.connect().execution_options(stream_results=True) as connection:
        for frame in pd.read_sql(sa.text(f"SELECT * FROM {places.table}"), connection, chunksize=CHUNK):
            for column in frame.select_dtypes(include="object").columns:
                if frame[column].map(type).isin([dict, list]).any():
                    frame[column] = frame[column].map(json.dumps)
                elif not frame[column].map(type).isin([str, type(None)]).all():
                    frame[column] = frame[column].astype(str)
            chunk = pa.Table.from_pandas(frame, preserve_index=False)
            if target is None:
                target = catalog.create_table((places.namespace, places.table), schema=chunk.schema)
            target.append(chunk.cast(target.schema().as_arrow()))
            rows += len(frame)
    return rows


CONTENDERS: Mapping[str, Callable[[Places], int]] = {
    "mozart": mozart,
    "dlt_connectorx": dlt_connectorx,
    "dlt_pyarrow": dlt_pyarrow,
    "pandas": pandas,
}


def main() -> None:
    """Load once; prints the rows it says it loaded."""
    given = json.load(sys.stdin)
    places = Places(**{**given, "folder": Path(given["folder"]), "key": tuple(given["key"])})
    print(CONTENDERS[sys.argv[1]](places))


if __name__ == "__main__":
    main()
