"""`${VAR}` and `${VAR:default}` inside values of tenant.yaml: checked when the file is read, resolved at deployment.

Nothing here reads the environment: the values come from the caller. No message holds a value or a default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\$\{(?P<inside>[^}]*)\}")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<default>.*))?", re.DOTALL)

# A last part `id` or `name` names a secret without being one: access_key_id, secret_name.
_SECRET_KEY = re.compile(
    r"password|passwd|passphrase|pwd|secret|token|credential|dsn|connection_?string"
    r"|(api|private|access|account|encryption|signing|master|shared|ssl|sas)[_-]?key",
    re.IGNORECASE,
)
_NOT_SECRET_KEY = re.compile(r"[_-](id|name|file|path)$", re.IGNORECASE)
_LOGIN_IN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/@\s:]*:[^/@\s]+@")


@dataclass(frozen=True)
class Variable:
    """One `${name}`; `default` is None when the file gives none."""

    name: str
    default: str | None


def has_template(text: str) -> bool:
    """Whether `text` holds, or was meant to hold, a `${…}`."""
    return "${" in text


def variables(text: str) -> tuple[Variable, ...]:
    """The well-formed variables of `text`, in order."""
    found = (_INSIDE.fullmatch(match["inside"]) for match in _PLACEHOLDER.finditer(text))
    return tuple(Variable(match["name"], match["default"]) for match in found if match)


def template_mistake(text: str) -> str | None:
    """What is wrong with the `${…}` of `text`, or None."""
    rest = _PLACEHOLDER.sub("", text)
    if "${" in rest:
        return "has a '${' without its '}'"
    for match in _PLACEHOLDER.finditer(text):
        inside = _INSIDE.fullmatch(match["inside"])
        if inside is None:
            return "a variable is written ${NAME} or ${NAME:default}; NAME has letters, digits and underscores"
        default = inside["default"]
        if default is not None and "${" in default:
            return f"the default of ${{{inside['name']}}} cannot hold another variable"
        if default is not None and default.startswith("-"):
            return (
                f"the default of ${{{inside['name']}}} starts with '-'; write ${{NAME:default}}, not ${{NAME:-default}}"
            )
    return None


def is_secret_key(key: str) -> bool:
    """Whether a key's name says that its value is a secret."""
    return bool(_SECRET_KEY.search(key)) and not _NOT_SECRET_KEY.search(key)


def secret_mistake(key: str, text: str) -> str | None:
    """Why `text` may not stand in a file under `key`: a secret in plain text, or a default for one. Else None."""
    if is_secret_key(key):
        found = variables(text)
        if not found or _PLACEHOLDER.sub("", text):
            return "is a secret and may not stand in a file; write ${NAME} and set NAME in the environment or .env"
        if any(variable.default is not None for variable in found):
            return "a default for a secret is refused; write ${NAME} without one"
    if _LOGIN_IN_URL.search(_PLACEHOLDER.sub("", text)):
        return "holds a login inside an address; write ${NAME} and set NAME in the environment or .env"
    return None


def declared_value(text: str) -> str | None:
    """`text` with every variable replaced by its default, or None when one has none."""
    found = variables(text)
    if any(variable.default is None for variable in found):
        return None
    return _substitute(text, {variable.name: variable.default or "" for variable in found})


def missing_variables(text: str, values: Mapping[str, str]) -> tuple[str, ...]:
    """The variables of `text` that neither `values` nor a default gives; an empty value counts as not given."""
    return tuple(v.name for v in variables(text) if v.default is None and not values.get(v.name))


def resolve_text(text: str, values: Mapping[str, str]) -> str:
    """`text` with every variable replaced; KeyError when `missing_variables` is not empty."""
    given: dict[str, str] = {}
    for variable in variables(text):
        value = values.get(variable.name) or variable.default
        if value is None:
            raise KeyError(variable.name)
        given[variable.name] = value
    return _substitute(text, given)


def _substitute(text: str, given: Mapping[str, str]) -> str:
    # One pass: a value that itself looks like ${…} stays as it is.
    return _PLACEHOLDER.sub(lambda match: given[match["inside"].partition(":")[0]], text)
