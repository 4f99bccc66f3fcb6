"""Reruns that a person asks for: other seeds, a longer budget, a larger depth, another profile. TRUSTED.

An Order runs an experiment's train.py and the one it was kept over, side by side on the same seeds under the same other
terms. What came of it is read from the ledger (core/findings/transfers.py).
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from runner.core.airlock import snapshot
from runner.core.artifacts import store
from runner.core.base.errors import GloveboxError
from runner.core.base.values import Experiment, Rerun, Snapshot, Status
from runner.core.decision import standing
from runner.core.findings import edits, transfers
from runner.core.findings.transfers import FIRST_ASKED, Terms, Transfer, gain
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.reruns import Trials
from runner.rooms.desk.settings import Order

SEEDS = 3  # of a single step
WHOLE = 2  # runs of baseline and best each that measure the whole gain


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
    holdout = not order.experiments and trials.stages.has_holdout()  # for what people confirm, and for nothing else
    numbers, terms = {row.id for row in chosen}, (budget, order.depth, artifact, holdout)
    for one, seed in _planned(rows, chosen, order):
        if enough() or _known(loop.ledger.reruns(loop.tag), one.id, seed, terms):
            continue
        taken = _source(loop, trials.snapshot(one), order.depth)
        trials.rerun(one.id, 0, taken, seed, budget=order.budget, depth=order.depth, holdout=holdout)
    if not order.experiments and not order.top:
        whole = transfers.overall(rows, loop.ledger.reruns(loop.tag), loop.policies.decision.alpha, budget)
        return [whole] if whole is not None and chosen else []
    found = transfers.transfers(rows, loop.ledger.reruns(loop.tag), loop.policies.decision.alpha)
    return [one for one in found if one.experiment in numbers and transfers.under(one, terms)]


def _planned(
    rows: Sequence[Experiment], chosen: Sequence[Experiment], order: Order
) -> Iterator[tuple[Experiment, int]]:
    """Which file on which draw, in turns, so that what drifts meets both; nothing was ever chosen by these draws."""
    if order.experiments or order.top:
        for row, number in itertools.product(chosen, range(order.seeds or SEEDS)):
            yield from ((one, FIRST_ASKED + number) for one in _beside(rows, row, order))
    elif chosen:
        for number in range(order.seeds or WHOLE):
            yield from ((one, FIRST_ASKED + number) for one in (chosen[0], chosen[-1]))


def _beside(rows: Sequence[Experiment], row: Experiment, order: Order) -> list[Experiment]:
    """An experiment and what it is run next to: the keep before it; to confirm, the baseline and the best as well."""
    keeps = [one for one in rows if one.status is Status.KEEP]
    whole = [] if order.experiments else [keeps[0], keeps[-1]]
    chosen = [one for one in (standing.parent(rows, row), row, *whole) if one is not None]
    return list({one.id: one for one in chosen}.values())


def _terms(loop: Loop, order: Order) -> Trials:
    """Trials under the order's terms; with another artifact or depth policy's whole allowances apply."""
    trials = loop.trials()
    policy = loop.policies.decision
    if order.profile is None and order.depth is None:
        return trials
    stages = loop.stages
    if order.profile is not None:
        version = store.newest(loop.home, order.profile)
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
    keeps = [row for row in rows if row.status is Status.KEEP]
    if len(keeps) < 2:
        return []  # nothing was kept over the baseline: there is no gain to measure
    if not order.top:
        return [keeps[0], keeps[-1]]
    return sorted(keeps[1:], key=lambda row: (-gain(row), row.id))[: order.top]


def _known(reruns: Sequence[Rerun], number: int, seed: int, terms: Terms) -> bool:
    return any(
        (r.experiment, r.seed) == (number, seed) and transfers.terms_of(r) == terms and r.status == "scored"
        for r in reruns
        if not r.during
    )


def _source(loop: Loop, taken: Snapshot, depth: int | None) -> Snapshot:
    if depth is None:
        return taken
    return snapshot.keep(with_depth(taken.path.read_bytes(), depth), loop.home.snapshots)


def with_depth(source: bytes, depth: int) -> bytes:
    """The file with its top-level constant DEPTH set; raises GloveboxError unless there is just one."""
    tree = edits.parsed(source) or ast.Module([], [])
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
