"""What the runner makes of a tag: kinds of edits from real sources, near misses, plateau."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.home import SOURCE
from runner.core.base.values import Status
from runner.core.decision.noise import Noise
from runner.core.findings import analysis
from runner.people.pages import session_report
from tests.samples import experiment

SEED = (SOURCE / "trainer" / "train.py").read_bytes()


def changed(old: bytes, new: bytes, source: bytes = SEED) -> tuple[str, ...]:
    assert old in source
    return analysis.kinds(source, source.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (b"MATRIX_LR = 0.02", b"MATRIX_LR = 0.03", "learning_rate"),
        (b"WARMDOWN = 0.4", b"WARMDOWN = 0.6", "schedule"),
        (b"2**14 ", b"2**13 ", "batch"),
        (b"DEPTH = 8", b"DEPTH = 9", "size"),
        (b"WEIGHT_DECAY = 0.1", b"WEIGHT_DECAY = 0.2", "regularization"),
        (b"momentum=0.95", b"momentum=0.9", "optimizer"),
        (b"q, k = rms(rotate(q, cos, sin))", b"q, k = rms(rotate(q, sin, cos))", "attention"),
        (b"self.embed.weight.normal_()", b"self.embed.weight.zero_()", "initialization"),
        (b"F.relu(self.up(rms(x))).square()", b"F.gelu(self.up(rms(x)))", "architecture"),
        (b"loss.backward()", b"(2 * loss).backward()", "training_loop"),
        (b"# Dials", b"# Knobs", "nothing"),
        (b"def rms(x):", b"def rms(x", "other"),
    ],
)
def test_edits_of_the_seed_are_told_apart(old: bytes, new: bytes, kind: str) -> None:
    assert changed(old, new) == (kind,)


def test_two_things_at_once_are_both_named_in_a_fixed_order() -> None:
    both = SEED.replace(b"DEPTH = 8", b"DEPTH = 9").replace(b"EMBED_LR = 0.3", b"EMBED_LR = 0.2")
    assert analysis.kinds(SEED, both) == ("learning_rate", "size")


def test_upstreams_own_dials_are_told_apart() -> None:
    folder = os.environ.get("GLOVEBOX_UPSTREAM")
    restated = b"EMBEDDING_LR = 0.6  # embeddings\nASPECT_RATIO = 64  # width over depth\nDEPTH = 8\n"
    source = (Path(folder) / "train.py").read_bytes() if folder else restated
    assert changed(b"EMBEDDING_LR = 0.6", b"EMBEDDING_LR = 0.8", source) == ("learning_rate",)
    assert changed(b"ASPECT_RATIO = 64", b"ASPECT_RATIO = 57", source) == ("size",)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_kind(data: bytes) -> None:
    assert analysis.kinds(SEED, data)
    assert analysis.kinds(data, data) in (("nothing",), ("other",))


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


HUGE = (
    b"A = 0x" + b"f" * 4000,
    b"A = " + b"+".join([b"1"] * 1500),
    b"x;" * 100_000,
    b"A = " + b"(" * 150 + b")" * 150,
    b"# coding: utf-7\n+AAo-x = 1\n",
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "source", HUGE, ids=["digits", "deep sum", "one line", "brackets", "more lines than bytes say"]
)
def test_a_file_made_to_choke_on_is_only_another_kind(source: bytes) -> None:
    """Every recorded train.py is analysed again and again: none may end a night, or take longer than a look."""
    assert analysis.kinds(SEED, source)
    assert analysis.kinds(source, source + b"\ny = 1\n")
    assert isinstance(session_report.dials(source), dict)
