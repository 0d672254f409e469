"""The last line of every benchmark: its figures, their targets and which of them were missed, as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

Targets = Mapping[str, tuple[str, float]]
"""Figure → (`<=` or `>=`, bound)."""


def print_result(bench: str, figures: Mapping[str, float], targets: Targets) -> None:
    """Print the line. A figure that was not measured is missed."""
    rounded = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"bench": bench, "figures": rounded, "targets": targets, "missed": missed(figures, targets)}))


def missed(figures: Mapping[str, float], targets: Targets) -> list[str]:
    """The targets that were not met."""
    return [
        name
        for name, (sign, bound) in targets.items()
        if name not in figures or not (figures[name] <= bound if sign == "<=" else figures[name] >= bound)
    ]
