"""What the runner makes of a tag: near misses, plateau, how kinds of edits fared."""

from __future__ import annotations

import random

from runner.core.base.mountable import SOURCE
from runner.core.base.values import Status
from runner.core.decision.noise import Noise
from runner.core.findings import analysis
from tests.samples import experiment

SEED = (SOURCE / "trainer" / "train.py").read_bytes()


def test_a_night_is_summed_up() -> None:
    sources = {
        1: SEED,
        2: SEED.replace(b"EMBED_LR = 0.3", b"EMBED_LR = 0.2"),
        3: SEED.replace(b"EMBED_LR = 0.3", b"EMBED_LR = 0.1"),
        4: SEED.replace(b"DEPTH = 8", b"DEPTH = 9"),
    }
    rows = [
        experiment(1),
        experiment(2, claimed=0.01),
        experiment(3, status=Status.DISCARD, claimed=-0.001),
        experiment(4, status=Status.CRASH, val_bpb=None),
    ]
    found = analysis.study(rows, Noise(0.00123, 4), lambda row: sources[row.id])
    assert found.kinds["learning_rate"] == analysis.Tally(tried=3, kept=1, failed=1, best_gain=0.01)
    assert found.kinds["size"] == analysis.Tally(tried=1, kept=0, failed=1, best_gain=None)
    assert (found.near_misses, found.plateau, found.noise_bpb) == ([3], 2, 0.0012)


def test_without_noise_nothing_is_a_near_miss_and_without_rows_nothing_is_said() -> None:
    rows = [experiment(1), experiment(2, status=Status.DISCARD, claimed=0.0)]
    assert analysis.study(rows, None, lambda _: SEED).near_misses == []
    assert analysis.study([], None, lambda _: SEED) == analysis.Analysis(
        kinds={}, near_misses=[], plateau=0, noise_bpb=None
    )


def test_telemetry_is_set_against_the_best_it_was_made_from() -> None:
    before = experiment(1, curve=[(0, 7.0), (9, 5.0)], summary={"num_steps": 10.0, "num_params_M": 0.0})
    row = experiment(2, curve=[(0, 7.0), (9, 4.5)], summary={"num_steps": 12.0, "num_params_M": 1.0})
    assert analysis.against(row, before) == {"last_loss": -0.5, "num_steps": 1.2}
    assert analysis.against(row, None) == {}


def test_near_misses_are_the_closest_however_they_came() -> None:
    claims = [-n / 10_000 for n in range(60)]
    random.Random(3).shuffle(claims)
    rows = [experiment(1)] + [experiment(n, status=Status.DISCARD, claimed=c) for n, c in enumerate(claims, 2)]
    found = analysis.study(rows, Noise(0.0002, 4), lambda _: None)
    close = sorted((-c, n) for n, c in enumerate(claims, 2) if c > -0.0004)
    assert found.near_misses == [n for _, n in close][: analysis.NEAR_SHOWN]
    assert len(analysis.study(rows, Noise(0.01, 4), lambda _: None).near_misses) == analysis.NEAR_SHOWN
