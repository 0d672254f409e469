"""The quoter: whatever the text, one identifier or one literal comes out, and it reads back as it was."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mozart.sql import quote_identifier, quote_literal, quote_qualified

TEXT = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=60)


def read_back(literal: str) -> object:
    """The literal's value as a real database sees it, and proof that it is one expression."""
    rows = duckdb.execute(f"SELECT {literal} AS value").fetchall()
    assert len(rows) == 1 and len(rows[0]) == 1
    return rows[0][0]


@given(TEXT | st.sampled_from(["';DROP TABLE x;--", "\\'", "''", "$$", "/*", "--", "\n'"]))
@settings(max_examples=300, deadline=None)
def test_any_text_reads_back(text: str) -> None:
    assert read_back(quote_literal(text)) == text


@given(TEXT.filter(bool))
@settings(max_examples=300, deadline=None)
def test_any_name_is_one_column(name: str) -> None:
    result = duckdb.execute(f"SELECT 1 AS {quote_identifier(name)}")
    assert result.description is not None and [column[0] for column in result.description] == [name]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12))
@settings(deadline=None)
def test_decimals_are_exact(value: Decimal) -> None:
    assert read_back(f"CAST({quote_literal(value)} AS DECIMAL(38,4))") == value


def test_times_are_written_in_utc() -> None:
    moment = datetime(2024, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert quote_literal(moment) == "TIMESTAMPTZ '2024-02-29 23:30:00+00:00'"
    assert quote_literal(date(2024, 2, 29)) == "DATE '2024-02-29'"
    assert quote_literal(datetime(2024, 1, 1, tzinfo=UTC)).endswith("+00:00'")


@pytest.mark.parametrize(
    ("value", "literal"), [(None, "NULL"), (True, "TRUE"), (False, "FALSE"), (7, "7"), (Decimal("1E+3"), "1000")]
)
def test_plain_values(value: object, literal: str) -> None:
    assert quote_literal(value) == literal  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", ["a\x00b", Decimal("NaN"), Decimal("Infinity"), datetime(2024, 1, 1)])
def test_what_has_no_literal_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"literal|number"):
        quote_literal(value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["", "a\x00"])
def test_what_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        quote_identifier(name)


def test_qualified_names_quote_each_part() -> None:
    assert quote_qualified("a.b", 'c"d') == '"a.b"."c""d"'
