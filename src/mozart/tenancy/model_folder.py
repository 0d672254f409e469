"""A tenant's `models/` as files: what is there, whether it follows the naming grammar, and what it reads.

Every mistake of every file is found in one pass, with its line, and nothing is run. A model that has one is not
`sound`: the build on empty tables (`mozart.engine.validate_models`) takes its declared columns in its place, so that
the models that read it are checked all the same.

Knows no other tenant's folder: a name with another tenant's id in it is refused by its form.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mozart.errors import ConfigurationError, Problem
from mozart.tenancy.model import TableSpec, Tenant
from mozart.tenancy.model_properties import DeclaredModel, DeclaredSource, DeclaredTable, read_properties
from mozart.tenancy.model_template import Call, Template, TemplateMistake, read_template
from mozart.tenancy.names import ModelName, parse_model_name, raw_source
from mozart.tenancy.yaml_tree import ProblemLog, read_tree

SOURCES_FILE = "_sources.yml"
LARGEST_FILE = 1_048_576
FOLDERS: Mapping[str, str] = {"stg": "staging", "mart": "mart"}

# What a type may be written with: it becomes SQL, so neither quotes nor separators of statements.
TYPE_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(?:\([A-Za-z0-9_ ,()]*\))?(?:\[\])*")


@dataclass(frozen=True)
class ModelFile:
    """One model's SQL. `file` is relative to the project; `reads` and `raw` are the models and raw tables it names.

    An unsound one has a mistake that was noted.
    """

    file: str
    name: ModelName
    text: str
    reads: tuple[str, ...]
    raw: tuple[str, ...]
    is_sound: bool


@dataclass
class ModelFolder:
    """What was found. `is_declared` False: a `.yml` file could not be read, so nothing can be said about types."""

    tenant: Tenant
    root: Path
    models: dict[str, ModelFile] = field(default_factory=dict[str, ModelFile])
    declared: dict[str, DeclaredModel] = field(default_factory=dict[str, DeclaredModel])
    sources: list[DeclaredSource] = field(default_factory=list[DeclaredSource])
    properties: list[str] = field(default_factory=list[str])
    problems: list[Problem] = field(default_factory=list[Problem])
    is_declared: bool = True

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.root / "tenants" / self.tenant.id / "models"

    @property
    def raw_tables(self) -> Mapping[str, DeclaredTable]:
        """The declared raw tables of this tenant by name."""
        name = raw_source(self.tenant.id)
        return {table.name: table for source in self.sources if source.name == name for table in source.tables}

    def relative(self, path: Path) -> str:
        """A path as messages show it."""
        return path.relative_to(self.root).as_posix()

    def note(self, file: str, line: int, message: str, key: str = "") -> None:
        """Note a mistake; line 0 when it concerns the whole file."""
        self.problems.append(Problem(f"{file}:{line}" if line else file, key, message))


def read_model_folder(root: Path, tenant: Tenant) -> ModelFolder:
    """Everything in the tenant's `models/`, with all mistakes in `problems`. Never raises for what a tenant wrote."""
    folder = ModelFolder(tenant, root)
    sql: list[Path] = []
    for path in _files(folder):
        if path.suffix in (".yml", ".yaml"):
            _read_properties(folder, path)
        elif path.suffix == ".sql":
            sql.append(path)
        elif path.suffix != ".md":
            folder.note(folder.relative(path), 0, "is neither a model (.sql) nor properties (.yml); remove it")
    if not sql:
        folder.note(folder.relative(folder.path), 0, "holds no models")
        return folder
    _check_sources(folder)
    names = {path.stem for path in sql}
    for path in sql:
        _read_model(folder, path, names)
    for model in folder.declared.values():
        if model.name not in names:
            near = difflib.get_close_matches(model.name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; remove the entry or add the file"
            folder.note(model.file, model.line, f"there is no model {model.name[:80]!r}{hint}")
    return folder


def _files(folder: ModelFolder) -> Iterator[Path]:
    """The regular files, in order; hidden ones are nobody's, links could lead out of the tenant's folder."""
    if not folder.path.is_dir():
        return
    for path in sorted(folder.path.rglob("*")):
        if any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder.path).parts):
            continue
        if path.is_symlink():
            folder.note(folder.relative(path), 0, "is a link; put the file itself here")
        elif path.is_file():
            yield path


def _read_properties(folder: ModelFolder, path: Path) -> None:
    file = folder.relative(path)
    log = ProblemLog(file)
    root = read_tree(path, log, multiline=True)
    folder.problems.extend(log.problems)
    if root is None or log:
        folder.is_declared = False
    else:
        folder.properties.append(file)
    if root is None:
        return
    found = read_properties(root, file)
    for model in found.models:
        first = folder.declared.setdefault(model.name, model)
        if first is not model:
            folder.note(file, model.line, f"model {model.name!r} is declared twice; first in {first.file}:{first.line}")
    folder.sources.extend(found.sources)


def _check_sources(folder: ModelFolder) -> None:
    """One source, `{tid}_raw`, with exactly the tables that tenant.yaml loads, every column typed."""
    tenant, expected = folder.tenant, raw_source(folder.tenant.id)
    for source in folder.sources:
        if source.name != expected:
            folder.note(
                source.file, source.line, f"source {source.name[:80]!r} is not this tenant's; its own is {expected}"
            )
    sources_file = folder.relative(folder.path / SOURCES_FILE)
    own = [source for source in folder.sources if source.name == expected]
    if not own:
        if folder.is_declared and not folder.sources:
            folder.note(sources_file, 0, f"declares no source {expected}; list the tables of {tenant.file} there")
        return
    specs = {spec.name: spec for spec in tenant.tables}
    for table in folder.raw_tables.values():
        if table.name not in specs:
            message = f"table {table.name[:80]!r} is not loaded; add it to {tenant.file} or remove it here"
            folder.note(table.file, table.line, message)
        else:
            _check_columns(folder, table, specs[table.name])
    for name in specs:
        if name not in folder.raw_tables:
            folder.note(own[0].file, own[0].line, f"table {name!r} of {tenant.file} is missing in source {expected}")


def _check_columns(folder: ModelFolder, table: DeclaredTable, spec: TableSpec) -> None:
    if not table.columns:
        folder.note(table.file, table.line, f"table {table.name!r} declares no columns; give each with its data_type")
        return
    seen: set[str] = set()
    for column in table.columns:
        if column.data_type is None:
            folder.note(table.file, column.line, "has no data_type; write the type it has in raw", column.name)
        elif not TYPE_TEXT.fullmatch(column.data_type):
            folder.note(table.file, column.type_line, f"{column.data_type[:60]!r} is not a type", column.name)
        if column.name in seen:
            folder.note(table.file, column.line, "is declared twice", column.name)
        seen.add(column.name)
    needed = [name.lower() for name in (spec.columns or (*spec.primary_key, *_some(spec.incremental_column)))]
    for name in dict.fromkeys(needed):
        if name not in seen:
            message = f"column {name!r} is loaded ({folder.tenant.file}) but not declared"
            folder.note(table.file, table.line, message, table.name)
    if spec.columns is not None:
        for column in table.columns:
            if column.name not in needed:
                message = f"is not among the columns of {table.name!r} in {folder.tenant.file}, so raw has none"
                folder.note(table.file, column.line, message, column.name)


def _some(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()


def _read_model(folder: ModelFolder, path: Path, names: set[str]) -> None:
    """One model. What has no usable name is noted and left out; what has is kept, sound or not."""
    file, noted = folder.relative(path), len(folder.problems)
    name = _model_name(folder, path)
    if name is None:
        return
    other = folder.models.get(str(name))
    if other is not None:
        folder.note(file, 0, f"there is a model of this name in {other.file} already; rename one of them")
        return
    text = _read_text(folder, path)
    calls: tuple[Call, ...] = ()
    if text is not None:
        try:
            template = read_template(text)
        except TemplateMistake as mistake:
            folder.note(file, mistake.line, f"is not a valid template: {' '.join(str(mistake).split())}")
        else:
            calls = template.calls
            _check_alias(folder, file, name, template)
            _check_calls(folder, file, calls, names)
    if str(name) not in folder.declared and folder.is_declared:
        folder.note(file, 0, "has no entry in a .yml file beside it; declare its columns with their types")
    is_sound = len(folder.problems) == noted
    _check_place(folder, path, name)
    reads, raw = (tuple(c.arguments[-1] for c in calls if c.name == kind) for kind in ("ref", "source"))
    folder.models[str(name)] = ModelFile(file, name, text or "", reads, raw, is_sound)


def _model_name(folder: ModelFolder, path: Path) -> ModelName | None:
    tenant_id, file = folder.tenant.id, folder.relative(path)
    try:
        name = parse_model_name(path.stem)
    except ConfigurationError as error:
        example = f"{tenant_id}__stg_cases.sql or {tenant_id}__mart_case.sql"
        folder.note(file, 0, f"{error.problems[0].message}: {example}")
        return None
    if name.tenant != tenant_id:
        folder.note(file, 0, f"is named after tenant {name.tenant!r}; models of this one begin with '{tenant_id}__'")
        return None
    return name


def _check_place(folder: ModelFolder, path: Path, name: ModelName) -> None:
    first = path.relative_to(folder.path).parts[0]
    if first != FOLDERS[name.layer]:
        place = folder.relative(folder.path / FOLDERS[name.layer])
        folder.note(folder.relative(path), 0, f"is in the wrong folder; models {name.layer}_… go into {place}/")


def _read_text(folder: ModelFolder, path: Path) -> str | None:
    file = folder.relative(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        folder.note(file, 0, f"cannot be read: {error.strerror}")
        return None
    if len(raw) > LARGEST_FILE:
        folder.note(file, 0, f"is larger than {LARGEST_FILE} bytes; no model is")
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        folder.note(file, line, f"is not UTF-8 (byte {error.start}); save the file as UTF-8")
        return None
    if "\x00" in text:
        folder.note(file, text.count("\n", 0, text.index("\x00")) + 1, "holds a NUL character")
        return None
    if not text.strip():
        folder.note(file, 0, "is empty")
        return None
    return text


def _check_alias(folder: ModelFolder, file: str, name: ModelName, template: Template) -> None:
    declared = folder.declared.get(str(name))
    alias = template.alias or (declared.alias if declared else None)
    if alias is None and not template.has_computed_alias:
        folder.note(file, 1, f"names no table; add {{{{ config(alias='{name.alias}') }}}}")
    elif alias is not None and alias.strip() != name.alias:
        folder.note(file, template.alias_line, f"alias {alias[:80]!r} must be {name.alias!r}, as the file is named")


def _check_calls(folder: ModelFolder, file: str, calls: Sequence[Call], names: Iterable[str]) -> None:
    for call in calls:
        if call.name == "source" and len(call.arguments) == 2:
            _check_source_call(folder, file, call)
        elif call.name == "ref":
            _check_ref_call(folder, file, call, sorted(names))


def _check_source_call(folder: ModelFolder, file: str, call: Call) -> None:
    source, table = call.arguments
    expected = raw_source(folder.tenant.id)
    if source != expected:
        message = f"reads source {source[:80]!r}, which is not this tenant's; its own is {expected}"
    elif table in folder.raw_tables or not folder.raw_tables:
        return  # without any table there is one mistake, in the sources file
    else:
        near = difflib.get_close_matches(table, folder.raw_tables, n=1)
        message = f"source {expected} has no table {table[:80]!r}{_did_you_mean(near)}"
    folder.note(file, call.line, message)


def _check_ref_call(folder: ModelFolder, file: str, call: Call, names: list[str]) -> None:
    name = call.arguments[-1]
    if name in names and len(call.arguments) == 1:
        return
    prefix = f"{folder.tenant.id}__"
    if "__" in name and not name.startswith(prefix):
        message = f"reads model {name[:80]!r}, which is not this tenant's; its models begin with {prefix!r}"
    else:
        message = f"there is no model {name[:80]!r}{_did_you_mean(difflib.get_close_matches(name, names, n=1))}"
    folder.note(file, call.line, message)


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {near[0]!r}?" if near else ""
