"""What early stopping saves, and what it loses: simulated nights, and real runs on a bench.

    python -m bench.early_stop [--nights N] [--real N] [--budget S] [--json]

Simulated: nights of 126 experiments whose loss at a look tells of the score to come, more closely the later it is; the
decision to end one is the production code (early_stop.py). `late` nights add candidates that are behind for most
of the run and catch up. Real: N variations of the seed are trained to their end in containers with every look noted
(audit: 1), so that one series says what would have been ended and what that would have lost. The last line is one
JSON object; makes the table of docs/decision.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from bench import loader, overhead
from runner.core.artifacts import profiles
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Experiment, Status
from runner.core.decision.early_stop import Lookout
from runner.core.policy import policy_files
from runner.core.policy.policy_files import EarlyStop
from runner.people.host import processes

RUNS = 126  # of a night, as upstream's
SIGMA = 0.001  # val_bpb, standard deviation of one run
SLOPE = 0.36  # bits per byte of one nat of training loss
_NOTHING: dict[str, Any] = {
    "tag": "s",
    "description": "",
    "snapshot": "0" * 64,
    "snapshot_size": 0,
    "commit": "0" * 40,
    "run": "0" * 16,
    "started": "",
    "artifact": "demo-1",
    "policy": "0" * 64,
}


def candidate(chance: random.Random, best: float, late: bool) -> tuple[float, list[float]]:
    """(score, how far its loss at each look is from what the score says, in val_bpb) of one train.py."""
    kind = chance.random()
    if kind < 0.20:
        effect = chance.uniform(0.5, 5)  # better, in sigma
    elif kind < 0.60:
        effect = 0.0
    elif kind < 0.90:
        effect = -chance.expovariate(1 / 15)
    else:
        effect = -chance.uniform(50, 300)  # a broken schedule, a wrong sign
    score = best - effect * SIGMA + chance.gauss(0, SIGMA)
    behind = chance.uniform(5, 30) * SIGMA if late and chance.random() < 0.10 else 0.0
    style = chance.gauss(0, 4 * SIGMA)  # batch size, warm-up: the curve goes another way to the same end
    return score, [style + behind, 0.6 * style + 0.7 * behind, 0.3 * style + 0.3 * behind]


def night(rules: EarlyStop, seed: int, late: bool) -> dict[str, float]:
    """One night of so many runs: what was ended, the time it took, and the wins it cost."""
    chance = random.Random(f"{seed} {late}")  # noqa: S311 - a simulation
    rows: list[Experiment] = []
    best, seconds, ended, wins, lost = 1.0, 0.0, 0, 0, 0
    for number in range(1, RUNS + 1):
        score, off = candidate(chance, best, late) if rows else (1.0, [0.0] * len(rules.looks))
        pace = [
            (look, round((score + away) / SLOPE + 1.5 * (1 - look) + chance.gauss(0, 0.003), 4))
            for look, away in zip(rules.looks, off, strict=True)
        ]
        lookout = Lookout(rules, "", partial(_known, rows, best), chance.random() < rules.audit)
        stopped = next((look for look, loss in pace if rules.enabled and lookout.judge(look, loss)), None)
        win = score < best and bool(rows)
        wins += win
        seconds += 1.0 if stopped is None else stopped
        ended += stopped is not None
        lost += win and stopped is not None
        kept = stopped is None and (win or not rows)
        rows.append(
            Experiment(
                id=number, status=Status.KEEP if kept else Status.DISCARD, val_bpb=score if stopped is None else None,
                pace=pace, hopeless=lookout.found, **_NOTHING,
            )
        )  # fmt: skip
        best = score if kept else best
    return {"seconds": seconds, "ended": ended, "wins": wins, "lost": lost}


def _known(rows: list[Experiment], best: float) -> tuple[list[Experiment], float | None]:
    return rows, best


def simulated(nights: int, late: bool) -> dict[str, float]:
    """Sums over nights: experiments an hour relative to none ended, shares of runs ended and of wins lost."""
    rules = policy_files.load(SOURCE / "policies").decision.early_stop.model_copy(update={"enabled": True})
    found = [night(rules, seed, late) for seed in range(nights)]
    total = {name: sum(one[name] for one in found) for name in found[0]}
    return {
        "experiments_per_hour": round(nights * RUNS / total["seconds"], 3),
        "ended": round(total["ended"] / (nights * RUNS), 3),
        "wins": total["wins"],
        "wins_lost": round(total["lost"] / max(1, total["wins"]), 4),
    }


def variations(count: int) -> list[str]:
    """Seeds with other dials: learning rates, schedule, batch and width, better and worse."""
    chance, text = random.Random(7), (SOURCE / "trainer" / "train.py").read_text()  # noqa: S311 - a choice of dials
    found = [text]
    while len(found) < count:
        dials = {
            "MATRIX_LR = 0.02": f"MATRIX_LR = {0.02 * 10 ** chance.uniform(-1.2, 0.8):.4f}",
            "EMBED_LR = 0.3": f"EMBED_LR = {0.3 * 10 ** chance.uniform(-1.2, 0.6):.4f}",
            "else 2**14 ": f"else 2**{chance.choice((12, 13, 13, 14, 14, 15))} ",
            "WARMDOWN = 0.4": f"WARMDOWN = {chance.choice((0.1, 0.3, 0.5, 0.8))}",
        }
        changed = text
        for old in chance.sample(sorted(dials), chance.choice((1, 1, 2))):
            if changed.count(old) != 1:
                raise SystemExit(f"trainer/train.py: expected one {old!r}")
            changed = changed.replace(old, dials[old])
        found.append(changed)
    return found


def real(count: int, budget: int) -> dict[str, Any]:
    """Train so many variations to their end, and say what early stopping would have done to them."""
    profile = profiles.Profile("upstream", 256, budget, 1024, 256 * 256, 4, 20_000_000, 10_000)
    with tempfile.TemporaryDirectory() as name, mock.patch.object(loader, "PROFILE", profile):
        folder = Path(name)
        _, artifact = loader.make(folder)
        home, work = Home(folder / "bench"), folder / "train.py"
        stop = policy_files.load(SOURCE / "policies").decision.early_stop
        watching = stop.model_copy(update={"enabled": True, "audit": 1.0})
        with processes.doors() as places, processes.launcher(home, places):
            loop = overhead.loop(home, artifact.name, places, early_stop=watching)
            loop.begin()
            for number, text in enumerate(variations(count), 1):
                work.write_text(text)
                told = loop.experiment(work, f"variation {number}")
                print(f"{number}: {told.status} {told.val_bpb}", file=sys.stderr, flush=True)
        rows = loop.ledger.experiments(loop.tag)
    hopeless = [row for row in rows if row.hopeless is not None]
    wins = [row for row in rows[1:] if row.status is Status.KEEP]
    saved = sum((1 - row.hopeless.look) * budget for row in hopeless if row.hopeless)
    spent = sum(row.train_seconds for row in rows)
    return {
        "runs": len(rows),
        "scored": sum(row.val_bpb is not None for row in rows),
        "ended": len(hopeless),
        "experiments_per_hour": round(spent / (spent - saved), 3),
        "wins": len(wins),
        "wins_lost": sum(row.hopeless is not None for row in wins),
        "ended_ids": [row.id for row in hopeless],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=40)
    parser.add_argument("--real", type=int, default=0, help="variations of the seed to train on a bench")
    parser.add_argument("--budget", type=int, default=10, help="seconds of training of a real run")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    document: dict[str, Any] = {"simulated": simulated(asked.nights, False), "late": simulated(asked.nights, True)}
    if asked.real:
        document["real"] = real(asked.real, asked.budget)
    if not asked.json:
        for name, numbers in document.items():
            print(f"{name:10} {numbers}")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
