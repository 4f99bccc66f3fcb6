"""Simulated nights: this bench's decision against upstream's "any lower val_bpb is kept", at the same number of runs.

    python -m bench.decision [--nights N] [--json]

Scores are a true value plus normal noise of one run; both rules see the same candidates. The decision itself is the
production code (runner.core.decision.decide.judge); only training is simulated. Makes the tables of docs/decision.md.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from runner.core.base.home import SOURCE
from runner.core.base.values import Status
from runner.core.decision import decide
from runner.core.decision.decide import Runs, Standing, Verdict, Wanted
from runner.core.policy import policy_files
from runner.core.policy.policy_files import Decision

SIGMA = 0.001  # val_bpb, standard deviation of one run
SIZE = 10_000  # bytes of every train.py: simplicity plays no part
RUNS = 126  # of a night, as upstream's


@dataclass
class Code:
    """One train.py: what it would score on average, and what its runs gave."""

    true: float
    scores: dict[int, float | None] = field(default_factory=dict)
    since: int = decide.FIRST_SEED
    sigma: float = SIGMA  # 0: it ignores its seed

    def run(self, seed: int, chance: random.Random) -> None:
        self.scores[seed] = self.true + chance.gauss(0.0, self.sigma)

    @property
    def runs(self) -> Runs:
        return Runs(self.scores, SIZE)


@dataclass
class Night:
    """A search in progress; `spent` counts training runs, reruns included."""

    rules: Decision
    chance: random.Random
    codes: list[Code] = field(default_factory=list)
    best: Code = field(default_factory=lambda: Code(1.0))
    spent: int = 0
    kept: int = 0
    claims: float = 0.0  # sum of claimed gains of keeps
    false: int = 0  # keeps that are no better
    tried: int = 0

    def __post_init__(self) -> None:
        self._run(self.best, decide.FIRST_SEED)
        self.codes.append(self.best)

    def propose(self, effect: float, sigma: float = SIGMA) -> Verdict:
        """One experiment whose train.py is truly better by `effect` val_bpb, and moves by `sigma` from run to run."""
        candidate = Code(self.best.true - effect, sigma=sigma)
        self._run(candidate, decide.FIRST_SEED)
        self.tried += 1
        while isinstance(found := self._judge(candidate), Wanted):
            self._run(self.best if found.whose == "best" else candidate, found.seed)
        if len(candidate.scores) > 1:
            self.codes.append(candidate)
        if found.status is Status.KEEP:
            self.kept += 1
            self.false += effect <= 0
            self.claims += found.claimed or 0.0
            if candidate not in self.codes:
                self.codes.append(candidate)
            self.best = candidate
            candidate.since = max(candidate.scores) + 1
        return found

    def _judge(self, candidate: Code) -> Verdict | Wanted:
        noise = decide.measured([*(code.runs for code in self.codes), candidate.runs], self.rules.least_noise_bpb)
        return decide.judge(self.rules, Standing(self.best.runs, noise, 0.0, self.best.since), candidate.runs)

    def _run(self, code: Code, seed: int) -> None:
        self.spent += 1
        code.run(seed, self.chance)


def single(rules: Decision, effect: float, nights: int, seed: int = 0, before: int = 10) -> dict[str, float]:
    """A candidate that is better by `effect` sigma, met after `before` candidates without effect: how often it is kept.

    Returns {"kept", "runs"}: share of nights in which it was kept, and runs the decision on it took.
    """
    kept = runs = 0
    for night in range(nights):
        search = Night(rules, random.Random(f"{seed} {night}"))  # noqa: S311 - a simulation
        for _ in range(before):
            search.propose(0.0)
        spent = search.spent
        kept += search.propose(effect * SIGMA).status is Status.KEEP
        runs += search.spent - spent
    return {"kept": kept / nights, "runs": runs / nights}


def seedless(rules: Decision, sigma: float, nights: int, effect: float = 0.0, seed: int = 0) -> float:
    """Share of nights in which a baseline that ignores its seed loses to the first candidate, `effect` sigma better."""
    kept = 0
    for night in range(nights):
        chance = random.Random(f"seedless {seed} {night}")  # noqa: S311 - a simulation
        search = Night(rules, chance, best=Code(1.0, sigma=0.0))
        kept += search.propose(effect * sigma, sigma).status is Status.KEEP
    return kept / nights


def noise_only(rules: Decision, nights: int, candidates: int, seed: int = 0) -> dict[str, float]:
    """Nights of candidates without any effect: {"false_keep_rate", "claimed_sigmas", "runs_per_candidate"}."""
    kept = spent = tried = 0
    claims = 0.0
    for night in range(nights):
        search = Night(rules, random.Random(f"{seed} {night}"))  # noqa: S311 - a simulation
        for _ in range(candidates):
            search.propose(0.0)
        kept, spent, tried = kept + search.false, spent + search.spent, tried + search.tried
        claims += search.claims
    return {
        "false_keep_rate": kept / tried,
        "claimed_sigmas": claims / nights / SIGMA,
        "runs_per_candidate": spent / tried,
    }


def mixed(rules: Decision, nights: int, seed: int = 0, runs: int = RUNS) -> dict[str, float]:
    """Nights of `runs` runs on a mixture: 60% no effect, 25% worse by 1 to 4 sigma, 15% better by 0.5 to 4 sigma.

    Returns, in sigma and as means over nights: {"true", "claimed", "false_keeps", "keeps", "candidates"}.
    """
    sums = dict.fromkeys(("true", "claimed", "false_keeps", "keeps", "candidates"), 0.0)
    for night in range(nights):
        search = Night(rules, random.Random(f"{seed} {night}"))  # noqa: S311 - a simulation
        ideas = _ideas(random.Random(f"ideas {seed} {night}"))  # noqa: S311 - the same for every rule
        while search.spent < runs:
            search.propose(next(ideas) * SIGMA)
        sums["true"] += (1.0 - search.best.true) / SIGMA
        sums["claimed"] += search.claims / SIGMA
        sums["false_keeps"] += search.false
        sums["keeps"] += search.kept
        sums["candidates"] += search.tried
    return {name: value / nights for name, value in sums.items()}


def _ideas(chance: random.Random) -> Iterator[float]:
    while True:
        kind = chance.random()
        if kind < 0.60:
            yield 0.0
        elif kind < 0.85:
            yield -chance.uniform(1, 4)
        else:
            yield chance.uniform(0.5, 4)


def compare(nights: int) -> dict[str, dict[str, float]]:
    """The shipped rules, the same with alpha 0.2, and upstream's, by name: every number of the table."""
    ours = policy_files.load(SOURCE / "policies").decision
    others = {
        "paired": ours,
        "paired, alpha 0.2": ours.model_copy(update={"alpha": 0.2}),
        "upstream": ours.model_copy(update={"rule": "upstream"}),
    }
    return {name: _numbers(rules, nights) for name, rules in others.items()}


def _numbers(rules: Decision, nights: int) -> dict[str, float]:
    found = {
        "false keep rate, first candidate": noise_only(rules, nights * 4, 1)["false_keep_rate"],
        "false keep rate, 10 candidates": noise_only(rules, nights, 10)["false_keep_rate"],
    }
    noise = noise_only(rules, nights, 60)
    found["false keep rate, 60 candidates"] = noise["false_keep_rate"]
    found["gain claimed by such a night, sigma"] = noise["claimed_sigmas"]
    found["runs per candidate"] = noise["runs_per_candidate"]
    for before in (0, 60):
        for effect in (1, 2, 3):
            power = single(rules, effect, nights, before=before)["kept"]
            found[f"kept: a gain of {effect} sigma, after {before} without effect"] = power
    for name, value in mixed(rules, nights).items():
        found[f"a mixed night of {RUNS} runs: {name}"] = value
    return found


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = compare(arguments.nights)
    print(f"| | {' | '.join(found)} |\n|---{'|---' * len(found)}|")
    for name in found["paired"]:
        print(f"| {name} | {' | '.join(f'{numbers[name]:.3g}' for numbers in found.values())} |")
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
