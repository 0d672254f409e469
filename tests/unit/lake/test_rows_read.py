"""How far a read is, in figures and as a line."""

from __future__ import annotations

import pytest

from mozart.lake.extract import RowsRead


@pytest.mark.parametrize(
    ("rows", "expected", "parts", "of_parts", "percent"),
    [
        (500, 1000, 0, 1, 50),
        (1500, 1000, 0, 1, 99),  # the estimate was too low: not done before it is
        (500, None, 0, 1, 0),
        (500, 0, 0, 1, 0),
        (1000, None, 1, 1, 100),
        (10, 1000, 2, 4, 50),
    ],
)
def test_the_share_of_a_read(rows: int, expected: int | None, parts: int, of_parts: int, percent: float) -> None:
    assert RowsRead("orders", rows, expected, 10.0, parts, of_parts).percent == percent


def test_the_line_says_read_until_the_rows_are_landed() -> None:
    assert RowsRead("orders", 500, 1000, 10.0, 0, 1).line == "orders: 500 of about 1000 rows read, 10 rows/s"
    landed = RowsRead("orders", 1000, None, 10.0, 1, 1).line
    assert landed == "orders: 1000 rows landed, part 1 of 1 (100 %), 10 rows/s"
