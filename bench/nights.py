"""Simulated nights for bench.decision: ideas as published nights had them, training as a true value plus noise.

The decision is the production code (runner.core.decision), whatever the rule. Ideas are a stream for each night, the
same for every rule; a kept change without effect makes later gains a little smaller, as a misled agent's would be.
What the figures of nights.json come from is said there.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import decide, noise
from runner.core.decision.beliefs import REAL
from runner.core.decision.decide import FIRST_SEED, Runs, Standing, Verdict, Wanted
from runner.core.decision.odds import Candidate, Line
from runner.core.policy.policy_files import Decision

SIGMA = 0.001  # val_bpb, standard deviation of one run
SIZE = 10_000  # bytes of the first train.py
START = 1.0  # its true val_bpb
MIXTURE = "mixture"  # 60% no effect, 25% worse by 1 to 4 sigma, 15% better by 0.5 to 4 sigma


@dataclass
class Night:
    """What a night is like besides its ideas."""

    kind: str = "real"
    runs: int = 126
    lanes: int = 1
    apart: tuple[int, int] = (0, 0)  # runs of baseline and best that are set apart to measure the whole gain
    wild: float = 1.0  # a candidate's own noise, in sigma
    drift: float = 0.0  # by which every score has risen at the end, in sigma
    seedless: bool = False  # every file scores the same however often it is run


class Outcome(NamedTuple):
    """One night under one rule; gains in sigma."""

    true: float
    claimed: float  # by the rule itself: sum of the claims of keeps, or what is expected
    fresh: float  # by the runs set apart
    keeps: int
    idle: int  # keeps whose effect was not real
    candidates: int
    covered: bool  # whether the interval of `fresh`, at 95%, holds the true gain
    told: list[tuple[float, bool]]  # (probability, whether it was real) of keeps


@lru_cache
def figures() -> dict[str, Any]:
    """nights.json."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("nights.json").read_text())
    return found


def ideas(kind: str, chance: random.Random) -> Iterator[float | None]:
    """Effects in sigma, better is positive; None: it crashes."""
    if kind == MIXTURE:
        while True:
            yield _mixture(chance)
    known = figures()
    p = {name: chance.uniform(*span) for name, span in known["nights"][kind].items()}
    for at in itertools.count(1):
        better = min(0.9, p["better_first"] * math.exp(-at / p["better_runs"]) + p["better_last"])
        gain = p["gain_first"] * math.exp(-at / p["gain_runs"]) + p["gain_last"]
        if chance.random() < known["crashes"]:
            yield None
        elif chance.random() < better:
            yield gain * chance.expovariate(1)
        elif chance.random() < p["no_effect"]:
            yield chance.gauss(0.0, known["no_effect_deviation"])
        else:
            yield -(known["far_worse"] if chance.random() < p["far"] else p["loss"]) * chance.expovariate(1)


def _mixture(chance: random.Random) -> float:
    kind = chance.random()
    if kind < 0.60:
        return 0.0
    return -chance.uniform(1, 4) if kind < 0.85 else chance.uniform(0.5, 4)


@dataclass
class Code:
    """One train.py: what it would score on average, and what its runs gave."""

    true: float
    number: int
    parent: int | None = None
    sigma: float = SIGMA
    scores: dict[int, float | None] = field(default_factory=dict)
    since: int = FIRST_SEED
    planned: dict[int, float] = field(default_factory=dict)  # scores that are no chance, by seed
    size: int = SIZE


@dataclass
class Search:
    """A night in progress under one rule; `spent` counts training runs, reruns included."""

    rules: Decision
    night: Night
    chance: random.Random
    first: float = SIGMA  # noise of the baseline; 0: it ignores its seed
    start: float = START  # its true val_bpb
    rows: list[Experiment] = field(default_factory=list)
    reruns: list[Rerun] = field(default_factory=list)
    spent: int = 0
    claims: float = 0.0
    told: list[tuple[float, bool]] = field(default_factory=list)
    idle: int = 0
    misled: float = 0.0

    def __post_init__(self) -> None:
        self.best = Code(self.start, 1, None, self.first)
        self.codes = {1: self.best}
        self.line = Line(self.rules)
        self._run(self.best, FIRST_SEED)
        self._record(self.best, Verdict(Status.KEEP))

    def begin(self, effect: float | None) -> tuple[Code, float] | None:
        """A candidate made from the best of now, and its effect; None: it crashes."""
        if effect is None:
            return None
        if effect > 0:
            effect *= max(0.0, 1 - figures()["misled"] * self.misled)
        made = Code(self.best.true - effect * SIGMA, 0, self.best.number, SIGMA * self.night.wild)
        return made, effect

    def end(self, made: tuple[Code, float] | None) -> None:
        """Run it, and every rerun for its sake."""
        self.misled *= figures()["misled_memory"]
        if made is None:
            self.spent += 1
            return
        code, effect = made
        code.number = len(self.rows) + 1
        self._run(code, FIRST_SEED)
        while isinstance(found := self._judge(code), Wanted):
            whose = {"best": self.best, "candidate": code, "baseline": self.codes[1]}[found.whose]
            self._run(whose, found.seed, during=code.number)
        real = effect > REAL
        if found.status is Status.KEEP:
            self.claims += found.claimed or 0.0
            self.told += [(found.probability, real)] if found.probability is not None else []
            self.idle += not real
            self.misled += not real
        self._record(code, found)

    def outcome(self) -> Outcome:
        beliefs = self.line.beliefs
        expected = (
            self.claims if beliefs is None or self.rules.rule != "odds" else beliefs.baseline - beliefs.expected()
        )
        first, last = self.night.apart
        fresh, covered = expected, False
        if first and last and beliefs is not None:
            sides = ((self.codes[1], first), (self.best, last))
            groups = [[self._score(code) for _ in range(runs)] for code, runs in sides]
            fresh = math.fsum(groups[0]) / first - math.fsum(groups[1]) / last
            width = noise.believed(beliefs.sigma(), groups).bound(0.025, 1 / first + 1 / last)
            covered = abs(fresh - (START - self.best.true)) <= width
        keeps = sum(row.status is Status.KEEP for row in self.rows) - 1
        true = (START - self.best.true) / SIGMA
        return Outcome(true, expected / SIGMA, fresh / SIGMA, keeps, self.idle, len(self.rows), covered, self.told)

    def _judge(self, code: Code) -> Verdict | Wanted:
        runs = Runs(code.scores, code.size)
        if self.rules.rule == "odds":
            self.line.catch_up(self.rows, self.reruns)
            return self.line.judge(Candidate(code.number, code.parent, "", runs), self.reruns)
        known = [
            Runs(one.scores, SIZE) for one in (*self.codes.values(), code) if len(one.scores) > 1 or one.number == 1
        ]
        measured = decide.measured(known, self.rules.least_noise_bpb)
        return decide.judge(self.rules, Standing(Runs(self.best.scores, SIZE), measured, 0.0, self.best.since), runs)

    def _run(self, code: Code, seed: int, during: int = 0) -> None:
        self.spent += 1
        score = code.scores[FIRST_SEED] if self.night.seedless and code.scores else self._score(code)
        score = code.planned.get(seed, score)
        code.scores[seed] = score
        if during:
            self.reruns.append(
                Rerun.model_construct(
                    experiment=code.number, during=during, seed=seed, val_bpb=score, lane="", reason=None
                )
            )

    def _score(self, code: Code) -> float:
        drift = self.night.drift * SIGMA * self.spent / self.night.runs
        return code.true + drift + self.chance.gauss(0.0, code.sigma)

    def _record(self, code: Code, found: Verdict) -> None:
        self.rows.append(
            Experiment.model_construct(
                id=code.number,
                status=found.status,
                val_bpb=code.scores[FIRST_SEED],
                snapshot_size=code.size,
                parent=code.parent,
                lane="",
                memory_gb=0.0,
                probability=found.probability,
                veto=None,
            )
        )
        if found.status is Status.KEEP or len(code.scores) > 1:
            self.codes[code.number] = code
        if found.status is Status.KEEP:
            self.best = code
            code.since = max(code.scores) + (0 if code.number == 1 else 1)


def simulate(rules: Decision, night: Night, seed: int) -> Outcome:
    """One night; lanes work side by side, each on the best of the moment at which it began."""
    search = Search(rules, night, random.Random(f"runs {seed}"))  # noqa: S311 - a simulation
    stream = ideas(night.kind, random.Random(f"ideas {night.kind} {seed}"))  # noqa: S311 - the same for every rule
    under_way = [search.begin(next(stream)) for _ in range(night.lanes)]
    while search.spent < night.runs - sum(night.apart):
        search.end(under_way.pop(0))
        under_way.append(search.begin(next(stream)))
    search.line.catch_up(search.rows, search.reruns)
    return search.outcome()
