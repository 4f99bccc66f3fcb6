"""Strict JSON agrees with json on honest documents and refuses ambiguity."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.wire import strict_json

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
DOCUMENTS = st.recursive(
    SCALARS, lambda x: st.one_of(st.lists(x, max_size=4), st.dictionaries(st.text(), x, max_size=4)), max_leaves=20
)


@given(DOCUMENTS)
def test_honest_documents_parse_as_json_does(document: object) -> None:
    data = json.dumps(document).encode()
    assert strict_json.loads(data, max_bytes=len(data), max_depth=50) == document


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "duplicate_key"),
        ('{"a": {"b": 1, "b": 2}}', "duplicate_key"),
        ("NaN", "not_finite"),
        ("-Infinity", "not_finite"),
        ("1e999", "float_range"),
        ("9" * 30, "integer_range"),
        (str(2**63), "integer_range"),
        ("1" * 5000, "integer_range"),
        ("[" * 60 + "]" * 60, "too_deep"),
        ("[" * 100000, "too_deep"),
        ('{"a": 1', "not_json"),
        ("", "not_json"),
        ("[1,]", "not_json"),
        ('"' + "x" * 3000 + '"', "too_large"),
    ],
)
def test_ambiguous_or_excessive_documents_are_refused(text: str, reason: str) -> None:
    limit = 200_000 if reason != "too_large" else 1000
    with pytest.raises(strict_json.StrictJsonError) as caught:
        strict_json.loads(text.encode(), max_bytes=limit)
    assert caught.value.reason == reason


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    text = json.dumps({"a": "[" * 1000 + '\\"{'})
    assert strict_json.loads(text.encode(), max_bytes=10_000, max_depth=1) == json.loads(text)


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_raise_the_one_error(data: bytes) -> None:
    try:
        strict_json.loads(data, max_bytes=200)
    except strict_json.StrictJsonError as error:
        assert str(error) == error.reason


@pytest.mark.parametrize("unit", [b'\\"', b'"', b'"\\', b'["', b'\\\\"', b'{"a":'])
def test_no_text_takes_long(unit: bytes) -> None:
    """Sixteen KiB of quotes behind backslashes took seconds, and held up everything else in the process."""
    data = (unit * (1 << 20))[: 1 << 20] + b"\\"
    began = time.monotonic()
    with pytest.raises(strict_json.StrictJsonError):
        strict_json.loads(data, max_bytes=1 << 21)
    assert time.monotonic() - began < 10  # it was hours
