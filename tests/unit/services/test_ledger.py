"""The record of what was started, and the lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mozart.errors import TransientError
from mozart.services.ledger import Ledger
from mozart.services.process import ProcessRecord


def test_records_of_parallel_writers_are_all_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ledger.put(f"s{i}", ProcessRecord(i, 1.5, {"p": i})), range(40)))
    assert Ledger(tmp_path).read() == {f"s{i}": ProcessRecord(i, 1.5, {"p": i}) for i in range(40)}
    ledger.remove("s3")
    ledger.remove("never there")
    assert "s3" not in ledger.read()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": {"pid": 1}}', '{"a": 1}'])
def test_damaged_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.file.write_text(content)
    assert ledger.read() == {}


def test_second_holder_is_refused_and_told_who_holds(tmp_path: Path) -> None:
    with Ledger(tmp_path).lock(), pytest.raises(TransientError, match=r"pid \d+"), Ledger(tmp_path).lock():
        pass
    with Ledger(tmp_path).lock():
        pass
