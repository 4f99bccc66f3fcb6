"""What forward assumed when it was handed over, looked at in every pass. TRUSTED, hostile input.

A graph has no branches: `if x.any():` was answered once, at hand-over, and the graph says what the answer rests on.
A row for which it would have been another is not scored by this graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from trainer.evaluator.model.program import Program
from trainer.wire.refusal import Reason, Refused

Watch = dict[int, Callable[[torch.Tensor], None]]


class Checks:
    """Collects the values that must be true, and looks at them when asked: a device is not waited for in between."""

    def __init__(self, program: Program) -> None:
        self._found: list[torch.Tensor] = []
        self._ids: Iterable[int] = program.checks
        for id_ in program.checks:
            if id_ in program.constants:
                self._note(program.constants[id_])

    def _note(self, value: torch.Tensor) -> None:
        self._found.append((value != 0).all())

    def beside(self, watch: Watch) -> Watch:
        """A program's watch with these added."""

        def both(first: Callable[[torch.Tensor], None] | None) -> Callable[[torch.Tensor], None]:
            def look(value: torch.Tensor) -> None:
                self._note(value)
                if first is not None:
                    first(value)

            return look

        return watch | {id_: both(watch.get(id_)) for id_ in self._ids}

    def discharge(self) -> None:
        """Look at what was seen since the last call; raises Refused(OTHER_BRANCH)."""
        found, self._found = self._found, []
        if found and not bool(torch.stack(found).all()):
            raise Refused(Reason.OTHER_BRANCH, "a branch of forward goes another way than at hand-over")
