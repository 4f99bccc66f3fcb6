"""Reruns: recorded before they run, completed once, read by the decision; on a real ledger, git and audit chain.

Containers are stood in for by a table of scores; tests/e2e runs the same with real ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.core.airlock import snapshot
from runner.core.artifacts import keys, store
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.launching import EndReason, EngineResult, Lane
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Experiment, Score, Scored, Snapshot, Status, Telemetry, Trained
from runner.core.decision import standing
from runner.core.decision.decide import Verdict
from runner.core.decision.odds import Line
from runner.core.evidence import audit_chain, disk_reserve, verify
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.evidence.replay import replay
from runner.core.policy import policy_files
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.reruns import Trials
from runner.rooms.desk.train_and_score import Stages
from tests import samples

ENGINE = EngineResult(
    exit_code=0,
    reason=EndReason.EXIT,
    oom=False,
    seconds=1.0,
    output_bytes=0,
    image="sha256:x",
    container="c",
    specification="0" * 64,
)


@dataclass(frozen=True)
class Table(Stages):
    """Scores by (content of train.py, number of the draw); a missing one is a crash, an exception is raised."""

    scores: dict[tuple[bytes, int], float | BaseException] = field(default_factory=dict)
    asked: list[tuple[bytes, int]] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)  # whether each was scored on the holdout
    load: list[float] = field(default_factory=lambda: [0.0])  # the last: processors that work for others now

    def run(self, taken: Snapshot, run: str, *, seed: int = 42, holdout: bool = False, **_: Any) -> Scored:
        data = taken.path.read_bytes()
        self.asked.append((data, seed))
        self.held.append(holdout)
        value = self.scores.get((data, seed))
        if isinstance(value, BaseException):
            raise value
        return beside(outcome(taken, run, value), self.load[-1])


def beside(scored: Scored, neighbours: float) -> Scored:
    """The same run, next to so many processors that worked for others."""
    engine = scored.trained.engine.model_copy(update={"neighbours": neighbours})
    return scored.model_copy(update={"trained": scored.trained.model_copy(update={"engine": engine})})


def outcome(taken: Snapshot, run: str, value: float | None) -> Scored:
    engine = ENGINE if value is not None else ENGINE.model_copy(update={"exit_code": 1})
    trained = Trained(snapshot=taken, run=run, engine=engine, telemetry=Telemetry(), handed_over=value is not None)
    if value is None:
        return Scored(trained=trained, engine=None, score=None)
    return Scored(trained=trained, engine=ENGINE, score=samples.scored(value))


class Bench:
    """A tag whose experiments are given by their scores."""

    def __init__(
        self, home: Home, policies: policy_files.Policies, rule: str = "paired", uneven: str = "again"
    ) -> None:
        self.home, self.ledger = home, Ledger(home.ledger)
        text = (SOURCE / "policies" / "decision.yaml").read_text()
        (home.root / "policies" / "decision.yaml").write_text(
            text.replace("rule: odds ", f"rule: {rule} ").replace("uneven: again ", f"uneven: {uneven} ")
        )
        policies = policy_files.load(*home.policies).model_copy(update={"evaluator": policies.evaluator})
        self.ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", policies.digest)
        self.events: list[str] = []
        self.recorder = Recorder(
            home,
            "t",
            self.ledger,
            GitLine(home.line),
            AuditLog(home.audit),
            "demo-1",
            policies.digest,
            Sealer(home, ""),
        )
        self.recorder.sealer.draw = lambda label: int(label.rsplit(" ", 1)[1])  # type: ignore[method-assign]
        self.stages = Table(home, policies, LaunchClient(home.root / "no.sock"), store.admit(home, "demo-1"))
        self.trials = Trials(
            self.stages, self.recorder, lambda event, _: self.events.append(event), lambda b: b, Line(policies.decision)
        )

    def experiment(self, text: str, **scores: float | BaseException) -> Experiment:
        """One experiment; scores by seed: s42=..., s43=..."""
        source = self.home.root / "candidate.py"
        source.write_text(text)
        taken = snapshot.take(source, self.home.snapshots, 4096)
        self.stages.scores.update({(text.encode(), int(seed[1:])): score for seed, score in scores.items()})
        run = f"{len(self.ledger.experiments('t')):016x}"
        number = self.recorder.accept(taken, text, run)
        first = scores["s42"]
        assert isinstance(first, float)
        scored = beside(outcome(taken, run, first), self.stages.load[-1])
        return self.trials.settle(number, None, scored, lambda scored, found: self._recorded(number, scored, found))

    def _recorded(self, number: int, scored: Scored, found: Verdict) -> Experiment:
        return self.recorder.finish(number, scored, found, 1.0, lane=self.stages.lane.name)


@pytest.fixture
def bench(home: Home, policies: policy_files.Policies) -> Iterator[Bench]:
    made = Bench(home, policies)
    made.experiment("a = 1\n", s42=2.0, s43=2.01, s44=1.99, s45=2.0)
    yield made
    made.ledger.close()


def test_a_gain_within_noise_is_settled_by_pairs_on_fresh_seeds(bench: Bench) -> None:
    row = bench.experiment("b = 2\n", s42=1.98, s43=2.015, s44=1.985, s45=1.99)
    assert (row.status, row.reason, row.pairs) == (Status.DISCARD, "not_confirmed", 1)
    assert [(text[:1], seed) for text, seed in bench.stages.asked] == [(b"a", 43), (b"a", 44), (b"b", 43)]
    kept = bench.experiment("c = 3\n", s42=1.98, s43=1.985, s44=1.965, s45=1.97)
    assert (kept.status, kept.claimed, kept.confirmed) == (Status.KEEP, 0.02, 0.026667)
    assert kept.interval is not None
    assert kept.interval[0] < 0.026667 < kept.interval[1]
    asked = [(text[:1], seed) for text, seed in bench.stages.asked[3:]]
    assert asked == [(b"c", 43), (b"c", 44), (b"a", 45), (b"c", 45)]  # what is known of the best is not run again
    assert bench.events.count("rerun") == bench.events.count("rerun_ended") == 7


def test_the_evidence_of_a_rerun_adds_up_and_verdicts_are_replayed(bench: Bench) -> None:
    bench.experiment("b = 2\n", s42=1.9, s43=1.9)
    bench.experiment("c = 3\n", s42=1.9, s43=1.9)
    outcome = verify.verify(bench.home)
    assert not [f for f in outcome.failures if "results.tsv" not in f], outcome.failures
    assert outcome.checked["verdicts"] == 3
    assert outcome.checked["reruns"] >= 4


@pytest.mark.parametrize(
    ("forgery", "seen"),
    [
        ("UPDATE reruns SET row = json_set(row, '$.val_bpb', 9.0) WHERE id = 1", "rerun 1: the ledger differs"),
        ("DELETE FROM reruns WHERE id = 2", "rerun 2 is in the audit chain but not in the ledger"),
        (
            "UPDATE experiments SET status = 'keep', row = json_set(row, '$.status', 'keep') WHERE id = 2",
            "verdict does not follow",
        ),
        ("UPDATE experiments SET row = json_set(row, '$.status', 'keep') WHERE id = 2", "a malformed row"),
    ],
)
def test_a_forged_rerun_or_verdict_is_found(bench: Bench, forgery: str, seen: str) -> None:
    bench.experiment("b = 2\n", s42=1.98, s43=2.02)
    bench.ledger._db.execute(forgery)
    assert any(seen in failure for failure in verify.verify(bench.home).failures)


def test_a_candidate_that_crashes_on_another_seed_is_discarded(bench: Bench) -> None:
    row = bench.experiment("b = 2\n", s42=1.98)
    assert (row.status, row.reason) == (Status.DISCARD, "not_confirmed")
    last = bench.ledger.reruns("t")[-1]
    assert (last.experiment, last.status, last.val_bpb) == (2, Status.CRASH, None)


def test_a_rerun_cut_off_by_a_dying_runner_is_closed_and_run_again_later(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.experiment("b = 2\n", s42=1.98, s43=KeyboardInterrupt())
    assert len(bench.ledger.open_reruns("t")) == 1
    bench.recorder.reconcile()
    assert bench.ledger.open_reruns("t") == []
    assert bench.ledger.reruns("t")[-1].reason == "interrupted"
    assert bench.ledger.experiments("t")[-1].reason == "interrupted"
    row = bench.experiment("b = 2\n", s42=1.98, s43=1.95, s44=1.94, s45=1.94)
    assert row.status is Status.KEEP
    assert not verify.verify(bench.home).failures


def test_a_rerun_that_the_chain_missed_is_entered_as_recovered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    appended = bench.recorder.audit_log.append

    def torn(kind: str, data: dict[str, Any]) -> None:
        if kind == "rerun":
            raise KeyboardInterrupt
        appended(kind, data)

    monkeypatch.setattr(bench.recorder.audit_log, "append", torn)
    with pytest.raises(KeyboardInterrupt):
        bench.experiment("b = 2\n", s42=1.98)
    monkeypatch.undo()
    bench.recorder.reconcile()
    entries = audit_chain.by_name(audit_chain.read(bench.home.audit), "rerun")
    assert entries["t", 1]["recovered"] is True
    assert not verify.verify(bench.home).failures


def test_a_failed_run_asks_for_nothing_more(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("x = 1\n")
    taken = snapshot.take(source, bench.home.snapshots, 4096)
    number = bench.recorder.accept(taken, "x", "f" * 16)
    verdict = bench.trials.settle(number, None, outcome(taken, "f" * 16, None), lambda _, found: found)
    assert verdict == Verdict(Status.CRASH, "exit_code")
    assert bench.stages.asked == []


def lane(bench: Bench, cores: str) -> Bench:
    """The same tag on another lane."""
    other = copy.copy(bench)
    other.stages = replace(bench.stages, lane=Lane(number=1, cores=cores))
    other.trials = replace(bench.trials, stages=other.stages)
    return other


def test_the_best_is_run_again_on_a_lane_it_was_never_run_on(bench: Bench) -> None:
    """Another GPU, another score: pairs and noise are a lane's own."""
    other = lane(bench, "4-7")
    bench.stages.scores.update(
        {(b"a = 1\n", seed): 3.0 + seed / 1000 for seed in (42, 43, 44, 45)}
    )  # it is slower there
    row = other.experiment("b = 2\n", s42=2.9, s43=2.9, s44=2.9, s45=2.9)
    assert row.lane == "4-7"
    assert row.status is Status.KEEP  # 2.9 beats 3.04 here, although the best has 2.0 on its own lane
    assert row.claimed == pytest.approx(0.144)  # over its mean here
    assert {rerun.seed for rerun in bench.ledger.reruns("t")} <= {43, 44, 45}  # 42 stands for an experiment's own run
    there = [rerun for rerun in bench.ledger.reruns("t") if rerun.experiment == 1]
    assert there
    assert {rerun.lane for rerun in there} == {"4-7"}
    assert not verify.verify(bench.home).failures


def test_a_slow_lane_is_not_measured_against_a_fast_lanes_score(bench: Bench) -> None:
    """With its noise known, too: what was kept elsewhere is run here before anything is discarded for it."""
    other = lane(bench, "4-7")
    bench.stages.scores.update({(b"a = 1\n", seed): 3.0 + seed / 1000 for seed in range(42, 50)})
    assert (
        other.experiment("b = 2\n", **{f"s{seed}": 2.9 + seed / 1000 for seed in range(42, 60)}).status is Status.KEEP
    )
    bench.stages.scores.update({(b"b = 2\n", seed): 1.9 + seed / 1000 for seed in range(42, 60)})  # on the fast lane
    assert (
        bench.experiment("c = 3\n", **{f"s{seed}": 1.5 + seed / 1000 for seed in range(42, 60)}).status is Status.KEEP
    )
    bench.stages.scores.update({(b"c = 3\n", seed): 2.5 + seed / 1000 for seed in range(42, 60)})  # and on the slow one
    row = other.experiment("d = 4\n", **{f"s{seed}": 2.0 + seed / 1000 for seed in range(42, 60)})
    assert row.status is Status.KEEP  # half a bit better than c here, half a bit worse than c there
    assert row.confirmed is not None
    assert row.confirmed > 0.4
    assert not verify.verify(bench.home).failures


def test_a_disk_that_fills_up_on_one_lane_ends_no_other_lanes_experiment(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_reserve.hold(bench.home)
    source = tmp_path / "x.py"
    source.write_text("slow = 1\n")
    taken = snapshot.take(source, bench.home.snapshots, 4096)
    slow = bench.recorder.accept(taken, "slow", "a" * 16)
    append, full = bench.recorder.audit_log.append, [True]
    monkeypatch.setattr(disk_reserve.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))

    def filling(kind: str, data: dict[str, Any]) -> None:
        if kind == "finished" and full:
            full.clear()
            raise OSError(28, "No space left on device")
        append(kind, data)

    monkeypatch.setattr(bench.recorder.audit_log, "append", filling)
    with pytest.raises(GloveboxError, match="disk is full"):
        lane(bench, "4-7").experiment("quick = 1\n", s42=3.0)
    assert bench.ledger.open_numbers("t") == [slow]  # its own lane ends it
    bench.recorder.finish(slow, outcome(taken, "a" * 16, 3.0), Verdict(Status.DISCARD, None, -1.0), 1.0)
    assert not [failure for failure in verify.verify(bench.home).failures if "verdict" not in failure]


def test_a_frontier_that_moves_while_a_candidate_is_confirmed_is_the_one_to_beat(bench: Bench) -> None:
    """Another lane keeps something better in the middle of our pairs: the verdict is on that, with pairs of its own."""
    other = lane(bench, "4-7")
    for text in (b"a = 1\n", b"better = 1\n"):
        bench.stages.scores.update({(text, seed): 2.0 if text[:1] == b"a" else 1.5 for seed in range(42, 60)})
    run, moved = bench.stages.run, []

    def moving(taken: Snapshot, name: str, **more: Any) -> Scored:
        if taken.path.read_bytes().startswith(b"b = 2") and not moved:
            moved.append(True)
            better = {f"s{seed}": 1.5 for seed in range(42, 60)}
            assert other.experiment("better = 1\n", **better).status is Status.KEEP
        return run(taken, name, **more)

    object.__setattr__(bench.stages, "run", moving)
    row = bench.experiment("b = 2\n", **{f"s{seed}": 1.9 + seed / 10_000 for seed in range(42, 60)})
    assert moved
    assert [one.id for one in bench.ledger.experiments("t")] == [1, 3, 2]
    assert row.status is Status.DISCARD  # 1.9 would have beaten 2.0
    best = standing.best(bench.ledger.experiments("t"))
    assert best is not None
    assert best.id == 3
    assert not verify.verify(bench.home).failures


def test_a_runner_that_dies_with_two_lanes_under_way_loses_no_row(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("slow = 1\n")
    taken = snapshot.take(source, bench.home.snapshots, 4096)
    slow = bench.recorder.accept(taken, "slow", "a" * 16)
    assert lane(bench, "4-7").experiment("quick = 1\n", s42=3.0).id == slow + 1
    bench.recorder.reconcile()  # what the next runner does first
    assert [(row.id, row.reason) for row in bench.ledger.experiments("t")] == [
        (1, None), (slow + 1, None), (slow, "interrupted")
    ]  # fmt: skip
    assert bench.experiment("c = 3\n", s42=3.0).id == slow + 2
    assert not verify.verify(bench.home).failures


def test_nothing_tells_a_train_py_which_run_it_is(home: Home, policies: policy_files.Policies) -> None:
    """Seeds look alike, are the same for both sides of a pair, and are known to this bench alone."""
    sealer = Sealer(home, "")
    draws = [sealer.draw(f"t experiment {n}") for n in range(50)] + [
        sealer.draw(f"t pair 1 draw {n}") for n in range(50)
    ]
    assert len(set(draws)) == 100
    assert all(0 <= draw < 2**31 for draw in draws)
    assert min(draws) < 2**28 < 2**30 < max(draws)
    assert Sealer(home, "").draw("t experiment 1") == draws[1]
    home.audit_key.unlink()
    keys.create_audit_key(home)
    assert Sealer(home, "").draw("t experiment 1") != draws[1]


def test_pairs_are_given_the_same_seed_and_other_runs_another(bench: Bench) -> None:
    bench.recorder.sealer = Sealer(bench.home, "")
    bench.stages.scores.clear()
    with pytest.raises(GloveboxError, match="snapshot is missing"):
        bench.trials.snapshot(bench.ledger.experiments("t")[0].model_copy(update={"snapshot": "0" * 64}))
    best = bench.ledger.experiments("t")[0]
    taken = bench.trials.snapshot(best)
    first = bench.trials.rerun(1, 2, taken, 43, pair=1)
    second = bench.trials.rerun(2, 2, taken, 43, pair=1)
    other = bench.trials.rerun(2, 3, taken, 43, pair=2)
    assert first.given == second.given != other.given
    assert bench.trials.first_seed(2) not in (first.given, other.given)
    assert [seed for _, seed in bench.stages.asked[-3:]] == [first.given, second.given, other.given]


def _unaudited(bench: Bench, text: str, value: float) -> tuple[int, Scored]:
    source = bench.home.root / "candidate.py"
    source.write_text(text)
    taken = snapshot.take(source, bench.home.snapshots, 4096)
    run = f"{len(bench.ledger.experiments('t')):016x}"
    number = bench.recorder.accept(taken, text, run)
    scored = outcome(taken, run, value)
    part = samples.AUDITED.model_copy(update={"whole": False, "audited": 8})
    return number, scored.model_copy(update={"score": samples.scored(value, part)})


@pytest.mark.parametrize(
    ("again", "status", "reason"),
    [
        (samples.scored(1.5), Status.KEEP, None),
        (samples.scored(1.6), Status.REJECTED, "nondeterministic"),
        (Score(status="refused", reason="proof_contradicted"), Status.NON_CAUSAL, "proof_contradicted"),
        (None, Status.REJECTED, "evaluation_failed"),
    ],
)
def test_what_would_be_kept_is_audited_on_every_row_before_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, again: Score | None, status: Status, reason: str | None
) -> None:
    bench.stages.scores.update({(b"b = 2\n", 43): 1.51, (b"a = 1\n", 43): 2.01})
    number, scored = _unaudited(bench, "b = 2\n", 1.5)
    monkeypatch.setattr(Table, "audit", lambda self, scored, _: scored.model_copy(update={"score": again}))
    row = bench.trials.settle(number, None, scored, lambda scored, found: bench._recorded(number, scored, found))
    assert (row.status, row.reason) == (status, reason)
    if status is Status.KEEP:
        assert row.evaluation is not None
        assert row.evaluation.whole


def test_what_is_discarded_anyway_is_not_audited_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    number, scored = _unaudited(bench, "b = 2\n", 3.0)
    monkeypatch.setattr(Table, "audit", lambda *_: pytest.fail("audited"))
    row = bench.trials.settle(number, None, scored, lambda scored, found: bench._recorded(number, scored, found))
    assert row.status is Status.DISCARD


def test_without_an_audit_in_policy_none_is_asked_for(bench: Bench) -> None:
    evaluator = bench.stages.policies.evaluator.model_copy(update={"audit_trials": 0})
    policies = bench.stages.policies.model_copy(update={"evaluator": evaluator})
    trials = replace(bench.trials, stages=replace(bench.stages, policies=policies))
    bench.stages.scores.update({(b"b = 2\n", 43): 1.51, (b"a = 1\n", 43): 2.01})
    number, scored = _unaudited(bench, "b = 2\n", 1.5)
    row = trials.settle(number, None, scored, lambda scored, found: bench._recorded(number, scored, found))
    assert row.status is Status.KEEP


@pytest.mark.parametrize("policy_says", ["stop", "go_on"])
def test_a_contradicted_proof_is_told_and_ends_the_run_unless_policy_says_go_on(bench: Bench, policy_says: str) -> None:
    evaluator = bench.stages.policies.evaluator.model_copy(update={"on_contradiction": policy_says})
    policies = bench.stages.policies.model_copy(update={"evaluator": evaluator})
    trials = replace(bench.trials, stages=replace(bench.stages, policies=policies))
    row = samples.experiment(2, reason="proof_contradicted", status=Status.NON_CAUSAL)
    trials.alarm(2, samples.experiment(2))
    assert "contradicted" not in bench.events
    if policy_says == "stop":
        with pytest.raises(GloveboxError) as caught:
            trials.alarm(2, row)
        assert caught.value.exit_code == 10
    else:
        trials.alarm(2, row)
    assert "contradicted" in bench.events


@pytest.fixture
def odds(home: Home, policies: policy_files.Policies) -> Iterator[Bench]:
    made = Bench(home, policies, rule="odds")
    made.experiment("a = 1\n", s42=2.0, s43=2.01, s44=1.99)
    yield made
    made.ledger.close()


@pytest.mark.parametrize(("uneven", "ran"), [("again", 1), ("mark", 0)])
def test_a_best_that_ran_on_a_busy_host_is_run_again_on_a_quiet_one(
    home: Home, policies: policy_files.Policies, uneven: str, ran: int
) -> None:
    """Else a change without effect wins when the neighbours leave."""
    bench = Bench(home, policies, uneven=uneven)
    bench.stages.load.append(1.5)
    slow = {"s42": 2.0, "s43": 2.01, "s44": 1.99, "s45": 2.0}
    bench.experiment("a = 1\n", **slow)
    assert bench.experiment("b = 2\n", **{seed: score - 0.004 for seed, score in slow.items()}).status is Status.DISCARD
    bench.stages.load.append(0.0)
    quick = {seed: score - 0.3 for seed, score in slow.items()}
    bench.stages.scores.update({(b"a = 1\n", int(seed[1:])): score for seed, score in quick.items()})
    before = len(bench.stages.asked)
    row = bench.experiment("c = 3\n", **quick)
    again = [data for data, _ in bench.stages.asked[before:] if data == b"a = 1\n"]
    assert (row.status, len(again) > 0) == ((Status.DISCARD, True) if ran else (Status.KEEP, False))
    assert verify.verify(home).failures == []
    bench.ledger.close()


def test_by_odds_the_baseline_is_run_again_once_and_nothing_else(odds: Bench) -> None:
    first = odds.experiment("b = 2\n", s42=1.95)
    second = odds.experiment("c = 3\n", s42=1.99)
    assert [(rerun.experiment, rerun.seed, rerun.during) for rerun in odds.ledger.reruns("t")] == [(1, 43, 2)]
    assert (first.status, second.status) == (Status.KEEP, Status.DISCARD)
    assert first.gain is not None
    assert 0.02 < first.gain < 0.05 == first.claimed
    assert first.probability is not None
    assert first.probability > 0.8
    assert (first.confirmed, first.pairs) == (None, 0)
    assert verify.verify(odds.home).failures == []


def test_by_odds_a_promise_beyond_what_policy_believes_is_run_again(odds: Bench) -> None:
    path = odds.home.root / "policies" / "decision.yaml"
    path.write_text(path.read_text().replace("verify_from_sigmas: 8.0", "verify_from_sigmas: 3.0"))
    again = odds.stages.policies.decision.model_copy(update={"verify_from_sigmas": 3.0})
    changed = replace(odds.stages, policies=odds.stages.policies.model_copy(update={"decision": again}))
    odds.trials = replace(odds.trials, stages=changed, line=Line(again))
    lucky = odds.experiment("b = 2\n", s42=1.80, s43=2.2)
    assert (lucky.status, lucky.claimed) == (Status.DISCARD, 0.2)
    assert [rerun.experiment for rerun in odds.ledger.reruns("t")] == [1, 2]


def test_an_odds_verdict_that_was_altered_does_not_follow(odds: Bench) -> None:
    row = odds.experiment("b = 2\n", s42=1.95)
    rows = odds.ledger.experiments("t")
    rules, reruns = odds.stages.policies.decision, odds.ledger.reruns("t")
    assert replay(rules, rows, reruns) == ([], 2)
    for change in ({"status": Status.DISCARD}, {"gain": 0.01}, {"probability": 0.5}, {"sigma": 1.0}):
        assert replay(rules, [rows[0], row.model_copy(update=change)], reruns)[0]


def test_a_lane_that_reads_the_rows_before_another_ends_one_learns_nothing_twice(odds: Bench) -> None:
    other, recorder = lane(odds, "4-7"), odds.trials.recorder
    odds.stages.scores.update({(b"a = 1\n", seed): 2.0 + (seed - 43) / 100 for seed in (43, 44)})
    odds.experiment("x = 1\n", s42=2.0)
    stale = odds.ledger.experiments("t")
    other.experiment("lucky = 1\n", s42=1.97)
    odds.trials.line.catch_up(stale, odds.ledger.reruns("t"))
    odds.trials.known()
    odds.experiment("c = 3\n", s42=1.98)
    assert recorder is odds.recorder
    assert verify.verify(odds.home).failures == []
