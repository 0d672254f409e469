"""What a model's SQL says before dbt renders it: the alias it gives itself, the sources and models it reads.

The template is parsed and never run. Names that a template computes are not seen here; dbt's parse resolves them, and
the run refuses what they must not be (`mozart.engine.dbt_run`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes


@dataclass(frozen=True)
class Call:
    """`ref()` or `source()` with its literal arguments and its line."""

    name: str
    arguments: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Template:
    """A parsed model. `alias` None: it gives itself none; `has_computed_alias`: it does, by an expression."""

    alias: str | None
    alias_line: int
    has_computed_alias: bool
    calls: tuple[Call, ...]


class TemplateMistake(Exception):  # noqa: N818 - a finding about a tenant's file, not an error of ours
    """The template cannot be parsed; `line` says where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read_template(text: str) -> Template:
    """The calls of a model's SQL. Raises TemplateMistake when it is no template at all."""
    try:
        tree = Environment(extensions=["jinja2.ext.do"], autoescape=True).parse(text)
    except TemplateSyntaxError as error:
        raise TemplateMistake(error.lineno, error.message or "is no template") from None
    except RecursionError:
        raise TemplateMistake(1, "is nested too deeply") from None
    alias, line, is_computed = None, 1, False
    for call in _named(tree, "config"):
        is_computed = is_computed or call.dyn_kwargs is not None or bool(call.args)
        for keyword in call.kwargs:
            if keyword.key == "alias":
                line = call.lineno
                alias = str(keyword.value.value) if isinstance(keyword.value, nodes.Const) else None
                is_computed = is_computed or alias is None
    return Template(alias, line, is_computed, tuple(_calls(tree)))


def _named(tree: nodes.Template, *names: str) -> Iterator[nodes.Call]:
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in names:
            yield call


def _calls(tree: nodes.Template) -> Iterator[Call]:
    for call in _named(tree, "ref", "source"):
        constants = [str(part.value) for part in call.args if isinstance(part, nodes.Const)]
        if constants and len(constants) == len(call.args) and isinstance(call.node, nodes.Name):
            yield Call(call.node.name, tuple(constants), call.lineno)
