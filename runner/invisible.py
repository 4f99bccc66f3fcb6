"""Characters nobody sees: one table for everything a person reads that an agent wrote. TRUSTED, pure.

Refused in train.py, blanked in descriptions, notes and names: control and format characters, default ignorables
(variation selectors can carry a hidden program, CVE-2021-42574 reorders a visible one), private use, noncharacters,
and blanks that are no spaces. Excepted are tab, line feed, form feed and carriage return, and what ordinary emoji are
made of: one variation selector behind a symbol, and a zero-width joiner between two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

# Default_Ignorable_Code_Point (DerivedCoreProperties.txt), General_Category Cc Cf Co Zl Zp and noncharacters of
# Unicode 16, and U+2800, U+FFFC, U+16FE4, U+1D159, which have no ink. tests/test_invisible.py derives it again.
TABLE: Final = (
    (0x0, 0x8), (0xB, 0xB), (0xE, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x600, 0x605), (0x61C, 0x61C),
    (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164),
    (0xE000, 0xF8FF), (0xFDD0, 0xFDEF), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFC),
    (0xFFFE, 0xFFFF), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x16FE4, 0x16FE4),
    (0x1BCA0, 0x1BCA3), (0x1D159, 0x1D159), (0x1D173, 0x1D17A),
    *((plane | 0xFFFE, plane | 0xFFFF) for plane in range(0x10000, 0xD0001, 0x10000)),
    (0xDFFFE, 0xE0FFF), (0xEFFFE, 0x10FFFF),
)  # fmt: skip
_ANY = re.compile("[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in TABLE) + "]")
_SELECTORS, _JOINER, _KEYCAP = "\ufe0e\ufe0f", "\u200d", "\u20e3"
_TONES = range(0x1F3FB, 0x1F400)
_SYMBOLS = ("So", "Sm")
_OTHER_SYMBOLS = "\u203c\u2049\u2139\u3030"  # emoji that are punctuation or letters


def hidden(text: str) -> Iterator[int]:
    """Positions of the characters nobody sees."""
    return (found.start() for found in _ANY.finditer(text) if not _in_emoji(text, found.start()))


def blanked(text: str) -> str:
    """`text` with a space for each of them."""
    kept, last = [], 0
    for at in hidden(text):
        kept += [text[last:at], " "]
        last = at + 1
    return "".join([*kept, text[last:]])


def _in_emoji(text: str, at: int) -> bool:
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at] in _SELECTORS:
        return _symbol(before) or (before in tuple("0123456789#*") and after == _KEYCAP)
    if text[at] != _JOINER:
        return False
    toned = before != "" and ord(before) in _TONES
    return _symbol(after) and (_symbol(before) or toned or (before == _SELECTORS[1] and _in_emoji(text, at - 1)))


def _symbol(character: str) -> bool:
    return character != "" and (unicodedata.category(character) in _SYMBOLS or character in _OTHER_SYMBOLS)
