"""Reruns a person asks for: side by side, on the same seeds, under the same other terms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Status
from runner.core.evidence import verify
from runner.core.findings import transfers
from runner.core.policy import policy_files
from runner.rooms.desk import requested_reruns
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.memory import Memory
from runner.rooms.desk.settings import Order
from runner.rooms.desk.steering import Steering
from tests.rooms.desk.test_reruns import Bench
from tests.samples import experiment

A, B = "DEPTH = 2\na = 1\n", "DEPTH = 2\nb = 2\n"


@pytest.fixture
def bench(home: Home, policies: policy_files.Policies) -> Bench:
    """A baseline and one keep over it."""
    made = Bench(home, policies)
    made.experiment(A, s42=2.0)
    made.stages.scores.update({(A.encode(), 43): 2.01, (A.encode(), 44): 1.99, (B.encode(), 43): 1.51})
    assert made.experiment(B, s42=1.5).status is Status.KEEP
    return made


def scores(bench: Bench, text: str, **values: float) -> None:
    bench.stages.scores.update({(text.encode(), int(name[1:])): value for name, value in values.items()})


def _silent(*_: object) -> None:
    """Nobody watches."""


def loop(bench: Bench) -> Loop:
    memory = Memory(bench.stages.home, bench.stages.policies, bench.recorder.ledger, "t")
    return Loop("t", bench.stages, bench.recorder, _silent, b"", memory, Steering(bench.recorder, _silent))


def test_a_gain_is_confirmed_on_seeds_nothing_was_chosen_by(bench: Bench) -> None:
    scores(bench, A, s1000=2.0, s1001=2.02)
    scores(bench, B, s1000=1.6, s1001=1.58)
    (found,) = requested_reruns.carry_out(loop(bench), Order(top=1, seeds=2))
    assert (found.experiment, found.against, found.gain) == (2, 1, 0.42)
    assert found.scores == {1000: 1.6, 1001: 1.58}
    assert found.interval is not None
    assert found.interval[0] < 0.42 < found.interval[1]


def test_the_holdout_is_for_what_is_confirmed_and_for_nothing_else(bench: Bench) -> None:
    """Hundreds of evaluations overfit a validation set; nothing is chosen by this one."""
    assert bench.stages.has_holdout()
    assert not any(bench.stages.held)  # a night, with its reruns
    for text in (A, B):
        scores(bench, text, s1000=2.0 if text == A else 1.6, s1001=2.02 if text == A else 1.58)
    requested_reruns.carry_out(loop(bench), Order(experiments=(2,), seeds=1))
    assert not any(bench.stages.held)  # a step that a person runs again
    before = len(bench.stages.held)
    (found,) = requested_reruns.carry_out(loop(bench), Order())
    assert bench.stages.held[before:] == [True] * 4
    assert (found.holdout, found.gain) == (True, 0.42)
    assert not [f for f in verify.verify(bench.home).failures if "results.tsv" not in f]


def test_scores_of_the_holdout_are_never_put_beside_others(bench: Bench) -> None:
    scores(bench, A, s1000=2.0, s1001=2.0)
    scores(bench, B, s1000=1.6, s1001=1.6)
    held = bench.stages.has_holdout
    with pytest.MonkeyPatch.context() as patch:  # as an artifact without one
        patch.setattr(type(bench.stages), "has_holdout", lambda _: False)
        (plain,) = requested_reruns.carry_out(loop(bench), Order())
    assert (plain.holdout, plain.gain) == (False, 0.4)
    assert held()
    scores(bench, A, s1000=3.0, s1001=3.0)
    scores(bench, B, s1000=2.9, s1001=2.9)
    (found,) = requested_reruns.carry_out(loop(bench), Order())
    assert (found.holdout, found.gain) == (True, 0.1)  # not 0.4, and no mean of both
    every = transfers.transfers(bench.ledger.experiments("t"), bench.ledger.reruns("t"), 0.05)
    assert {(one.holdout, one.gain) for one in every} == {(False, 0.4), (True, 0.1)}


def test_what_was_run_is_not_run_again_and_changes_no_verdict(bench: Bench) -> None:
    scores(bench, A, s1000=1.0, s1001=1.0)
    scores(bench, B, s1000=1.2, s1001=1.21)
    order = Order(experiments=(2,), seeds=2, budget=12)
    first = requested_reruns.carry_out(loop(bench), order)
    asked = len(bench.stages.asked)
    assert requested_reruns.carry_out(loop(bench), order) == first
    assert len(bench.stages.asked) == asked
    assert first[0].gain == -0.205
    assert not [f for f in verify.verify(bench.home).failures if "results.tsv" not in f]
    bench.experiment("c = 3\n", s42=2.5)
    assert not verify.verify(bench.home).failures


def test_a_larger_depth_is_put_into_both_files(bench: Bench) -> None:
    for text in (A, B):
        scores(bench, text.replace("2", "8", 1), s1000=1.0)
    (found,) = requested_reruns.carry_out(loop(bench), Order(experiments=(2,), seeds=1, depth=8))
    assert bench.stages.asked[-2:] == [(text.replace("2", "8", 1).encode(), 1000) for text in (A, B)]
    assert (found.depth, found.gain, found.interval) == (8, 0.0, None)


def test_a_run_that_gives_no_score_is_counted_and_tried_again(bench: Bench) -> None:
    scores(bench, A, s1000=2.0)
    (found,) = requested_reruns.carry_out(loop(bench), Order(experiments=(2,), seeds=1))
    assert (found.failed, found.gain) == (1, None)
    scores(bench, B, s1000=1.9)
    (found,) = requested_reruns.carry_out(loop(bench), Order(experiments=(2,), seeds=1))
    assert found.gain == 0.1


def test_enough_ends_it_after_the_run_in_progress_and_the_same_order_goes_on(bench: Bench) -> None:
    scores(bench, A, s1000=2.0, s1001=2.02)
    scores(bench, B, s1000=1.6, s1001=1.58)
    asked, order, made = len(bench.stages.asked), Order(top=1, seeds=2), loop(bench)
    (found,) = requested_reruns.carry_out(made, order, lambda: len(bench.stages.asked) > asked + 1)
    assert (len(bench.stages.asked), found.scores, found.others) == (asked + 2, {1000: 1.6}, {1000: 2.0})
    (found,) = requested_reruns.carry_out(made, order)
    assert (len(bench.stages.asked), found.gain) == (asked + 4, 0.42)


def test_the_baseline_is_measured_alone(bench: Bench) -> None:
    scores(bench, A, s1000=2.0)
    (found,) = requested_reruns.carry_out(loop(bench), Order(experiments=(1,), seeds=1))
    assert (found.against, found.gain, found.scores) == (None, None, {1000: 2.0})


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (Order(experiments=(9,)), "no experiment 9"),
        (Order(experiments=(2,), profile="none-such"), "no artifact of profile 'none-such'.*prepare --profile"),
    ],
)
def test_what_is_not_there_is_named(bench: Bench, order: Order, told: str) -> None:
    with pytest.raises(GloveboxError) as raised:
        requested_reruns.carry_out(loop(bench), order)
    assert __import__("re").search(told, str(raised.value))


def test_without_a_keep_there_is_nothing_to_confirm(home: Home, policies: policy_files.Policies) -> None:
    made = Bench(home, policies)
    made.experiment(A, s42=2.0)
    asked = len(made.stages.asked)
    assert requested_reruns.carry_out(loop(made), Order()) == []
    assert requested_reruns.carry_out(loop(made), Order(top=3)) == []
    assert len(made.stages.asked) == asked


def test_the_whole_gain_is_measured_in_turns_and_again_only_where_it_is_missing(bench: Bench) -> None:
    scores(bench, A, s1000=2.0, s1001=2.02)
    scores(bench, B, s1000=1.6, s1001=1.58)
    before = len(bench.stages.asked)
    (found,) = requested_reruns.carry_out(loop(bench), Order())
    assert [data for data, _ in bench.stages.asked[before:]] == [A.encode(), B.encode()] * 2
    assert (found.experiment, found.against, found.gain) == (2, 1, 0.42)
    assert found.interval is not None
    assert found.interval[0] < 0.42 < found.interval[1]
    asked = len(bench.stages.asked)
    assert requested_reruns.carry_out(loop(bench), Order()) == [found]
    assert len(bench.stages.asked) == asked


def test_the_largest_claims_come_first(bench: Bench) -> None:
    rows = [experiment(1), experiment(2, claimed=0.1), experiment(3, claimed=0.3), experiment(4, claimed=0.2)]
    assert [row.id for row in requested_reruns._chosen(rows, Order(top=2))] == [3, 4]


def test_depth_is_changed_in_the_seed_and_nothing_else() -> None:
    seed = (SOURCE / "trainer" / "train.py").read_bytes()
    changed = requested_reruns.with_depth(seed, 12)
    assert changed == seed.replace(b"DEPTH = 8 if CUDA else 2", b"DEPTH = 12")


def test_depth_is_changed_in_upstreams_file() -> None:
    folder = os.environ.get("GLOVEBOX_UPSTREAM")
    restated = b"# Model size\nDEPTH = 8               # layers\nDEVICE_BATCH_SIZE = 128\n"
    source = (Path(folder) / "train.py").read_bytes() if folder else restated
    assert requested_reruns.with_depth(source, 12) == source.replace(b"\nDEPTH = 8", b"\nDEPTH = 12")


@pytest.mark.parametrize("text", ["", "x = 1\n", "DEPTH = 1\nDEPTH = 2\n", "def f():\n    DEPTH = 2\n", "DEPTH = (\n"])
def test_a_file_without_one_depth_is_refused(text: str) -> None:
    with pytest.raises(GloveboxError, match="DEPTH"):
        requested_reruns.with_depth(text.encode(), 3)


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=40), st.integers(1, 99))
def test_text_around_it_survives_whatever_its_encoding(comment: str, depth: int) -> None:
    line = "# " + "".join(c for c in comment if c.isprintable()) + "\n"
    source = (line + "DEPTH = 2 + 3  # ü\n" + line).encode()
    assert requested_reruns.with_depth(source, depth) == (line + f"DEPTH = {depth}  # ü\n" + line).encode()


def test_another_profiles_artifact_is_used_with_policys_whole_allowance(bench: Bench) -> None:
    """The newest artifact of that profile; a depth or an artifact the baseline's calibration knows nothing of."""
    scores(bench, A, s1000=2.0)
    scores(bench, B, s1000=1.7)
    order = Order(experiments=(2,), seeds=1, profile="demo")
    made = loop(bench)
    (found,) = requested_reruns.carry_out(made, order)
    assert (found.artifact, found.gain) == ("demo-1", 0.3)
    policy_ = made.policies.decision
    trials = requested_reruns._terms(made, order)
    assert trials.limit(60.0) == 60.0 + policy_.startup_seconds + policy_.hand_over_seconds
    assert requested_reruns._terms(made, Order()).limit(60.0) < trials.limit(60.0)
