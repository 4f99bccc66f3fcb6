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
from runner.core.base.values import Status
from runner.core.evidence import verify
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
