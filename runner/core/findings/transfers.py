"""Does a win of the short budget hold elsewhere: more seeds, a longer budget, a larger depth, another profile? TRUSTED.

An Order runs an experiment's train.py and the one it was kept over, side by side on the same seeds under the same other
terms. What came of it is computed from the ledger's reruns alone, so the report and `--json` say the same later.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from runner.core.airlock import snapshot
from runner.core.artifacts import prepare, store
from runner.core.base.errors import GloveboxError
from runner.core.base.values import Experiment, Frozen, Rerun, Snapshot, Status
from runner.core.decision.decide import BPB_DIGITS
from runner.core.decision.noise import pooled
from runner.people.pages import views
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.reruns import Trials

LEAST = 1e-6  # val_bpb: a deviation of pairs is never taken to be less
FIRST_ASKED = 1000  # number of the first draw a person asks for
Seconds = Annotated[int, Field(ge=1, le=86_400)]


class Order(Frozen):
    """What a person asks for."""

    experiments: tuple[int, ...] = ()  # by number; empty: the `top` keeps by claimed gain
    top: Annotated[int, Field(ge=1, le=100)] = 3
    seeds: Annotated[int, Field(ge=1, le=20)] = 3
    budget: Seconds | None = None  # of training; None: the artifact's
    depth: Annotated[int, Field(ge=1, le=1000)] | None = None
    profile: str | None = None


class Transfer(Frozen):
    """One experiment under other terms, next to the keep it was measured against."""

    experiment: int
    against: int | None  # None: it is the baseline
    budget: float
    depth: int | None
    artifact: str
    scores: dict[int, float]  # val_bpb by seed
    others: dict[int, float]  # of `against`
    failed: int  # runs of either without a score
    gain: float | None  # mean over the seeds both have: positive is better
    interval: tuple[float, float] | None  # at 1 - alpha; None from a single pair


def _never() -> bool:
    return False


def carry_out(loop: Loop, order: Order, enough: Callable[[], bool] = _never) -> list[Transfer]:
    """Run what is missing for an order and return what came of it; raises GloveboxError.

    `enough` is asked before each run; the same order given again goes on with what is still missing.
    """
    rows = loop.ledger.experiments(loop.tag)
    trials = _terms(loop, order)
    artifact = trials.stages.artifact.predicate.version
    budget = float(order.budget or trials.stages.budget())
    chosen = _chosen(rows, order)
    seeds = range(FIRST_ASKED, FIRST_ASKED + order.seeds)  # nothing was ever chosen by these draws
    numbers, terms = {row.id for row in chosen}, (budget, order.depth, artifact)
    for row, seed in itertools.product(chosen, seeds):
        for one in _beside(rows, row, order):
            if enough() or _known(loop.ledger.reruns(loop.tag), one.id, seed, terms):
                continue
            taken = _source(loop, trials.snapshot(one), order.depth)
            trials.rerun(one.id, 0, taken, seed, budget=order.budget, depth=order.depth)
    found = transfers(rows, loop.ledger.reruns(loop.tag), loop.policies.decision.alpha)
    return [one for one in found if one.experiment in numbers and _same(one, terms)]


def _beside(rows: Sequence[Experiment], row: Experiment, order: Order) -> list[Experiment]:
    """An experiment and what it is run next to: the keep before it; to confirm, the baseline and the best as well."""
    keeps = [one for one in rows if one.status is Status.KEEP]
    whole = [] if order.experiments else [keeps[0], keeps[-1]]
    chosen = [one for one in (views.parent(rows, row), row, *whole) if one is not None]
    return list({one.id: one for one in chosen}.values())


def _terms(loop: Loop, order: Order) -> Trials:
    """Trials under the order's terms; with another artifact or depth policy's whole allowances apply."""
    trials = loop.trials()
    policy = loop.policies.decision
    if order.profile is None and order.depth is None:
        return trials
    stages = loop.stages
    if order.profile is not None:
        version = prepare.newest(loop.home, order.profile)
        if version is None:
            fix = f"run: glovebox prepare --profile {order.profile}"
            raise GloveboxError(f"no artifact of profile {order.profile!r}", where=str(loop.home.artifacts), fix=fix)
        stages = replace(stages, artifact=store.admit(loop.home, version))
    return trials.under(stages, lambda budget: budget + policy.startup_seconds + policy.hand_over_seconds)


def _chosen(rows: Sequence[Experiment], order: Order) -> list[Experiment]:
    by_number = {row.id: row for row in rows}
    for number in order.experiments:
        if number not in by_number:
            raise GloveboxError(f"no experiment {number}", where="ledger", fix="see: glovebox history")
    if order.experiments:
        return [by_number[number] for number in order.experiments]
    wins = [row for row in rows if row.status is Status.KEEP and row.claimed is not None]
    if not wins:
        raise GloveboxError("nothing was kept over the baseline yet", where="ledger", fix="see: glovebox history")
    return sorted(wins, key=lambda row: (-(row.claimed or 0.0), row.id))[: order.top]


def _known(reruns: Sequence[Rerun], number: int, seed: int, terms: tuple[float, int | None, str]) -> bool:
    return any(
        (r.experiment, r.seed) == (number, seed) and _terms_of(r) == terms and r.status == "scored"
        for r in reruns
        if not r.during
    )


def _terms_of(rerun: Rerun) -> tuple[float, int | None, str]:
    return rerun.budget, rerun.depth, rerun.artifact


def _source(loop: Loop, taken: Snapshot, depth: int | None) -> Snapshot:
    if depth is None:
        return taken
    return snapshot.keep(with_depth(taken.path.read_bytes(), depth), loop.home.snapshots)


def with_depth(source: bytes, depth: int) -> bytes:
    """The file with its top-level constant DEPTH set; raises GloveboxError unless there is just one."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = ast.Module([], [])
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["DEPTH"]
    ]
    if len(values) != 1:
        raise GloveboxError("no single top-level DEPTH = ... to change", where="train.py", fix="leave out --depth")
    value = values[0]
    start = _offset(source, value.lineno, value.col_offset)
    end = _offset(source, value.end_lineno or 0, value.end_col_offset or 0)
    return source[:start] + str(depth).encode() + source[end:]


def _offset(source: bytes, line: int, column: int) -> int:
    """Where a place of the syntax tree is, in bytes."""
    return sum(len(text) for text in source.splitlines(keepends=True)[: line - 1]) + column


def transfers(rows: Sequence[Experiment], reruns: Sequence[Rerun], alpha: float) -> list[Transfer]:
    """What all reruns that people asked for say, by terms and experiment."""
    asked = [rerun for rerun in reruns if not rerun.during]
    by_number = {row.id: row for row in rows}
    found = []
    for terms in sorted({_terms_of(rerun) for rerun in asked}, key=str):
        group = [rerun for rerun in asked if _terms_of(rerun) == terms]
        for number in sorted({rerun.experiment for rerun in group}):
            before = views.parent(rows, by_number[number]) if number in by_number else None
            found.append(_transfer(group, number, before.id if before else None, alpha))
        beside = {one.against for one in found if one.gain is not None and _same(one, terms)}
        found = [one for one in found if one.gain is not None or one.experiment not in beside or not _same(one, terms)]
    return found


def _same(one: Transfer, terms: tuple[float, int | None, str]) -> bool:
    return (one.budget, one.depth, one.artifact) == terms


def _transfer(group: Sequence[Rerun], number: int, against: int | None, alpha: float) -> Transfer:
    scores, others = _scores(group, number), _scores(group, against)
    pairs = [others[seed] - scores[seed] for seed in sorted(scores.keys() & others.keys())]
    gain = math.fsum(pairs) / len(pairs) if pairs else None
    interval = None
    moves = len(set(scores.values())) > 1 or len(set(others.values())) > 1  # a file that ignores its seed says nothing
    if gain is not None and moves and (noise := pooled([pairs], LEAST)) is not None:
        width = noise.bound(alpha / 2, 1 / len(pairs))
        interval = (round(gain - width, BPB_DIGITS), round(gain + width, BPB_DIGITS))
    return Transfer(
        experiment=number,
        against=against if others else None,
        budget=group[0].budget,
        depth=group[0].depth,
        artifact=group[0].artifact,
        scores=scores,
        others=others,
        failed=sum(r.experiment in (number, against) and r.val_bpb is None for r in group),
        gain=None if gain is None else round(gain, BPB_DIGITS),
        interval=interval,
    )


def _scores(group: Sequence[Rerun], number: int | None) -> dict[int, float]:
    return {r.seed: r.val_bpb for r in group if r.experiment == number and r.val_bpb is not None}


def overall(rows: Sequence[Experiment], reruns: Sequence[Rerun], alpha: float, budget: float) -> Transfer | None:
    """The best against the baseline on all seeds a person asked for under the tag's own terms: none chose the best."""
    keeps = [row for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    if len(keeps) < 2:
        return None
    artifact, asked = keeps[0].artifact, [r for r in reruns if not r.during and r.depth is None]
    terms = [r for r in asked if r.artifact == artifact and r.budget == budget]
    found = _transfer(terms, keeps[-1].id, keeps[0].id, alpha) if terms else None
    return found if found is not None and found.gain is not None else None
