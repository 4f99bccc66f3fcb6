"""What `glovebox prune` gives back of a night's code, and what it costs: simulated nights under the production rule.

    python -m bench.prune [--nights N] [--json]

Each idea adds code (log-normal, 120 bytes on the middle) whether or not it has an effect. After a night of 126 runs the
doubtful keeps are taken out in blocks as the desk does it (core/findings/pruning.py); effects add up, so a file without
some keeps scores what the others are worth. What is left then runs beside what was, and goes if it is surely worse.
Thresholds of doubt, prices of code (`code_sigmas`), two kinds of nights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from bench.decision import interval, rule
from bench.nights import MIXTURE, SIGMA, START, Code, Night, Search, ideas
from runner.core.base.values import Status
from runner.core.decision.beliefs import REAL
from runner.core.decision.noise import believed
from runner.core.findings import pruning
from runner.core.findings.pruning import Blocks
from runner.core.policy.policy_files import Decision

RUNS = 126
MIDDLE, SPREAD = 120, 0.8  # bytes of an idea
MOST_RUNS = 24  # of a pruning
PAIRS = 3


class Outcome(NamedTuple):
    """One night."""

    added: int  # bytes of what was kept
    left: int  # of them after the pruning
    idle: int  # bytes of keeps without effect
    lost: float  # true gain that went with it, in sigma; less than nothing where harmful keeps went
    undone: bool  # by the runs side by side
    known: float  # of those runs: how much the loss may be, half of the interval, in sigma
    gain: float  # of the night, in sigma
    runs: int


def night(rules: Decision, kind: str, below: float, seed: int) -> Outcome:
    """A night, then its pruning."""
    search = Search(rules, Night(kind), random.Random(f"runs {seed}"))  # noqa: S311 - a simulation
    stream = ideas(kind, random.Random(f"ideas {kind} {seed}"))  # noqa: S311 - the same for every rule
    chance = random.Random(f"bytes {seed}")  # noqa: S311
    effects, sizes = dict[int, float](), dict[int, int]()
    while search.spent < RUNS:
        made, size = search.begin(next(stream)), round(chance.lognormvariate(math.log(MIDDLE), SPREAD))
        if made is not None:
            made[0].size = search.best.size + size
        search.end(made)
        if made is not None and search.best is made[0]:
            effects[search.best.number], sizes[search.best.number] = made[1], size
    before, spent = search.best, search.spent
    gone = _prune(search, effects, sizes, below)
    undone, known = _beside(search, before.true, chance) if gone else (False, 0.0)
    return Outcome(
        added=sum(sizes.values()),
        left=sum(size for number, size in sizes.items() if undone or number not in gone),
        idle=sum(size for number, size in sizes.items() if effects[number] <= REAL),
        lost=0.0 if undone else (search.best.true - before.true) / SIGMA,
        undone=undone,
        known=known,
        gain=(START - before.true) / SIGMA,
        runs=search.spent - spent,
    )


def _prune(search: Search, effects: dict[int, float], sizes: dict[int, int], below: float) -> set[int]:
    """As rooms/desk/pruning.py; the keeps that were taken out."""
    blocks, gone, began = (
        Blocks((row.id, row.probability or 0.0) for row in pruning.doubtful(search.rows, below)),
        set[int](),
        search.spent,
    )
    while search.spent - began < MOST_RUNS and (block := blocks.next()):
        saved = sum(sizes[number] for number in block)
        if saved < search.rules.simplicity_bytes:
            continue
        true = search.best.true + SIGMA * math.fsum(effects[number] for number in block)
        code = Code(true, 0, search.best.number, size=search.best.size - saved)
        search.end((code, -math.fsum(effects[number] for number in block)))
        if search.rows[-1].status is Status.KEEP:
            gone |= set(block)
        else:
            blocks.halve(block)
    return gone


def _beside(search: Search, before: float, chance: random.Random) -> tuple[bool, float]:
    """Whether the smaller file goes again (core/findings/transfers.py), and half of the interval in sigma."""
    sides = [[true + SIGMA * chance.gauss(0, 1) for _ in range(PAIRS)] for true in (before, search.best.true)]
    beliefs = search.line.beliefs
    width = believed(beliefs.sigma() if beliefs else SIGMA, sides).bound(search.rules.alpha / 2, 2 / PAIRS)
    return math.fsum(sides[0]) / PAIRS - math.fsum(sides[1]) / PAIRS + width < 0, width / SIGMA


def figures(rules: Decision, kind: str, below: float, nights: int) -> dict[str, Any]:
    """Means over so many nights, on all processors."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(partial(night, rules, kind, below), range(nights), chunksize=10))
    total = {name: math.fsum(getattr(one, name) for one in found) for name in Outcome._fields}
    lost, width = interval([one.lost for one in found])
    return {
        "bytes added": round(total["added"] / nights),
        "left of them": round(total["left"] / total["added"], 3),
        "without effect": round(total["idle"] / total["added"], 3),
        "gain": round(total["gain"] / nights, 2),
        "lost": round(lost, 2),
        "lost (95%)": (round(lost - width, 2), round(lost + width, 2)),
        "one night's deviation": round(width / 1.96 * math.sqrt(nights), 2),
        "nights that lost more than 1": round(sum(one.lost > 1 for one in found) / nights, 3),
        "undone": round(total["undone"] / nights, 3),
        "half of the interval": round(total["known"] / nights, 2),
        "runs": round(total["runs"] / nights, 1),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=400)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    for kind in ("real", MIXTURE):
        for below, price in ((0.5, 0.0), (0.7, 0.0), (0.9, 0.0), (0.7, 0.05), (0.7, 0.1), (0.7, 0.2), (0.7, 0.4)):
            name = f"{kind}, keeps below {below}, code at {price} sigma for 100 bytes"
            found[name] = figures(rule("odds", code_sigmas=price), kind, below, asked.nights)
            if not asked.json:
                print(f"{name}: {json.dumps(found[name])}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
