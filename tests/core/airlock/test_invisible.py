"""Characters nobody sees: the whole kind, and ordinary emoji as their neighbours."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.airlock import invisible

# Default_Ignorable_Code_Point, from DerivedCoreProperties.txt of Unicode 16.
IGNORABLE = [(0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
             (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
             (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
             (0xE0000, 0xE0FFF)]  # fmt: skip
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def expected(code: int) -> bool:
    """By the standard's properties, as far as this Python knows them."""
    ignorable = any(a <= code <= b for a, b in IGNORABLE)
    nonchar = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    kind = unicodedata.category(chr(code)) in ("Cc", "Cf", "Co", "Zl", "Zp")
    return chr(code) not in "\t\n\r" and (ignorable or nonchar or kind or code in (0x2800, 0xFFFC, 0x16FE4, 0x1D159))


def test_the_table_is_what_the_standard_says() -> None:
    listed = {code for a, b in invisible.TABLE for code in range(a, b + 1)}
    later = set(range(0x13439, 0x13440))  # format characters since Unicode 15
    assert {code for code in CODES if expected(code)} == {code for code in listed if expected(code)}
    assert listed - {code for code in CODES if expected(code)} <= later
    assert sum(b - a + 1 for a, b in IGNORABLE) == 4174


def test_none_of_them_passes_in_text() -> None:
    passed = [code for code in CODES if expected(code) and not [*invisible.hidden(f"a{chr(code)}b")]]
    assert passed == []
    refused = [code for code in CODES if not expected(code) and [*invisible.hidden(f"a{chr(code)}b")]]
    assert set(refused) <= set(range(0x13439, 0x13440))


@pytest.mark.parametrize(
    "text",
    ["x = 'caf\u00e9 \u65e5\u672c\u8a9e \u0440\u0443\u0441'", "# \u2764\ufe0f",  "# 1\ufe0f\u20e3", "# \u2139\ufe0f",
     "# \U0001f469\u200d\U0001f52c", "# \U0001f469\U0001f3fd\u200d\U0001f4bb", "# \U0001f3f3\ufe0f\u200d\U0001f308", "# \u2194\ufe0f", "a\tb\nc\r\n"],
)  # fmt: skip
def test_ordinary_text_and_emoji_pass(text: str) -> None:
    assert [*invisible.hidden(text)] == []
    assert invisible.blanked(text) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("a\ufe0f", 1),
        ("\ufe0f", 0),
        ("\u2764\ufe0f\ufe0f", 2),
        ("# ==\ufe0f=", 4),  # operators are rulers in comments: a hidden program was written in 137 of them
        ("a <\u200d= b", 3),
        ("# \u2500\ufe0f", 3),
        ("x\n    \fprint()", 6),  # Python counts the indentation anew: this is no part of a block
        ("\u2764\U000e0100", 1),
        ("1\ufe0f", 1),
        ("\U0001f469\u200d", 1),
        ("\U0001f469\u200dx", 1),
        ("x\u200d\U0001f52c", 1),
        ("\U0001f469\u200d\u200d\U0001f52c", 1),
        ("\U0001f3f4\U000e0067\U000e007f", 1),  # a flag of tag characters: they spell ASCII
        ("LR\u3164 = 1", 2),
        ("a\ufe0f\u200d\U0001f52c", 1),
    ],
)
def test_their_nearest_neighbours_do_not(text: str, at: int) -> None:
    assert next(invisible.hidden(text)) == at


PARTS = st.sampled_from(
    ["a", "1", " ", "\u2764", "\ufe0f", "\ufe0e", "\u200d", "\U0001f469", "\U0001f3fd", "\u20e3", "\u202e"]
)


@given(st.text() | st.lists(PARTS, max_size=12).map("".join))
def test_blanked_text_has_none_left_and_keeps_its_length(text: str) -> None:
    found = invisible.blanked(text)
    assert len(found) == len(text)
    assert [*invisible.hidden(found)] == []


def test_of_what_may_be_there_or_not_there_are_few_in_one_text() -> None:
    text = "\u2764\ufe0f" * 33
    assert [*invisible.hidden(text)] == [65]
    assert [*invisible.hidden(text[:64])] == []
