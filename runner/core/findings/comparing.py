"""What directives, models and rules earned, side by side: gain, per hour of a lane and per dollar. TRUSTED, pure.

A part of a tag is the experiments that have a directive, model or rule in common. What an experiment earned is by how
much it moved what the tag expected to have gained (rule `odds`; a veto counts against it), else a keep's gain. The
interval is the percentile bootstrap over the experiments of a part (Efron 1979), by fixed draws: it says how much may
be the luck of which ideas came up, and nothing of how hard it is to gain late in a tag. So compare parts that began
from the same place.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from runner.core.base.launching import Frozen
from runner.core.base.values import Experiment, Status

By = Literal["tag", "program", "model", "rule"]
_DRAWS = 2000
_SEED = 20_261_127
_TAIL = 0.025


class Entry(NamedTuple):
    """An experiment of a tag with what is known beside its row; `dollars`: of its model calls, None if it had none."""

    row: Experiment
    earned: float
    rule: str
    model: str | None
    dollars: float | None


class Part(Frozen):
    """What one part earned; rates are None where there is nothing to divide by."""

    name: str
    experiments: int
    kept: int
    hours: float  # of a lane: training, scoring and reruns, not the model's thinking
    dollars: float | None
    gain: float  # val_bpb
    interval: tuple[float, float] | None  # 95 %, of the gain; None for fewer than five experiments
    per_hour: float | None
    per_hour_interval: tuple[float, float] | None
    per_dollar: float | None


def earned(rows: Sequence[Experiment]) -> list[float]:
    """By how much each experiment moved the tag, in val_bpb; the baseline by nothing."""
    found, before = [], 0.0
    line: list[tuple[int, float]] = []  # (number, gain) of the kept line, without the baseline
    for row in rows:
        if row.total is not None:
            found.append(row.total - before)
            before = row.total
            continue
        gain = row.confirmed if row.confirmed is not None else row.claimed
        kept = row.status is Status.KEEP and gain is not None
        found.append(gain if kept and gain is not None else 0.0)
        if row.veto is not None and row.status is Status.KEEP:
            at = next((n for n, (number, _) in enumerate(line) if number == row.veto), len(line))
            found[-1] = -math.fsum(earned for _, earned in line[at:])
            del line[at:]
        elif kept:
            line.append((row.id, found[-1]))
    return found


def parts(entries: Sequence[Entry], by: By) -> list[Part]:
    """The parts in the order in which they began. Baselines and interrupted runs belong to none."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.row.proposed or entry.row.veto is not None:
            groups.setdefault(_name(entry, by), []).append(entry)
    return [_part(name, some) for name, some in groups.items()]


def _name(entry: Entry, by: By) -> str:
    if by == "program":
        return "unknown" if entry.row.program is None else entry.row.program[:12]
    if by == "model":
        return entry.model or "no model"
    return entry.rule if by == "rule" else entry.row.tag


def _part(name: str, some: Sequence[Entry]) -> Part:
    hours = math.fsum(entry.row.seconds for entry in some) / 3600
    known = [entry.dollars for entry in some if entry.dollars is not None]
    dollars = math.fsum(known) if known else None
    gain = math.fsum(entry.earned for entry in some)
    interval, hourly = _intervals(some)
    return Part(
        name=name,
        experiments=len(some),
        kept=sum(entry.row.status is Status.KEEP for entry in some),
        hours=round(hours, 3),
        dollars=None if dollars is None else round(dollars, 4),
        gain=gain,
        interval=interval,
        per_hour=gain / hours if hours else None,
        per_hour_interval=hourly if hours else None,
        per_dollar=gain / dollars if dollars else None,
    )


def _intervals(some: Sequence[Entry]) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Of the gain, and of the gain per hour, each draw with the hours of its own experiments."""
    if len(some) < 5:
        return None, None
    import numpy as np  # noqa: PLC0415 - a tenth of a second, which every other command would wait for

    draw = random.Random(_SEED)  # noqa: S311 - figures that anybody can compute again
    earned, seconds = (np.array(one) for one in zip(*((e.earned, e.row.seconds) for e in some), strict=True))
    sums, rates = [], []
    for _ in range(_DRAWS):
        chosen = draw.choices(range(len(some)), k=len(some))
        gain = float(earned[chosen].sum())
        sums.append(gain)
        rates.append(gain * 3600 / max(1e-9, float(seconds[chosen].sum())))
    return _middle(sums), _middle(rates)


def _middle(values: list[float]) -> tuple[float, float]:
    values.sort()
    return values[int(_TAIL * len(values))], values[int((1 - _TAIL) * len(values)) - 1]
