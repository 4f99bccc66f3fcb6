"""Abstract interpretation of a program: labels in, labels out, obligations collected. TRUSTED."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from trainer.evaluator.causality import rules
from trainer.evaluator.causality.abstract import LABEL, Abstract, constant
from trainer.evaluator.causality.context import Context
from trainer.evaluator.causality.obligations import Obligations
from trainer.evaluator.model.graph import substitute
from trainer.evaluator.model.program import Program


@dataclass(frozen=True)
class Proof:
    """Outcome: `causal` and `isolated` hold if, at run time, every obligation does."""

    causal: bool
    isolated: bool
    lookahead: int  # largest number of positions a logit may see ahead; 0 when causal
    unknown_ops: tuple[str, ...]  # operations without a rule, which mix everything
    obligations: Obligations

    @property
    def proved(self) -> bool:
        return self.causal and self.isolated


def prove(program: Program) -> Proof:
    """Label tokens by position, then by row from both ends, and bound what each logit depends on.

    logits[b, t, :] must depend on labels <= t, respectively on row b alone. With one row per pass rows
    are isolated by construction.
    """
    rows, seq = program.rows, program.seq_len
    obligations = Obligations()
    unknown: set[str] = set()
    position = torch.arange(seq, dtype=LABEL).expand(rows, seq)
    ahead = _excess(program, position, obligations, unknown)
    isolated = True
    if rows > 1:
        row = torch.arange(rows, dtype=LABEL).unsqueeze(1).expand(rows, seq)
        isolated = all(_excess(program, label, obligations, unknown) == 0 for label in (row, rows - 1 - row))
    return Proof(ahead == 0, isolated, ahead, tuple(sorted(unknown)), obligations)


def _excess(program: Program, labels: torch.Tensor, obligations: Obligations, unknown: set[str]) -> int:
    """The largest amount by which a logit's labels exceed its own token's label."""
    if program.output == program.input or program.output in program.constants:
        return 0  # constant logits; scoring refuses the rest
    *_, last = interpret(program, labels, obligations, unknown)
    dep = last[program.output].dep.amax(-1)
    return max(0, int((dep - labels).max()))


def interpret(
    program: Program, labels: torch.Tensor, obligations: Obligations, unknown: set[str]
) -> Iterator[dict[int, Abstract]]:
    """The abstract values by id that are alive after each operation, in the program's order.

    The same mapping is yielded every time and changes between two steps. Names of operations that no rule could
    say anything of are added to `unknown`.
    """
    values = {id_: constant(id_, value) for id_, value in program.constants.items()}
    values[program.input] = Abstract(program.input, labels, torch.int64)
    for node, dead in zip(program.nodes, program.free, strict=True):
        context = Context(
            node=node,
            args={k: substitute(v, values) for k, v in node.bound().items()},
            inputs=[values[ref] for ref in node.refs],
            shapes=[program.shapes[i] for i in range(node.first, node.first + node.outputs)],
            dtypes=[program.dtypes[i] for i in range(node.first, node.first + node.outputs)],
            obligations=obligations,
        )
        outputs = rules.apply(context)
        if outputs is None:
            unknown.add(node.name)
            outputs = rules.mix(context)
        for offset, value in enumerate(outputs):
            if tuple(value.shape) != context.shapes[offset]:
                raise AssertionError(f"causality rule of {node.name} has the wrong shape")
            values[node.first + offset] = value.named(node.first + offset)
        yield values
        for id_ in dead:
            values.pop(id_, None)
