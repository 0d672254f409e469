"""The views of a project, read from `views/`, in dependency order.

Needs no database. `read_views` refuses the whole set when one view is wrong, with every mistake at once: a view left
out would be removed from the database by the next install.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from mozart.errors import ConfigurationError, Problem
from mozart.olap.database import VIEW_SCHEMA
from mozart.olap.model import SourceTable, View
from mozart.olap.view_file import SOURCES_FILE, VIEWS_FOLDER, read_sources, read_view
from mozart.tenancy.yaml_tree import ProblemLog


@dataclass(frozen=True)
class ViewRegistry:
    """Every view, each after the views it depends on; and what validation expects of the OLTP tables."""

    views: tuple[View, ...]
    sources: tuple[SourceTable, ...] = ()

    def get(self, name: str) -> View:
        """The view of that name; ConfigurationError with the known names when there is none."""
        for view in self.views:
            if view.name == name:
                return view
        known = ", ".join(view.name for view in self.views) or "none"
        raise ConfigurationError(f"there is no view {name!r}; known: {known}")

    def of_event(self, topic: str) -> tuple[View, ...]:
        """The views that an event of the topic touches; empty for an unknown topic."""
        return tuple(view for view in self.views if topic in view.events)

    @property
    def topics(self) -> frozenset[str]:
        """Every topic that some view listens to."""
        return frozenset(topic for view in self.views for topic in view.events)

    @property
    def dimensions(self) -> tuple[View, ...]:
        return tuple(view for view in self.views if view.kind == "dimension")

    @property
    def facts(self) -> tuple[View, ...]:
        return tuple(view for view in self.views if view.kind == "fact")


def read_views(root: Path, *, default_schema: str = VIEW_SCHEMA) -> ViewRegistry:
    """The views of the project at `root`; ConfigurationError with every mistake at once (file, key, cure).

    `default_schema` is where views live whose file names no schema.
    """
    folder = root / VIEWS_FOLDER
    problems: list[Problem] = []
    views: list[View] = []
    for entry in _view_folders(folder):
        log = ProblemLog(f"{VIEWS_FOLDER}/{entry.name}/view.yaml")
        view = read_view(entry, log, default_schema=default_schema)
        problems += log.problems
        views += [view] if view else []
    log = ProblemLog(f"{VIEWS_FOLDER}/{SOURCES_FILE}")
    sources = read_sources(folder / SOURCES_FILE, log)
    problems += log.problems
    if not problems:
        problems += _problems_between(views)
    if problems:
        raise ConfigurationError(problems)
    return ViewRegistry(_ordered(views), sources)


def _view_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigurationError(Problem(VIEWS_FOLDER, "", "there is no such folder; each view is a folder in it"))
    entries = (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
    return sorted(entries, key=lambda entry: entry.name)


def _problems_between(views: Sequence[View]) -> Iterator[Problem]:
    by_name = {view.name: view for view in views}
    names = ", ".join(sorted(by_name))
    for view in views:
        file = f"{VIEWS_FOLDER}/{view.name}/view.yaml"
        for other in view.depends_on:
            if other not in by_name:
                yield Problem(file, "depends_on", f"there is no view {other!r}; known: {names}")
            elif view.kind == "dimension" and by_name[other].kind == "fact":
                yield Problem(file, "depends_on", f"a dimension cannot wait for the fact {other!r}; turn it round")
    indexes = [(view.schema_name, view.index_name) for view in views]
    for view in views:
        if indexes.count((view.schema_name, view.index_name)) > 1:
            file = f"{VIEWS_FOLDER}/{view.name}/view.yaml"
            yield Problem(file, "index_name", f"{view.index_name!r} belongs to another view too; give each its own")
    cycle = _cycle(views)
    if cycle:
        file = f"{VIEWS_FOLDER}/{cycle[0]}/view.yaml"
        yield Problem(file, "depends_on", f"goes round in a circle: {' → '.join(cycle)}; take one of them out")


def _graph(views: Sequence[View]) -> TopologicalSorter[str]:
    known = {view.name for view in views}
    return TopologicalSorter({view.name: [name for name in view.depends_on if name in known] for view in views})


def _cycle(views: Sequence[View]) -> list[str]:
    try:
        _graph(views).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def _ordered(views: Sequence[View]) -> tuple[View, ...]:
    """Dependencies first, dimensions before facts, else by name."""
    by_name = {view.name: view for view in views}
    order: list[View] = []
    graph = _graph(views)
    graph.prepare()
    while graph.is_active():
        ready = sorted(graph.get_ready(), key=lambda name: (by_name[name].kind != "dimension", name))
        order += [by_name[name] for name in ready]
        graph.done(*ready)
    return tuple(sorted(order, key=lambda view: view.kind != "dimension"))
