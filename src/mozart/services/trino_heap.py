"""The heap of a Trino node: read from `jvm.config` or put in its place, and what one query may use of it.

`docker/trino/jvm.config` says how large the heap is, here as in the containers; a caller that needs another size gives
it, and every other line of the file stays. What a query may use on the node follows the heap: Trino does not start
when that and its own reserve (three tenths of the heap) are more than the heap together.
"""

from __future__ import annotations

import re
from pathlib import Path

from mozart.errors import ConfigurationError

_HEAP = re.compile(r"-Xmx(\d+)([mgMG])")
_MB = {"m": 1, "g": 1024}


def read_heap_mb(file: Path) -> int:
    """The heap that a `jvm.config` asks for, in MB. Raises ConfigurationError unless one line says it, in M or G."""
    found = [match for option in _options(file) if (match := _HEAP.fullmatch(option))]
    if len(found) != 1:
        raise ConfigurationError(f"{file}: one line must say how large the heap is, e.g. -Xmx1G; {len(found)} do")
    number, unit = found[0].groups()
    return int(number) * _MB[unit.lower()]


def jvm_options(file: Path, heap_mb: int) -> list[str]:
    """The options in a `jvm.config`, with a heap of `heap_mb` MB in the place of the one that stands there."""
    return [f"-Xmx{heap_mb}M" if _HEAP.fullmatch(option) else option for option in _options(file)]


def query_memory(heap_mb: int) -> str:
    """What one query may use on a node with this heap: half of it, as Trino writes sizes."""
    return f"{heap_mb // 2}MB"


def _options(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
