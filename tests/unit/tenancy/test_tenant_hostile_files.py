"""Broken and hostile files: one clear line each, never a traceback, and in a moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mozart.errors import ConfigurationError
from mozart.tenancy import yaml_tree
from mozart.tenancy.load import load_tenant

TYPES = ("postgresql",)
WriteTenant = Callable[..., Path]

BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 8)}]\n" for i in range(9)
)

HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "only a comment": (b"# nothing\n", "is empty"),
    "null": (b"~\n", "must be a mapping of keys at the top; is empty"),
    "a list": (b"- a\n- b\n", "must be a mapping of keys at the top; is a list"),
    "a text": (b"tenant\n", "must be a mapping of keys at the top; is text"),
    "a bomb": (BOMB.encode(), "anchors and aliases (&, *) are not allowed"),
    "a recursive alias": (b"a: &a [*a]\n", "anchors and aliases (&, *) are not allowed"),
    "an undefined alias": (b"a: *b\n", "anchors and aliases (&, *) are not allowed"),
    "a python tag": (b"a: !!python/object/apply:os.system [echo]\n", "tags (!) are not allowed"),
    "an own tag": (b"a: !include x\n", "tags (!) are not allowed"),
    "a tab": (b"tenant:\n\tid: acme\n", ":2: a tab cannot indent YAML"),
    "latin-1": (b"tenant:\n  id: \xe9\n", ":2: is not UTF-8 (byte 14)"),
    "utf-16": ("tenant: x\n".encode("utf-16"), "is not UTF-8"),
    "a NUL": (b"a: b\x00c\n", "character that YAML does not allow"),
    "an escaped NUL": (b'a: "b\\0c"\n', "control character"),
    "two documents": (b"a: b\n---\nc: d\n", "holds more than one YAML document"),
    "a list as key": (b"? [a, b]\n: c\n", "a key must be text; this one is a list"),
    "a mapping as key": (b"{{a: b}: c}\n", "a key must be text; this one is a mapping"),
    "a number as key": (b"1: c\n", "a key must be text; this one is an integer"),
    "a yes as key": (b"on: c\n", "a key must be text; this one is a boolean"),
    "a merge key": (b"<<: {a: b}\n", "unknown key"),
    "a key given twice": (b"tenant: {}\ntenant: {}\n", ":2: tenant: is given twice; first in line 1"),
    "deep lists": (b"a: " + b"[" * 50_000, "nested more than 16 levels deep"),
    "deep mappings": (b"{a: " * 50_000, "nested more than 16 levels deep"),
    "deep blocks": (b"- " * 50_000 + b"x", "nested more than 16 levels deep"),
    "unclosed": (b"a: [b\n", "is not valid YAML here"),
    "unclosed quotes": (b'a: "b\n', "is not valid YAML here"),
    "a bad directive": (b"%YAML 9.9\n---\na: b\n", "tenants/acme/tenant.yaml"),
    "too large": (b"#" + b"x" * 1_048_576, "is larger than 1048576 bytes"),
    "too many values": (b"a: [" + b"1," * 150_000 + b"1]", "holds more than 100000 values"),
    "a huge integer": (b"tenant: " + b"9" * 20_000, "must be a mapping of keys; is an integer"),
    "everything a list": (b"tenant: []\ntables: {}\n", "tenant: must be a mapping of keys; is a list"),
}


def problems_of(folder: Path) -> list[str]:
    """The lines of the refusal; anything but ConfigurationError fails the test."""
    with pytest.raises(ConfigurationError) as caught:
        load_tenant(folder, TYPES)
    lines = [str(problem) for problem in caught.value.problems]
    assert lines
    for line in lines:
        assert line.startswith("tenants/"), line
        assert len(line.splitlines()) == 1, line
        assert len(line) < 600, line
    return lines


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_one_clear_line(write_tenant: WriteTenant, name: str) -> None:
    content, expected = HOSTILE[name]
    started = time.process_time()
    lines = problems_of(write_tenant(content))
    assert any(expected in line for line in lines), lines
    assert time.process_time() - started < 5, "a small file must not cost seconds"


@pytest.mark.parametrize("name", ["a bomb", "deep lists", "a tab", "a NUL", "two documents", "a key given twice"])
def test_the_parser_without_c_says_the_same(
    write_tenant: WriteTenant, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(yaml_tree, "_LOADER", yaml.SafeLoader)
    content, expected = HOSTILE[name]
    assert any(expected in line for line in problems_of(write_tenant(content)))


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tenants" / "acme"
    folder.mkdir(parents=True)
    assert "does not exist" in problems_of(folder)[0]
    os.mkfifo(folder / "tenant.yaml")
    assert "is not a regular file" in problems_of(folder)[0]
    (folder / "tenant.yaml").unlink()
    (folder / "tenant.yaml").mkdir()
    assert "is not a regular file" in problems_of(folder)[0]


def test_a_byte_order_mark_and_windows_line_ends_are_fine(write_tenant: WriteTenant, acme: str) -> None:
    content = b"\xef\xbb\xbf" + acme.replace("\n", "\r\n").encode()
    assert load_tenant(write_tenant(content), TYPES).id == "acme"


SNIPPETS = st.sampled_from(
    [
        b"",
        b":",
        b"- ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\t",
        b"&a ",
        b"*a",
        b"!!x ",
        b"? ",
        b"'",
        b'"',
        b"|\n",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"${",
        b"${X:",
        b"}",
        b"---\n",
        b"...\n",
        b"%TAG",
        b"#",
        b"no",
        b"null",
        b"1e999",
        b"0x",
        b"12:30",
        b"<<: ",
        b"id",
        b"tenant:\n",
        b"tables:\n",
        b"9" * 5000,
        b"\\ud800",
        b'"\\ud800"',
        b'"\\x00"',
        b"2024-01-01",
        b"=",
        b"~",
        b"\r",
        b"\xe2\x80\xae",
        b"mode: incremental\n",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(data=st.data())
def test_a_damaged_file_loads_or_gives_clear_lines(write_tenant: WriteTenant, acme: str, data: st.DataObject) -> None:
    content = bytearray(acme.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 20))
        content[at : at + cut] = data.draw(st.one_of(SNIPPETS, st.binary(max_size=8)))
    folder = write_tenant(bytes(content))
    try:
        load_tenant(folder, TYPES)
    except ConfigurationError:
        problems_of(folder)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.dates())
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)
KEYS = (
    "id",
    "source",
    "params",
    "storage",
    "iceberg",
    "schedule",
    "timezone",
    "name",
    "columns",
    "mode",
    "tenant_filter",
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(
    tenant=st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6),
    tables=st.lists(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5), max_size=3) | TREES,
)
def test_well_formed_nonsense_gives_clear_lines(write_tenant: WriteTenant, tenant: object, tables: object) -> None:
    text = yaml.safe_dump({"tenant": tenant, "tables": tables}, allow_unicode=True)
    problems_of(write_tenant(text.encode("utf-8", "replace")))
