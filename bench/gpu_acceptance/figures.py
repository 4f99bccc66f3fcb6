"""A figure, the limit it must keep, and how it is printed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value; ok is None where there is no limit."""

    name: str
    value: float | str
    unit: str = ""
    limit: str = ""
    ok: bool | None = None


def measured(name: str, value: float, unit: str = "") -> Figure:
    """A value nothing depends on."""
    return Figure(name, _short(value), unit)


def below(name: str, value: float, limit: float, unit: str = "") -> Figure:
    """A value that must be below a limit; NaN is not."""
    return Figure(name, _short(value), unit, f"< {limit:g}", value < limit)


def above(name: str, value: float, limit: float, unit: str = "") -> Figure:
    """A value that must be at least a limit; NaN is not."""
    return Figure(name, _short(value), unit, f">= {limit:g}", value >= limit)


def holds(name: str, ok: bool, said: object = "") -> Figure:
    """Something that must be so."""
    return Figure(name, str(said) or ("yes" if ok else "no"), "", "must hold", ok)


def noted(name: str, said: object) -> Figure:
    """Something to know."""
    return Figure(name, str(said))


def line(step: str, figure: Figure) -> str:
    """As people read it."""
    verdict = {True: "ok", False: "FAILED", None: ""}[figure.ok]
    value = f"{figure.value} {figure.unit}".strip()
    return f"{step:10} {figure.name:44} {value:>24}  {figure.limit:14} {verdict}".rstrip()


def tell(figure: Figure) -> None:
    """From the process of a step to the one that runs all: a line of its own."""
    print("FIGURE " + json.dumps(asdict(figure)), flush=True)


def told(text: str) -> list[Figure]:
    """The figures in a step's output."""
    found: list[dict[str, Any]] = [json.loads(row[7:]) for row in text.splitlines() if row.startswith("FIGURE ")]
    return [Figure(**each) for each in found]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def explain(text: str) -> None:
    """What went wrong, for people."""
    print(text, file=sys.stderr, flush=True)
