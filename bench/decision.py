"""Simulated nights: this bench's rules against upstream's "any lower val_bpb is kept", at the same number of runs.

    python -m bench.decision [--nights N] [--json]     the tables of docs/decision.md; all processors
    python -m bench.decision --replay FILE [--sigma S]  which keeps of a published results.tsv are probably real

Scores are a true value plus normal noise of one run; every rule sees the same ideas, night by night, and differences
are taken within each night. Only training is simulated (nights.py).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.nights import MIXTURE, Code, Night, Outcome, Search, simulate
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Status
from runner.core.decision.beliefs import Beliefs
from runner.core.policy import policy_files
from runner.core.policy.policy_files import Decision

RUNS = 126  # of a night, as upstream's
APART = (2, 2)  # runs of baseline and best set apart (rooms/desk/requested_reruns.py)
_BANDS = (0.0, 0.3, 0.5, 0.7, 0.9, 1.01)


def shipped() -> Decision:
    """policies/decision.yaml."""
    return policy_files.load(SOURCE / "policies").decision


def rule(name: str, **changes: Any) -> Decision:
    """The shipped settings under another rule."""
    return shipped().model_copy(update={"rule": name, **changes})


def single(rules: Decision, effect: float, nights: int, seed: int = 0, before: int = 10) -> dict[str, float]:
    """A candidate that is better by `effect` sigma, met after `before` candidates without effect: how often it is kept.

    Returns {"kept", "runs"}: share of nights in which it was kept, and runs the decision on it took.
    """
    kept = runs = 0
    for night in range(nights):
        search = Search(rules, Night(), random.Random(f"{seed} {night}"))  # noqa: S311 - a simulation
        for _ in range(before):
            search.end(search.begin(0.0))
        spent, best = search.spent, search.best
        search.end(search.begin(effect))
        kept += search.best is not best
        runs += search.spent - spent
    return {"kept": kept / nights, "runs": runs / nights}


def seedless(rules: Decision, sigma: float, nights: int, effect: float = 0.0, seed: int = 0) -> float:
    """Share of nights in which a baseline that ignores its seed loses to the first candidate, `effect` sigma better."""
    kept = 0
    for night in range(nights):
        chance = random.Random(f"seedless {seed} {night}")  # noqa: S311 - a simulation
        search = Search(rules, Night(), chance, first=0.0)
        code = Code(search.best.true - effect * sigma, 0, 1, sigma)
        search.end((code, effect))
        kept += search.best is code
    return kept / nights


def noise_only(
    rules: Decision, nights: int, candidates: int, seed: int = 0, night: Night | None = None
) -> dict[str, float]:
    """Nights of candidates without any effect: {"false_keep_rate", "claimed_sigmas", "runs_per_candidate"}."""
    kept = spent = tried = 0
    claims = 0.0
    for number in range(nights):
        search = Search(rules, night or Night(), random.Random(f"{seed} {number}"))  # noqa: S311 - a simulation
        for _ in range(candidates):
            search.end(search.begin(0.0))
        kept, spent, tried = kept + search.idle, spent + search.spent, tried + candidates
        claims += search.outcome().claimed
    return {
        "false_keep_rate": kept / tried,
        "claimed_sigmas": claims / nights,
        "runs_per_candidate": spent / tried,
    }


def many(rules: Decision, night: Night, nights: int) -> list[Outcome]:
    """So many nights, on all processors."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(simulate, rules, night), range(nights), chunksize=20))


def against(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> dict[str, Any]:
    """A rule's nights next to upstream's on the same ideas; gains in sigma, intervals at 95%."""
    ratio, width = _ratio([one.true for one in ours], [one.true for one in theirs])
    told = [pair for one in ours for pair in one.told]
    bands = {}
    for low, high in itertools.pairwise(_BANDS):
        band = [(p, real) for p, real in told if low <= p < high]
        if len(band) > len(ours) / 20:
            bands[f"{_mean([p for p, _ in band]):.2f}"] = round(_mean([float(real) for _, real in band]), 2)
    true = _mean([one.true for one in ours])
    return {
        "true": round(true, 2),
        "ratio": round(ratio, 3),
        "interval": (round(ratio - width, 3), round(ratio + width, 3)),
        "claimed": round(_mean([one.claimed for one in ours]), 2),
        "measured apart": round(_mean([one.fresh for one in ours]), 2),
        "bias of that, %": round(100 * (_mean([one.fresh for one in ours]) / true - 1), 1) if true else 0.0,
        "interval of that holds": round(_mean([float(one.covered) for one in ours]), 3),
        "keeps": round(_mean([float(one.keeps) for one in ours]), 1),
        "of them without effect": round(sum(one.idle for one in ours) / max(1, sum(one.keeps for one in ours)), 2),
        "said: was real": bands,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / max(1, len(values))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half its 95% interval."""
    mean, count = _mean(values), len(values)
    return mean, 1.96 * math.sqrt(math.fsum((one - mean) ** 2 for one in values) / max(1, count - 1) / count)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Ratio of two paired means and half its 95% interval, by the delta method."""
    ratio, count = _mean(ours) / _mean(theirs), len(ours)
    errors = [a - ratio * b for a, b in zip(ours, theirs, strict=True)]
    deviation = math.sqrt(math.fsum(e * e for e in errors) / max(1, count - 1))
    return ratio, 1.96 * deviation / math.sqrt(count) / abs(_mean(theirs))


class Comparison(NamedTuple):
    """A kind of night, and the rules that are compared with upstream's on it."""

    name: str
    night: Night
    rules: tuple[str, ...] = ("odds",)
    share: float = 0.25  # of the nights asked for

    def figures(self, nights: int) -> dict[str, dict[str, Any]]:
        """{rule: figures}, upstream's first."""
        count = max(20, round(nights * self.share))
        upstream = many(rule("upstream"), self.night, count)
        found = {"upstream": against(upstream, upstream)}
        for name in self.rules:
            night = replace(self.night, apart=APART if name == "odds" else (0, 0))
            found[name] = against(many(rule(name), night, count), upstream)
        return found


COMPARISONS = (
    *(Comparison(f"{kind}, {RUNS} runs", Night(kind), share=1.0) for kind in ("real", "mar8", MIXTURE)),
    *(Comparison(f"{kind}, {RUNS} runs, by pairs", Night(kind), ("paired",)) for kind in ("real", MIXTURE)),
    *(Comparison(f"{kind}, {runs} runs", Night(kind, runs)) for kind in ("real", MIXTURE) for runs in (50, 500)),
    *(Comparison(f"real, {RUNS} runs, {lanes} lanes", Night("real", RUNS, lanes)) for lanes in (2, 4, 8)),
    Comparison(f"real, {RUNS} runs, scores rise by 2 sigma", Night(drift=2.0)),
    Comparison(f"real, {RUNS} runs, candidates of 3 times the noise", Night(wild=3.0)),
    Comparison(f"real, {RUNS} runs, files ignore their seed", Night(seedless=True)),
)


def replay(path: Path, sigma: float) -> dict[str, Any]:
    """What rule `odds` thinks of a published results.tsv, its keeps as they were: {"keeps", "claimed", "expected"}."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [
            row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if float(row["val_bpb"]) > 0
        ]
    first = float(rows[0]["val_bpb"])
    beliefs, best, keeps = Beliefs(1, [first], sigma), first, []
    claims: list[float] = []
    for number, row in enumerate(rows[1:], 2):
        score, kept = float(row["val_bpb"]), row["status"].strip().lower() == Status.KEEP
        weighed = beliefs.weigh(beliefs.best, [score])
        if kept:
            claims.append(round(best - score, 6))
            told = {"commit": row["commit"], "claimed": claims[-1], "expected": round(weighed.gain, 6)}
            keeps.append({**told, "probability": round(weighed.probability, 2), "what": row["description"][:60]})
            best = score
        beliefs.learn(number, beliefs.best, [score], kept=kept)
    return {
        "keeps": keeps,
        "claimed": round(first - best, 6),
        "expected": round(beliefs.expected(1) - beliefs.expected(), 6),
        "sigma": round(beliefs.sigma(), 6),
        "below the noise": sum(claim < beliefs.sigma() for claim in claims),
    }


def main() -> None:
    """Print the comparison, or a replay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=2000)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--sigma", type=float, default=shipped().least_noise_bpb, help="first guess of the noise")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.replay is None:
        found = {}
        for one in COMPARISONS:
            found[one.name] = one.figures(asked.nights)
            print(f"{one.name}: {json.dumps(found[one.name])}", flush=True)
        print(json.dumps(found))
        return
    told = replay(asked.replay, asked.sigma)
    if not asked.json:
        for one in told["keeps"]:
            odds = f"expected {one['expected']:+.6f}  real {one['probability']:.2f}"
            print(f"{one['commit'][:7]}  {one['claimed']:+.6f}  {odds}  {one['what']}")
    print(json.dumps({**told, "keeps": len(told["keeps"])} if not asked.json else told))


if __name__ == "__main__":
    main()
