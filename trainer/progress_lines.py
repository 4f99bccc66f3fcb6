"""Step and loss in the lines that training scripts print. UNTRUSTED at run time: what it finds is checked again.

Known: upstream's `step 00010 (1.2%) | loss: 5.31 | ...`, nanoGPT's `iter 10: loss 5.31, time ...`, the speed runs'
`step:10/100 train_loss:5.31 ...`, a dictionary's `'loss': 5.31`, and what lies between: thousands separators, aligned
columns, exponents, colours. Of several losses in a line the last bare one counts: `aux loss` and `val_loss` are others.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LINE = 4096
_ANSI = re.compile(r"\x1b\[[0-9;?]{0,40}[A-Za-z]")
_NUMBER = r"[+-]?(?:(?:\d{1,3}(?:[,_]\d{3}){1,5}|\d{1,9})(?:\.\d{0,60})?(?:e[+-]?\d{1,3})?|nan|inf(?:inity)?)"
# Of several counters the first of the best kind counts: a step or iteration, else a batch; not `tokens/step`.
_STEP = re.compile(
    r"(?<![\w./])(?<!total )(?:step|iter(?:ation)?)s?['\"]?\s{0,8}[:=#\[]?\s{0,12}(\d[\d,_]{0,14})(?![\w.])",
    re.IGNORECASE,
)
_BATCH = re.compile(r"(?<![\w./])batch['\"]?\s{0,8}[:=#\[]?\s{0,12}(\d[\d,_]{0,14})(?![\w.])", re.IGNORECASE)
_LOSS = re.compile(
    r"(?:^|[|,;:(\[{]|\s-\s|(?<=[\d)%\]])\s)\s{0,40}['\"]?(?:train(?:ing)?[_ /-]?)?loss['\"]?\s{0,8}[:=]?\s{0,12}"
    rf"({_NUMBER})(?![\w-]|\.\d|,\d)",
    re.IGNORECASE,
)
_OTHER = re.compile(r"(?:val(?:id(?:ation)?)?|eval|test|best|final|ema|aux|dev)\W{1,3}$", re.IGNORECASE)


class Progress(NamedTuple):
    """A step's number (None: the line has none) and its loss."""

    step: int | None
    loss: float


def plain(line: str) -> str:
    """A line without colours, at most its last MAX_LINE characters."""
    return _ANSI.sub("", line[-MAX_LINE:])


def parse(line: str) -> Progress | None:
    """What a plain line says of a step; None if it is no progress line."""
    if "loss" not in line.lower():
        return None
    losses = [found for found in _LOSS.finditer(line) if not _of_another(line, found.start())]
    if not losses:
        return None
    step = _STEP.search(line) or _BATCH.search(line)
    return Progress(int(_digits(step[1])) if step else None, float(_digits(losses[-1][1])))


def _of_another(line: str, at: int) -> bool:
    """Whether a word just before says that a loss is not the training's: `val/loss`, `[eval] loss`."""
    return _OTHER.search(line[max(0, at - 12) : at + 1]) is not None


def _digits(number: str) -> str:
    return re.sub(r"[,_]", "", number)
