"""Compare what the proof claims of every value with what happens when tokens change.

Two runs whose tokens differ only where labels exceed L must agree on every element with dep <= L: NaN equals NaN, and
+0 equals -0 unless the value is not `signed`. Elements claimed zero or -inf must be, or be NaN. What a
run computes has the inferred shape and type, or the program refuses it. A value is excused if
an obligation failed in either run that it, or a value it was made of, required.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from tests.evaluator.build import CPU
from tests.fuzz_causality import generate, tokens
from tests.fuzz_causality.draft import Draft
from tests.fuzz_causality.generate import Focus
from trainer.evaluator.causality import proof
from trainer.evaluator.causality.abstract import LABEL, Abstract
from trainer.evaluator.causality.obligations import Check, Obligations
from trainer.evaluator.model import graph, program
from trainer.evaluator.model.graph import Node
from trainer.evaluator.model.program import Program
from trainer.wire.refusal import Refused

LIMITS = program.Limits(weight_bytes=1 << 24, peak_bytes=256 << 20, elements=1 << 20, total_elements=1 << 25, flops=1e9)
COUNTED = ("graphs", "refused", "nodes", "checks", "pairs", "proved", "unsound", "errors")


@dataclass
class Outcome:
    """Counts, and one line per finding; adds up over graphs."""

    counts: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)  # how often each was checked
    refusals: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        for mine, theirs in zip((self.counts, self.operations, self.refusals), other._counters(), strict=True):
            mine.update(theirs)
        self.lines += other.lines

    def _counters(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        return self.counts, self.operations, self.refusals


@dataclass
class Claims:
    """What one labelling of the tokens says of every value, and what each operation requires for it."""

    name: str
    labels: Tensor
    values: dict[int, Abstract] = field(default_factory=dict)
    needs: dict[int, dict[int, list[Check]]] = field(default_factory=dict)  # by the operation's first value
    impossible: set[int] = field(default_factory=set)


class Unsound(Exception):
    """A claim that does not hold."""


def examine(seed: int, focus: Focus | None = None) -> Outcome:
    """Write the graph of a seed and compare everything claimed of it."""
    out = Outcome(Counter(graphs=1))
    try:
        draft = generate.build(seed, focus)
        bound = prepare(draft, out)
        if bound is not None:
            _compare(bound, seed, out)
    except Unsound as unsound:
        out.counts["unsound"] += 1
        out.lines.append(f"UNSOUND {unsound} (--start {seed} --graphs 1)")
    except Exception as error:
        out.counts["errors"] += 1
        out.lines.append(f"ERROR {_where(error)} (--start {seed} --graphs 1)")
    return out


def _where(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None and "torch" not in place.tb_next.tb_frame.f_code.co_filename:
        place = place.tb_next
    at = f"{place.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{place.tb_lineno}" if place else "?"
    return f"{type(error).__name__} at {at}: {str(error)[:160]}".replace("\n", " ")


def prepare(draft: Draft, out: Outcome) -> Program | None:
    """The program of a draft, with its stray operation if the dry run accepts it; None if it is refused."""
    for stray in (draft.stray, None):
        try:
            parsed, bound = _bind(draft, stray)
        except Refused as refused:
            if stray is None:
                out.counts["refused"] += 1
                out.refusals[str(refused)[:100]] += 1
            continue
        made = [node for node in parsed.nodes if not node.refs or node.name in program._SHAPE_ONLY]
        out.operations.update(str(node.op).removeprefix("aten.") for node in made)
        out.counts["nodes"] += len(bound.nodes)
        return bound
    return None


def _bind(draft: Draft, stray: dict[str, Any] | None) -> tuple[graph.Graph, Program]:
    """Parse and prepare as the evaluator does, but keep operations the output does not need."""
    parsed, sizes = graph.parse(generate.data(draft, stray), CPU), draft.sizes
    with patch.object(program, "_reachable", lambda parsed: list(parsed.nodes)):
        return parsed, program.prepare(
            parsed,
            draft.build.weights,
            rows=sizes.rows,
            seq_len=sizes.seq,
            vocab=sizes.vocab,
            device=CPU,
            limits=LIMITS,
        )


def _compare(bound: Program, seed: int, out: Outcome) -> None:
    everything = [_claims(bound, name, labels) for name, labels in _labellings(bound)]
    inputs = list(tokens.batches(bound, random.Random(seed)))
    runs = [_run(bound, batch) for batch in inputs]
    ran = [node for node in bound.nodes if node.first in runs[0]]
    out.operations.update(str(node.op).removeprefix("aten.") for node in ran)
    excused = [[_excused(bound, claims, run) for claims in everything] for run in runs]
    for run, excuses in zip(runs, excused, strict=True):
        for claims, excuse in zip(everything, excuses, strict=True):
            _check_known(bound, claims, run, excuse, out)
    for at in range(1, len(runs)):
        out.counts["pairs"] += 1
        excuses = [a | b for a, b in zip(excused[0], excused[at], strict=True)]
        changed = inputs[0] != inputs[at]
        _check_pair(bound, everything, excuses, changed, (runs[0], runs[at]), out)
    out.counts["proved"] += sum(_proved(bound, everything, id_) for id_ in everything[0].values)


def _labellings(bound: Program) -> Iterator[tuple[str, Tensor]]:
    """Those of the proof: by position, by row from both ends."""
    shape = (bound.rows, bound.seq_len)
    row = torch.arange(bound.rows, dtype=LABEL).unsqueeze(1).expand(shape)
    yield "position", torch.arange(bound.seq_len, dtype=LABEL).expand(shape)
    yield "row", row
    yield "reversed row", bound.rows - 1 - row


def _claims(bound: Program, name: str, labels: Tensor) -> Claims:
    claims, obligations = Claims(name, labels), Obligations()
    steps = proof.interpret(bound, labels, obligations, set())
    for node, values in zip(bound.nodes, steps, strict=True):
        for id_ in _outputs(node):
            claims.values[id_] = values[id_]
        claims.needs[node.first] = obligations.take()
        if obligations.impossible:
            claims.impossible.add(node.first)
            obligations.impossible = False
    return claims


def _outputs(node: Node) -> range:
    return range(node.first, node.first + node.outputs)


def _run(bound: Program, batch: Tensor) -> dict[int, Any]:
    """Every value of a real run; those of operations that fail, or the program refuses, are absent."""
    values: dict[int, Any] = {**bound.constants, bound.input: batch}
    with torch.no_grad():
        for node in bound.nodes:
            if not all(ref in values for ref in node.refs):
                continue
            try:
                made = dict(bound.compute(node, values))
            except Exception:  # as Program.__call__ would raise: nothing is scored
                continue
            found = {id_: (tuple(value.shape), value.dtype) for id_, value in made.items()}
            inferred = {id_: (bound.shapes[id_], bound.dtypes[id_]) for id_ in made}
            if found != inferred:
                raise Unsound(f"shape {_told(node)} {found}, inferred {inferred}")
            values.update(made)
    return values


def _excused(bound: Program, claims: Claims, run: dict[int, Any]) -> set[int]:
    """Values whose claims rest on an obligation that failed in this run, or that the run has not."""
    out: set[int] = set()
    for node in bound.nodes:
        failed = node.first in claims.impossible or node.first not in run or not out.isdisjoint(node.refs)
        for id_, checks in claims.needs[node.first].items():
            failed = failed or not all(bool(check(run[id_])) for check in checks)
        if failed:
            out.update(_outputs(node))
    return out


def _check_known(bound: Program, claims: Claims, run: dict[int, Any], excused: set[int], out: Outcome) -> None:
    for node in bound.nodes:
        for id_ in _outputs(node):
            claim = claims.values[id_]
            for what, mask in (("zero", claim.zero), ("neginf", claim.neginf)):
                if mask is None or id_ in excused:
                    continue
                out.counts["checks"] += int(mask.sum())
                wrong = mask & ~_is_known(run[id_], what)
                if bool(wrong.any()):
                    raise Unsound(f"{what} {_told(node)} {_element(wrong, run[id_])}, labels by {claims.name}")


def _is_known(value: Tensor, what: str) -> Tensor:
    if value.is_complex():
        parts = torch.view_as_real(value.resolve_conj())
        return _is_known(parts, what).all(-1)
    return (value == 0 if what == "zero" else torch.isneginf(value)) | torch.isnan(value)


def _check_pair(
    bound: Program,
    everything: list[Claims],
    excused: list[set[int]],
    changed: Tensor,
    runs: tuple[dict[int, Any], dict[int, Any]],
    out: Outcome,
) -> None:
    levels = [int(claims.labels[changed].min()) - 1 for claims in everything]
    for node in bound.nodes:
        for id_ in _outputs(node):
            if all(id_ in excuse for excuse in excused):
                continue
            a, b = runs[0][id_], runs[1][id_]
            alike = {signs: _alike(a, b, signs) for signs in (False, True)}
            for claims, excuse, level in zip(everything, excused, levels, strict=True):
                claim = claims.values[id_]
                if id_ in excuse:
                    continue
                promised = claim.dep <= level
                out.counts["checks"] += int(promised.sum())
                wrong = promised & ~alike[not claim.signed]
                if bool(wrong.any()):
                    change = f"{_element(wrong, a)} -> {_element(wrong, b)}"
                    raise Unsound(f"dep {_told(node)} {change}, labels by {claims.name} > {level} changed")


def _alike(a: Tensor, b: Tensor, signs: bool) -> Tensor:
    """Elementwise: NaN equals NaN; +0 equals -0 unless `signs`."""
    if a.is_complex():
        return _alike(torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj()), signs).all(-1)
    same = a == b
    if a.is_floating_point():
        nan = torch.isnan(a) & torch.isnan(b)
        same = nan | (same & (torch.signbit(a) == torch.signbit(b)) if signs else same)
    return same


def _proved(bound: Program, everything: list[Claims], id_: int) -> bool:
    """Whether logits could be this value: causal, isolated, and made of tokens."""
    shape = (bound.rows, bound.seq_len)
    if not bound.dtypes[id_].is_floating_point or bound.shapes[id_][:2] != shape or 0 in bound.shapes[id_]:
        return False
    deps = [claims.values[id_].dep.reshape(*shape, -1).amax(-1) for claims in everything]
    within = all(bool((dep <= claims.labels).all()) for dep, claims in zip(deps, everything, strict=True))
    return within and bool((deps[0] >= min(1, bound.seq_len - 1)).any())


def _told(node: Node) -> str:
    return f"{node.op} %{node.first} {node.args} {node.kwargs}"


def _element(mask: Tensor, value: Tensor) -> str:
    at = mask.nonzero()[0].tolist()
    return f"{at} = {value[tuple(at)].item()}"
