"""Keeps that did nothing are taken out of the best, by experiments of the tag: real ledger, git and chain, no containers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import standin
from runner.core.base.errors import PolicyError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.steering import ask
from runner.core.base.values import Status
from runner.core.decision import standing
from runner.core.evidence import verify
from runner.core.findings import transfers
from runner.people.pages import console
from runner.rooms.desk import pruning
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.settings import Prune

SIGMA = 0.0005  # noise of one run
APART = "\n".join(f"# quiet line {number}" for number in range(4))
SECTIONS = 8
SEED = f"\n{APART}\n".join(f"# section {number}" for number in range(1, SECTIONS + 1)).encode() + b"\n"


def added(source: bytes, section: int, effect: float, luck: float = 0.0) -> bytes:
    """A change of 80 bytes in a section; its first run is that lucky, in noise."""
    line = f"gain_{section} = {effect}  # luck {luck}".ljust(80).encode()
    return source.replace(f"# section {section}\n".encode(), f"# section {section}\n".encode() + line + b"\n")


def score(source: bytes, run: int) -> float:
    """What the file's lines are worth, and noise; how lucky its first run was is said by the test."""
    effect = sum(float(value) for value in re.findall(rb"gain_\d+ = (\S+)", source))
    luck = LUCK.get(source, USUAL) if run == 0 else (0.6, -0.4, 0.3, -0.2)[run % 4]
    return round(2.0 - SIGMA * (effect + luck), 6)


USUAL = 0.8
BELOW = 0.9
LUCK: dict[bytes, float] = {}


class Tag:
    """A tag in progress."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.loop, self.work = standin.loop(home, "t", SEED, score), folder / "train.py"
        self.loop.begin()
        self.ideas = 0
        self.ideas_without_effect((-1.0, 0.0, -0.4, -1.4, 0.1, -0.7, -0.1, -0.3))

    def ideas_without_effect(self, lucks: Sequence[float] = (0.3, -0.8, 0.1, -0.3, 0.8, -0.5, 0.6, -0.2)) -> None:
        """Their scores say what the noise is, and what the best really scores."""
        for luck in lucks:
            self.ideas += 1
            source = self.loop.best_source() + f"# idle {self.ideas}\n".encode()
            LUCK[source] = luck
            self.propose(source, Status.DISCARD)

    def propose(self, source: bytes, expected: Status | None = None) -> int:
        self.loop.best_source()
        self.work.write_bytes(source)
        told = self.loop.experiment(self.work, "idea")
        if expected is not None:
            assert told.status is expected, told
        return told.experiment

    def keep(self, section: int, effect: float, luck: float) -> int:
        source = added(self.loop.best_source(), section, effect, luck)
        LUCK[source] = luck
        return self.propose(source, Status.KEEP)

    def probability(self, number: int) -> float:
        row = next(row for row in self.loop.ledger.experiments("t") if row.id == number)
        return row.probability or 0.0


@pytest.fixture
def tag(home: Home, tmp_path: Path) -> Tag:
    """Under a policy that calls much equal: what a single run of a few dozen decides here is no chance."""
    under(home, "simplicity_sigmas: 0.5 ", "simplicity_sigmas: 3 ")
    return Tag(home, tmp_path)


def under(home: Home, old: str, new: str) -> None:
    path = home.root / "policies" / "decision.yaml"
    path.parent.mkdir(exist_ok=True)
    text = (SOURCE / "policies" / "decision.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def prune(loop: Loop, enough: Callable[[], bool] = lambda: False, **order: Any) -> Any:
    return pruning.carry_out(loop, Prune(**{"below": BELOW, **order}), enough)


def pruned(found: Any) -> str:
    """As people read it."""
    return console.pruned(found.model_dump(mode="json"))


def test_keeps_without_effect_are_taken_out_at_once_and_the_others_stay(tag: Tag, home: Home) -> None:
    real = [tag.keep(section, 6.0, 0.0) for section in (1, 4)]
    idle = [tag.keep(section, 0.0, luck) for section, luck in ((2, 1.6), (3, 2.1), (6, 2.6))]
    tag.ideas_without_effect()
    assert all(tag.probability(number) < BELOW for number in idle), [tag.probability(number) for number in idle]
    assert all(tag.probability(number) > BELOW for number in real)
    before = tag.loop.best()
    found = prune(tag.loop)
    assert len(found.taken_out) >= 2
    assert sorted([*found.taken_out, *found.needed]) == idle  # a run of one that it could do without may be unlucky
    assert (found.built_on, found.untried) == ([], [])
    assert before is not None
    assert (found.before, found.bytes_before) == (before.id, before.snapshot_size)
    assert found.bytes_before - found.bytes_after == len(found.taken_out) * 81
    left = set(re.findall(rb"gain_(\d)", tag.loop.best_source()))
    assert {b"1", b"4"} <= left
    assert len(left) == 5 - len(found.taken_out)
    best = tag.loop.best()
    assert best is not None
    assert (best.id, best.reason) == (found.after, "simpler")
    told = [row for row in tag.loop.ledger.experiments("t") if row.description.startswith("prune: without #")]
    assert len(told) == found.runs
    assert told[0].parent == before.id
    assert found.measured is not None
    assert (found.measured.experiment, found.measured.against, len(found.measured.scores)) == (best.id, before.id, 3)
    assert abs(found.measured.gain) < 2 * SIGMA
    assert not verify.verify(home).failures
    again = prune(tag.loop)  # nothing of it is tried twice
    every = {*again.taken_out, *again.needed, *again.built_on, *again.small, *again.untried}
    assert not every & {*found.taken_out}


def test_a_doubtful_keep_that_was_real_is_found_and_stays(tag: Tag, home: Home) -> None:
    tag.keep(1, 6.0, 0.0)
    idle = [tag.keep(section, 0.0, luck) for section, luck in ((2, 1.6), (3, 2.1))]
    unlucky = tag.keep(5, 9.0, -5.8)  # real, and its only run did not show it
    idle.append(tag.keep(7, 0.0, 2.6))
    tag.ideas_without_effect()
    assert tag.probability(unlucky) < BELOW
    found = prune(tag.loop)
    assert unlucky in found.needed
    assert found.taken_out
    assert {*found.taken_out} <= {*idle}
    assert {b"1", b"5"} <= set(re.findall(rb"gain_(\d)", tag.loop.best_source()))
    assert not verify.verify(home).failures


def test_what_others_are_built_on_stays(tag: Tag) -> None:
    source = added(tag.loop.best_source(), 2, 0.0, 1.6).replace(b"# quiet line 0", b"# loud line\n# quiet line 0", 1)
    LUCK[source] = 1.6
    first = tag.propose(source, Status.KEEP)
    built = source.replace(b"# loud line", b"gain_3 = 6.0  # luck 0.0")
    LUCK[built] = 0.0
    tag.propose(built, Status.KEEP)
    second = tag.keep(6, 0.0, 1.6)
    found = prune(tag.loop)
    assert (found.built_on, [*found.taken_out, *found.needed]) == ([first], [second])
    assert found.ended == "done"


def test_a_change_of_a_dial_is_too_small_to_matter(tag: Tag) -> None:
    large = tag.keep(2, 0.0, 1.6)
    source = tag.loop.best_source().replace(b"# quiet line 2", b"# quiet line 22", 1)
    LUCK[source] = 2.6
    dial = tag.propose(source, Status.KEEP)
    tag.ideas_without_effect()
    assert tag.probability(dial) < BELOW
    found = prune(tag.loop)
    assert {*found.small, *found.taken_out} == {dial, large}
    assert sorted([*found.taken_out, *found.small, *found.needed, *found.built_on]) == [large, dial]


def test_it_ends_with_its_runs_and_when_it_is_told_to(tag: Tag) -> None:
    idle = [tag.keep(section, 0.0, luck) for section, luck in ((2, 1.6), (3, 2.1))]
    unlucky = tag.keep(5, 9.0, -5.8)
    found = prune(tag.loop, lambda: True)
    assert (found.runs, found.taken_out, sorted(found.untried)) == (0, [], sorted([*idle, unlucky]))
    found = prune(tag.loop, runs=1)
    assert 1 <= found.runs <= 2  # what has begun is decided, by a second run if need be
    assert len(found.taken_out) + len(found.needed) + len(found.untried) == 3
    rows = tag.loop.ledger.experiments("t")
    found = prune(tag.loop, lambda: len(tag.loop.ledger.experiments("t")) > len(rows))
    assert 1 <= found.runs <= 2


def test_nothing_doubtful_costs_no_run(tag: Tag) -> None:
    tag.keep(1, 6.0, 0.0)
    before = len(tag.loop.ledger.experiments("t"))
    found = prune(tag.loop)
    assert (found.runs, found.taken_out, found.before == found.after, found.measured) == (0, [], True, None)
    assert len(tag.loop.ledger.experiments("t")) == before


@pytest.mark.parametrize("rule", ["upstream", "paired"])
def test_a_rule_without_probabilities_is_refused(home: Home, rule: str) -> None:
    under(home, "rule: odds ", f"rule: {rule} ")
    made = standin.loop(home, "t", SEED, score)
    made.begin()
    with pytest.raises(PolicyError, match=f"rule {rule} says of no keep"):
        prune(made)


def test_what_was_found_needed_is_not_run_again(tag: Tag) -> None:
    tag.keep(2, 0.0, 1.6)
    unlucky = tag.keep(5, 9.0, -5.8)
    first = prune(tag.loop)
    assert unlucky in first.needed
    again = prune(tag.loop)
    assert unlucky in again.needed
    assert again.runs < first.runs


def test_what_stood_in_the_way_is_tried_again_when_it_is_gone(tag: Tag) -> None:
    first = tag.keep(2, 0.0, 1.6)
    source = tag.loop.best_source()
    built = source.replace(
        b"gain_2 = 0.0  # luck 1.6", b"gain_2 = 0.0  # luck 2.2, and a remark of some forty bytes on it"
    )
    LUCK[built] = 2.3
    second = tag.propose(built, Status.KEEP)
    tag.ideas_without_effect()
    found = prune(tag.loop)
    assert second in found.taken_out
    assert first in [*found.taken_out, *found.needed]  # its line came back, and was tried


def test_a_keep_made_from_an_earlier_file_brings_nothing_back(tag: Tag) -> None:
    idle = [tag.keep(section, 0.0, luck) for section, luck in ((2, 1.6), (3, 2.1))]
    base = tag.loop.ledger.experiments("t")[0]
    tag.loop.go_on_from(base, tag.work)
    source = added(tag.work.read_bytes(), 6, 9.0)
    tag.work.write_bytes(source)
    LUCK[source] = 0.0
    assert tag.loop.experiment(tag.work, "from the first again").status is Status.KEEP
    found = prune(tag.loop, below=1.0)
    assert not {*found.taken_out, *found.needed, *found.built_on, *found.small} - {*idle}
    assert re.findall(rb"gain_(\d)", tag.loop.best_source()) == [b"6"]


def filled(tag: Tag) -> list[int]:
    """A real keep and three without effect."""
    tag.keep(1, 6.0, 0.0)
    idle = [tag.keep(section, 0.0, luck) for section, luck in ((2, 1.6), (3, 2.1), (6, 2.6))]
    tag.ideas_without_effect()
    return idle


def otherwise(tag: Tag, score: Callable[[bytes, int, float], float | None]) -> None:
    """From here on a run gives what `score` makes of what it would have given."""
    stages = tag.loop.stages
    usual = stages.score  # type: ignore[attr-defined] # of the stand-in
    object.__setattr__(stages, "score", lambda source, run: score(source, run, usual(source, run)))


def test_a_smaller_file_that_is_worse_beside_the_one_before_does_not_stay(tag: Tag, home: Home) -> None:
    """Its first run was a fluke, and the rule believed it."""
    idle, first = filled(tag), tag.loop.best_source()
    otherwise(tag, lambda text, run, val: val + 8 * SIGMA if run and len(text) < len(first) else val)
    found = prune(tag.loop)
    assert found.measured is not None
    assert found.measured.interval is not None
    assert found.measured.interval[1] < 0
    assert (found.taken_out, found.ended) == ([], "done")
    assert {*found.undone} <= {*idle}
    assert found.undone
    assert tag.loop.best_source() == first
    assert found.bytes_after == found.bytes_before
    told = tag.loop.ledger.experiments("t")[-1]
    assert told.description.startswith("a pruning that was worse took experiment ")
    assert told.reason == "veto"
    assert f"that is worse: the file of experiment {found.before} is the best again" in pruned(found)
    assert not verify.verify(home).failures
    again = prune(tag.loop)  # what was taken back is not run again
    assert {*again.refused} | {*again.needed} | {*again.undone} >= {*found.undone}
    assert not {*again.taken_out} & {*found.undone}


def test_a_smaller_file_that_is_as_good_stays_and_says_how_much_worse_it_may_be(tag: Tag) -> None:
    """The control."""
    filled(tag)
    found = prune(tag.loop)
    assert (found.undone, found.ended) == ([], "done")
    assert found.taken_out
    assert "if it is worse, then by no more than 0.0" in pruned(found)


def test_a_smaller_file_that_gives_no_score_any_more_does_not_stay(tag: Tag) -> None:
    filled(tag)
    first = tag.loop.best_source()
    otherwise(tag, lambda text, run, val: None if run and len(text) < len(first) else val)
    found = prune(tag.loop)
    assert found.measured is not None
    assert (found.measured.failed, found.measured.gain) == (3, None)
    assert tag.loop.best_source() == first
    told = pruned(found)
    assert "not measured beside the best before: 3 runs of the best before and 0 of the smaller file, 3 without" in told
    assert "is the best again" in told


def test_failed_runs_of_the_one_before_are_told(tag: Tag) -> None:
    filled(tag)
    first = tag.loop.best_source()
    otherwise(tag, lambda text, run, val: None if run in (1, 2) and text == first else val)
    found = prune(tag.loop)
    assert "in 1 run of the best before and 3 of the smaller file, 2 without a score: " in pruned(found)


def test_one_that_was_killed_is_gone_on_with_and_measured(
    tag: Tag, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tag)
    before, whole = tag.loop.best(), pruning._Pruning._measured
    monkeypatch.setattr(pruning._Pruning, "_measured", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prune(tag.loop)
    monkeypatch.setattr(pruning._Pruning, "_measured", whole)
    rows, calls = len(tag.loop.ledger.experiments("t")), iter([*[False] * 4, *[True] * 20])
    stopped = prune(tag.loop, lambda: next(calls))  # between two of its pairs
    assert (stopped.ended, stopped.measured) == ("stopped", None)
    found = prune(tag.loop)
    assert before is not None
    assert (found.before, found.ended) == (before.id, "done")
    assert found.taken_out
    assert found.runs >= 1
    assert len(tag.loop.ledger.experiments("t")) == rows  # nothing of it ran again
    assert found.measured is not None
    assert (len(found.measured.scores), len(found.measured.others)) == (3, 3)
    assert len([one for one in tag.loop.ledger.reruns("t") if not one.during]) == 6
    assert not verify.verify(home).failures


def test_after_one_that_was_killed_and_experiments_since_another_begins(
    tag: Tag, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What agents found since would have been measured, and perhaps undone, as what it left."""
    filled(tag)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(pruning._Pruning, "_measured", lambda *_: 1 / 0)
        prune(tag.loop)
    best = tag.keep(4, 9.0, 0.0)
    found = prune(tag.loop)
    assert found.before == best
    assert best not in {*found.undone, *found.taken_out}


def test_a_session_that_begins_again_prunes_once(tag: Tag) -> None:
    """`--prune` of a session is of the tag's end, and the session may be started again after it."""
    filled(tag)
    assert pruning.carry_out(tag.loop, Prune(below=BELOW, runs=1), lambda: False, again=False) is not None
    rows = len(tag.loop.ledger.experiments("t"))
    assert pruning.carry_out(tag.loop, Prune(below=BELOW, runs=1), lambda: False, again=False) is None
    assert len(tag.loop.ledger.experiments("t")) == rows
    tag.ideas_without_effect((0.1,))
    assert pruning.carry_out(tag.loop, Prune(below=BELOW, runs=1), lambda: False, again=False) is not None


def test_one_that_was_tuned_afterwards_is_taken_out_with_what_tuned_it(tag: Tag) -> None:
    """It was in none of the lists, and its line in the file."""
    first = tag.keep(2, 0.0, 1.6)
    source = tag.loop.best_source().replace(b"gain_2 = 0.0  # luck 1.6", b"gain_2 = 0.0  # luck 1.66", 1)
    LUCK[source] = 3.4
    second = tag.propose(source, Status.KEEP)
    tag.ideas_without_effect()
    found = prune(tag.loop, below=0.95)
    assert sorted([*found.taken_out, *found.needed]) == [first, second]
    assert found.runs
    assert (b"gain_2" in tag.loop.best_source()) is (not found.taken_out)


def test_a_file_that_was_no_gain_over_another_best_is_tried_over_this_one(tag: Tag) -> None:
    """ "No gain on the baseline" says nothing of "as good as the best, and smaller"."""
    alone = added(tag.loop.best_source(), 3, 0.0)
    LUCK[alone] = 0.0
    tag.propose(alone, Status.DISCARD)
    first = tag.keep(2, 0.0, 1.6)
    source = added(tag.loop.best_source(), 3, 0.0)
    LUCK[source] = 3.6
    tag.propose(source, Status.KEEP)
    tag.ideas_without_effect()
    before = len(tag.loop.ledger.experiments("t"))
    prune(tag.loop, below=0.99)
    tried = [row.description for row in tag.loop.ledger.experiments("t")[before:]]
    assert any(f"#{first}" in told for told in tried)


def test_no_score_at_a_bad_moment_is_tried_once_more_and_is_not_called_needed(tag: Tag) -> None:
    idle, rows = filled(tag)[:1], tag.loop.ledger.experiments
    otherwise(tag, lambda *_: None)  # a broken host
    found = prune(tag.loop)
    assert not found.needed
    assert idle[0] in found.failed
    told = [row.description for row in rows("t") if row.description.startswith("prune: without #")]
    assert told.count(f"prune: without #{idle[0]}") == 2
    otherwise(tag, lambda text, run, _: score(text, run))
    assert prune(tag.loop).runs  # on a good day it is tried again


def test_a_file_that_a_person_took_back_is_refused_and_not_called_needed(tag: Tag) -> None:
    tag.keep(1, 6.0, 0.0)
    idle = tag.keep(2, 0.0, 1.6)
    tag.ideas_without_effect()
    found = prune(tag.loop)
    assert found.taken_out == [idle]
    ask(tag.loop.home, "t", "veto", "2026-01-01T00:00:00+00:00", experiment=found.after)
    again = prune(tag.loop)
    assert (again.refused, again.needed, again.runs) == ([idle], [], 0)


def test_what_people_ask_meanwhile_is_heeded(tag: Tag, home: Home) -> None:
    """A paused tag begins nothing, and a keep that was taken back is out before the first attempt."""
    idle = filled(tag)
    when = "2026-01-01T00:00:00+00:00"
    ask(home, "t", "pause", when)
    ask(home, "t", "veto", when, experiment=idle[-1])
    looks = iter(range(1000))
    rows = len(tag.loop.ledger.experiments("t"))
    found = prune(tag.loop, lambda: next(looks) > 6)
    assert (found.runs, found.ended) == (0, "stopped")
    assert len(tag.loop.ledger.experiments("t")) == rows + 1  # the best before what was taken back
    ask(home, "t", "resume", when)
    found = prune(tag.loop)
    assert found.runs
    assert idle[-1] not in {*found.taken_out, *found.needed, *found.untried}
    tag.loop.recorder.close_interrupted()
    assert not verify.verify(home).failures


def test_what_a_veto_ends_begins_again(tag: Tag, home: Home) -> None:
    """A veto of what it began with, in the middle."""
    filled(tag)
    last = tag.loop.best()
    assert last is not None
    asked = iter([True])

    def enough() -> bool:
        started = [row for row in tag.loop.ledger.experiments("t") if row.description.startswith("prune: without")]
        if started and next(asked, False):
            ask(home, "t", "veto", "2026-01-01T00:00:00+00:00", experiment=last.id)
        return False

    found = prune(tag.loop, enough)
    assert found.before != last.id
    assert last.id not in {row.id for row in standing.line(tag.loop.ledger.experiments("t"))}
    assert not verify.verify(home).failures


def test_the_leak_budget_may_end_it_and_that_is_said(tag: Tag, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tag)
    rows = len(tag.loop.ledger.experiments("t"))
    monkeypatch.setattr(type(tag.loop), "told_enough", lambda loop: len(loop.ledger.experiments("t")) > rows)
    found = prune(tag.loop)
    assert found.untried
    assert found.ended == "leak"
    assert "the tag's leak budget is used: no more can be tried" in pruned(found)


def test_its_runs_decide_so_they_are_not_what_a_tag_gained(tag: Tag) -> None:
    filled(tag)
    found = prune(tag.loop)
    assert found.measured is not None
    loop = tag.loop
    rows, reruns = loop.ledger.experiments("t"), loop.ledger.reruns("t")
    budget = loop.stages.budget()
    assert transfers.overall(rows, reruns, 0.05, budget) is None
    assert transfers.transfers(rows, reruns, 0.05) == [found.measured]  # the page has it
