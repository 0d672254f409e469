"""Python drivers of source databases, imported when a source of that kind is opened and not before."""

from __future__ import annotations

import importlib
from typing import Any

from mozart.errors import TerminalError


def import_driver(module: str, *, package: str, kind: str) -> Any:
    """The driver's module; TerminalError naming the package to install when it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module}.".startswith(f"{error.name}."):
            raise
        raise TerminalError(
            f"sources of type {kind!r} need the Python package {package}, which is not installed where this runs; "
            f"install it with `pip install {package}`"
        ) from None
