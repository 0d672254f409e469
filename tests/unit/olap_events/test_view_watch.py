"""A daemon sees a view more without a restart, and keeps what it had while a file is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

from mozart.olap.registry import read_views
from mozart.olap.view_watch import ViewWatch
from tests.projects import PROJECT


def test_views_come_and_go_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "views", tmp_path / "views")
    said: list[str] = []
    first = read_views(tmp_path)
    watch = ViewWatch(tmp_path, first, "axiom_vision", said.append)
    assert watch() is first and not said

    shutil.copytree(tmp_path / "views" / "dim_org", tmp_path / "views" / "dim_seventh")
    assert watch().get("dim_seventh").name == "dim_seventh"

    file = tmp_path / "views" / "dim_seventh" / "view.yaml"
    text = file.read_text()
    file.write_text("kind: nonsense\n")
    assert watch().get("dim_seventh") and watch().get("dim_org")
    assert len([line for line in said if "cannot be read" in line]) == 1, "told once"

    file.write_text(f"{text}debounce_seconds: 3\n")
    assert watch().get("dim_seventh").debounce_seconds == 3
    shutil.rmtree(tmp_path / "views" / "dim_seventh")
    assert "dim_seventh" not in {view.name for view in watch().views}
