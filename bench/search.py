"""One line, or a population? Simulated nights of 126 runs under ways to search that other fields use.

    python -m bench.search [--nights N] [--json]

Every way sees the same stream of ideas (nights.py) and has the same number of training runs; where it decides about a
file it decides by the production rule. What an idea does may depend on what is in the file already: `interactions` is
the deviation, in sigma, of what each pair of ideas does to each other, drawn once for a night. Makes docs/search.md.

- upstream, line: one file, by upstream's rule and by `odds`.
- restarts: after 15 runs without a keep 25 runs go on from an earlier keep; what they reach is gone on with if it is
  believed to be better.
- islands: so many files side by side, ideas dealt in turn; every third proposal is one that another island kept.
- exploit: the same, and every 20 runs the worst island becomes a copy of the best, as in population based training
  (Jaderberg et al., 2017).
- evolution: regularized evolution (Real et al., 2019): the best of a sample of T of the last P files has a child.
- halving: a third of a run first, with more noise; what is not among the better half there has no whole run (after
  successive halving: Jamieson and Talwalkar, 2016; Li et al., Hyperband, 2018).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from bench.decision import interval, rule
from bench.nights import MIXTURE, SIGMA, START, Night, Search, ideas

RUNS = 126
_PLATEAU, _AWAY = 15, 25  # restarts
_EVERY = 20  # exploit
_LAST = 3  # files of a population that are run again at the end, to choose from


class Idea(NamedTuple):
    """One of the night's stream."""

    number: int
    effect: float | None  # alone, in sigma; None: it crashes


@dataclass
class World:
    """What a night's ideas do."""

    kind: str
    interactions: float
    seed: int

    def stream(self) -> Iterator[Idea]:
        """Its ideas, the same for every way to search."""
        source = ideas(self.kind, random.Random(f"ideas {self.kind} {self.seed}"))  # noqa: S311 - a simulation
        for number, effect in enumerate(source):
            yield Idea(number, effect)

    def effect(self, idea: Idea, there: frozenset[int]) -> float | None:
        """What it does in a file that has these."""
        if idea.effect is None or not self.interactions:
            return idea.effect
        return idea.effect + self.interactions * math.fsum(self._pair(idea.number, other) for other in there)

    def _pair(self, one: int, other: int) -> float:
        return random.Random(f"{self.seed} {min(one, other)} {max(one, other)}").gauss(0, 1)  # noqa: S311


@dataclass
class Line:
    """A file and its line, under the production rule."""

    world: World
    search: Search
    has: frozenset[int] = frozenset()
    kept: list[tuple[frozenset[int], float]] = field(default_factory=list)  # what each keep had, and its true score
    quiet: int = 0  # experiments since the last keep

    @classmethod
    def begin(
        cls, world: World, name: str, rules: str, start: float = START, has: frozenset[int] = frozenset()
    ) -> Line:
        """A line of its own; its first file is run."""
        chance = random.Random(f"runs {name} {world.seed}")  # noqa: S311 - a simulation
        made = cls(world, Search(rule(rules), Night(world.kind), chance, start=start), has)
        made.kept.append((has, start))
        return made

    def try_(self, idea: Idea) -> None:
        """An experiment."""
        begun = self.search.begin(self.world.effect(idea, self.has))
        self.search.end(begun)
        self.quiet += 1
        if begun is not None and self.search.best is begun[0]:
            self.has |= {idea.number}
            self.kept.append((self.has, self.search.best.true))
            self.quiet = 0

    def expected(self) -> float:
        """What is believed of the best's score."""
        beliefs = self.search.line.beliefs
        return self.search.best.scores[42] or math.inf if beliefs is None else beliefs.expected()

    @property
    def spent(self) -> int:
        return self.search.spent

    @property
    def true(self) -> float:
        return self.search.best.true


def line(world: World, rules: str = "odds") -> float:
    """One file."""
    made, stream = Line.begin(world, "line", rules), world.stream()
    while made.spent < RUNS:
        made.try_(next(stream))
    return made.true


def restarts(world: World) -> float:
    """From an earlier keep after a plateau."""
    main, stream, spent = Line.begin(world, "line", "odds"), world.stream(), 0
    chance = random.Random(f"restarts {world.seed}")  # noqa: S311 - a simulation
    while main.spent + spent < RUNS:
        main.try_(next(stream))
        if main.quiet < _PLATEAU or len(main.kept) < 3:
            continue
        has, true = chance.choice(main.kept[:-1])
        away = Line.begin(world, f"away {spent}", "odds", true, has)
        while away.spent < _AWAY and main.spent + spent + away.spent < RUNS:
            away.try_(next(stream))
        if away.expected() < main.expected():
            spent, main = spent + main.spent, away
        else:
            spent, main.quiet = spent + away.spent, 0
    return main.true


def islands(world: World, count: int, *, exploit: bool = False) -> float:
    """Lines side by side."""
    lines = [Line.begin(world, f"island {number}", "odds") for number in range(count)]
    stream, known, turn, gone = world.stream(), dict[int, Idea](), 0, 0
    while gone + sum(one.spent for one in lines) < RUNS:
        here = lines[turn % count]
        turn += 1
        others = frozenset().union(*(one.has for one in lines)) - here.has
        if turn % 3 == 0 and others and not exploit:
            here.try_(known[max(others)])
        else:
            idea = next(stream)
            known[idea.number] = idea
            here.try_(idea)
        if exploit and turn % _EVERY == 0:
            worst, best = max(lines, key=Line.expected), min(lines, key=Line.expected)
            gone += worst.spent
            lines[lines.index(worst)] = Line.begin(world, f"copy {turn}", "odds", best.true, best.has)
    return min(lines, key=Line.expected).true


def evolution(world: World, size: int, sample: int) -> float:
    """Regularized evolution: every file is run once, the oldest goes."""
    chance, stream = random.Random(f"evolution {world.seed}"), world.stream()  # noqa: S311 - a simulation

    def run(true: float) -> float:
        return true + chance.gauss(0, SIGMA)

    living = deque([(run(START), START, frozenset[int]())], maxlen=size)
    every = list(living)
    for _ in range(RUNS - 1 - _LAST * 2):
        _, true, has = min(chance.sample(list(living), min(sample, len(living))), key=lambda one: one[0])
        idea = next(stream)
        effect = world.effect(idea, has)
        if effect is not None:
            child = true - SIGMA * effect
            living.append((run(child), child, has | {idea.number}))
            every.append(living[-1])
    last = sorted(every, key=lambda one: one[0])[:_LAST]
    return min(last, key=lambda one: run(one[1]) + run(one[1]))[1]


def halving(world: World, noise: float) -> float:
    """A third of a run for every idea; a whole one for the better half, by what the last twenty were."""
    made, stream, short = Line.begin(world, "line", "odds"), world.stream(), 0.0
    chance, seen = random.Random(f"halving {world.seed}"), deque[float](maxlen=20)  # noqa: S311 - a simulation
    while made.spent + short < RUNS:
        idea = next(stream)
        effect = world.effect(idea, made.has)
        short += 1 / 3
        if effect is None:
            continue  # it crashes early
        looked = effect + chance.gauss(0, noise)
        middle = sorted(seen)[len(seen) // 2] if len(seen) > 4 else -math.inf
        seen.append(looked)
        if looked >= middle:
            made.try_(idea)
    return made.true


WAYS: dict[str, Callable[[World], float]] = {
    "upstream": partial(line, rules="upstream"),
    "line": line,
    "restarts": restarts,
    "2 islands": partial(islands, count=2),
    "4 islands": partial(islands, count=4),
    "2 islands, exploit": partial(islands, count=2, exploit=True),
    "4 islands, exploit": partial(islands, count=4, exploit=True),
    "evolution, 10 living, best of 3": partial(evolution, size=10, sample=3),
    "evolution, 30 living, best of 10": partial(evolution, size=30, sample=10),
    "halving, noise of 2": partial(halving, noise=2.0),
    "halving, noise of 5": partial(halving, noise=5.0),
}


def night(kind: str, interactions: float, seed: int) -> dict[str, float]:
    """True gain of each way in one night, in sigma."""
    world = World(kind, interactions, seed)
    return {name: (START - way(world)) / SIGMA for name, way in WAYS.items()}


def figures(kind: str, interactions: float, nights: int) -> dict[str, Any]:
    """Mean gains, and differences from `line` night by night with their 95% intervals."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(partial(night, kind, interactions), range(nights), chunksize=5))
    made, base = {}, math.fsum(one["line"] for one in found) / nights
    for name in WAYS:
        mean, width = interval([one[name] - one["line"] for one in found])
        ratio = [round((base + at) / base, 2) for at in (mean, mean - width, mean + width)]
        made[name] = {"gain": round(base + mean, 1), "of the line's": ratio[0], "95%": ratio[1:]}
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    for kind in ("real", MIXTURE):
        for interactions in (0.0, 0.2):
            name = f"{kind}, interactions {interactions}"
            found[name] = figures(kind, interactions, asked.nights)
            if not asked.json:
                for way, told in found[name].items():
                    print(f"{name}: {way:34} {json.dumps(told)}", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
