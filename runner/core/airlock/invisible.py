"""Characters nobody sees: one table for everything a person reads that an agent wrote. TRUSTED, pure.

Refused in train.py, blanked in descriptions, notes and names: control and format characters, default ignorables
(variation selectors can carry a hidden program, CVE-2021-42574 reorders a visible one), private use, noncharacters,
blanks that are no spaces, and the form feed (behind it Python counts the indentation anew, so that what looks like part
of a block is none). Excepted are tab, line feed and carriage return, and what ordinary emoji are made of: U+FE0F behind
a picture, and a zero-width joiner between two, so many in all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

# Default_Ignorable_Code_Point (DerivedCoreProperties.txt), General_Category Cc Cf Co Zl Zp and noncharacters of
# Unicode 16, and U+2800, U+FFFC, U+16FE4, U+1D159, which have no ink. test_invisible.py derives it again.
TABLE: Final = (
    (0x0, 0x8), (0xB, 0xC), (0xE, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x600, 0x605), (0x61C, 0x61C),
    (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0x2800, 0x2800), (0x3164, 0x3164),
    (0xE000, 0xF8FF), (0xFDD0, 0xFDEF), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFC),
    (0xFFFE, 0xFFFF), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x16FE4, 0x16FE4),
    (0x1BCA0, 0x1BCA3), (0x1D159, 0x1D159), (0x1D173, 0x1D17A),
    *((plane | 0xFFFE, plane | 0xFFFF) for plane in range(0x10000, 0xD0001, 0x10000)),
    (0xDFFFE, 0xE0FFF), (0xEFFFE, 0x10FFFF),
)  # fmt: skip
_ANY = re.compile("[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in TABLE) + "]")
_SELECTOR, _JOINER, _KEYCAP = "\ufe0f", "\u200d", "\u20e3"
_MOST = 32  # in one text: each may be there or not, which is a bit that nobody sees
_TONES = range(0x1F3FB, 0x1F400)
_PICTURES = range(0x1F000, 0x1FB00)
# Bases of emoji-variation-sequences.txt below U+1F000. None of them is an operator or a ruler of code.
_CODES = """
a9 ae 203c 2049 2122 2139 2194 2195 2196 2197 2198 2199 21a9 21aa 231a 231b 2328 23cf 23e9 23ea 23ed 23ee
23ef 23f1 23f2 23f3 23f8 23f9 23fa 24c2 25b6 25c0 2600 2601 2602 2603 2604 260e 2611 2614 2615 2618 261d
2620 2622 2623 2626 262a 262e 262f 2638 2639 263a 2640 2642 265f 2660 2663 2665 2666 2668 267b 267e 267f
2692 2693 2694 2695 2696 2697 2699 269b 269c 26a0 26a1 26a7 26aa 26ab 26b0 26b1 26bd 26be 26c4 26c5 26c8
26cf 26d1 26d3 26d4 26e9 26ea 26f0 26f1 26f2 26f3 26f4 26f5 26f7 26f8 26f9 26fa 26fd 2702 2708 2709 270c
270d 270f 2712 2714 2716 271d 2721 2733 2734 2744 2747 2753 2757 2763 2764 27a1 2934 2935 2b05 2b06 2b07
2b50 2b55 303d 3297 3299
"""
_EMOJI = frozenset(chr(int(code, 16)) for code in _CODES.split())


def hidden(text: str) -> Iterator[int]:
    """Positions of the characters nobody sees."""
    allowed = 0
    for found in _ANY.finditer(text):
        ordinary = _in_emoji(text, found.start())
        allowed += ordinary
        if not ordinary or allowed > _MOST:
            yield found.start()


def blanked(text: str) -> str:
    """`text` with a space for each of them."""
    kept, last = [], 0
    for at in hidden(text):
        kept += [text[last:at], " "]
        last = at + 1
    return "".join([*kept, text[last:]])


def printable(line: str) -> str:
    """A line of anybody's, fit for a terminal: what moves a cursor, sets a title or cannot be seen is replaced."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in blanked(line))


def _in_emoji(text: str, at: int) -> bool:
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at] == _SELECTOR:
        return _picture(before) or (before in tuple("0123456789#*") and after == _KEYCAP)
    if text[at] != _JOINER:
        return False
    toned = before != "" and ord(before) in _TONES
    return _picture(after) and (_picture(before) or toned or (before == _SELECTOR and _in_emoji(text, at - 1)))


def _picture(character: str) -> bool:
    return character != "" and (ord(character) in _PICTURES or character in _EMOJI)
