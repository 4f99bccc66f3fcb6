"""What a model is asked when it is handed over, and torch.export around it. UNTRUSTED side.

Two ways of tracing, since neither covers every model: functional decomposition (keeps linear, attention and norms
whole) and a post-dispatch trace (lower level, but survives autocast around einsum and recurrent layers).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export._trace import _export
from torch.overrides import TorchFunctionMode

from trainer.export.reads import Answer, Listen


class Batch(NamedTuple):
    """Tokens and what follows each of them, int64 [rows, seq_len]."""

    inputs: torch.Tensor
    targets: torch.Tensor


class Logits(torch.nn.Module):
    """`idx -> logits` of a model, as its own train.py would have scored it.

    Under the autocast state evaluate_bpb was called in: it must be entered inside the exported module, or the casts are
    lost. With `targets`, the logits are what reaches F.cross_entropy in `model(idx, targets, reduction="none")`.
    """

    def __init__(
        self, model: torch.nn.Module, device: str, autocast: torch.dtype | None, targets: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.model, self.device_type, self.autocast, self.targets = model, device, autocast, targets
        self.reads: list[Any] = []  # what forward reads from tensors, in order

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        with ExitStack() as stack:
            if self.autocast is not None:
                stack.enter_context(torch.autocast(self.device_type, dtype=self.autocast))
            if self.reads:
                stack.enter_context(Answer(self.reads))
            if self.targets is None:
                logits: torch.Tensor = self.model(idx)
            else:
                seen = stack.enter_context(_CrossEntropy())
                self.model(idx, self.targets, reduction="none")
                logits = seen.logits(idx)
        return logits

    def listen(self, idx: torch.Tensor) -> torch.Tensor:
        """The logits of real tokens; remembers what was read on the way."""
        self.reads = []
        with torch.no_grad(), Listen() as listened:
            logits: torch.Tensor = self(idx)
        self.reads = listened.found
        return logits

    def losses(self, batch: Batch) -> torch.Tensor | None:
        """What the model itself says of a batch, one number a token; None if it has no such interface."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self.autocast is not None:
                stack.enter_context(torch.autocast(self.device_type, dtype=self.autocast))
            try:
                found = self.model(batch.inputs, batch.targets, reduction="none")
            except TypeError:
                return None
        whole = isinstance(found, torch.Tensor) and found.numel() == batch.targets.numel()
        return found.float().reshape(-1) if whole else None


class _CrossEntropy(TorchFunctionMode):
    """Sees what a loss is computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.cross_entropy:
            self.found.append(args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def logits(self, idx: torch.Tensor) -> torch.Tensor:
        """[rows, seq_len, vocab] of the last loss that is of all tokens."""
        for seen in reversed(self.found):
            if seen.dim() == 3 and seen.shape[0] == idx.shape[0] and seen.shape[2] == idx.shape[1]:
                return seen.transpose(1, 2)
            if seen.dim() == 2 and seen.shape[0] == idx.numel():
                return seen.reshape(*idx.shape, seen.shape[-1])
        raise TypeError("no cross entropy of all tokens")


def _functional(module: torch.nn.Module, idx: torch.Tensor) -> ExportedProgram:
    exported: ExportedProgram = torch.export.export(module, (idx,), strict=False).run_decompositions({})
    return exported


def _post_dispatch(module: torch.nn.Module, idx: torch.Tensor) -> ExportedProgram:
    exported: ExportedProgram = _export(module, (idx,), strict=False, pre_dispatch=False)
    return exported


Mode = Callable[[torch.nn.Module, torch.Tensor], ExportedProgram]
MODES: dict[str, Mode] = {"functional": _functional, "post-dispatch": _post_dispatch}  # in the order they are tried
