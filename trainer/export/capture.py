"""What a model is asked when it is handed over, and the ways of writing down what it does. UNTRUSTED side.

Two ways, since neither covers every model: torch.export with functional decomposition (keeps linear, attention and
norms whole, knows functions as arguments and rows chosen by tokens), and a recording of the running model (direct.py:
lower level, survives what tracing does not), which comes first where a pass makes so many calls that tracing takes
minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from trainer.export import direct
from trainer.export.reads import Answer, Listen, Some, idle
from trainer.export.recording import Recording
from trainer.export.traced import lower

LONG = 2_000  # calls of torch in one forward pass


class Batch(NamedTuple):
    """Tokens and what follows each of them, int64 [rows, seq_len]."""

    inputs: torch.Tensor
    targets: torch.Tensor


class Logits(torch.nn.Module):
    """`idx -> logits` of a model, as its own train.py would have scored it.

    Under the autocast state evaluate_bpb was called in: it must be entered inside the exported module, or the casts are
    lost. With `targets`, the logits are what reaches F.cross_entropy in `model(idx, targets, reduction="none")`: the
    `which`-th call of it.
    """

    def __init__(
        self, model: torch.nn.Module, device: str, autocast: torch.dtype | None, targets: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.model, self.device_type, self.autocast, self.targets = model, device, autocast, targets
        self.which = 0
        self.reads: list[Any] = []  # what forward reads from tensors, in order
        self.idle: frozenset[int] = frozenset()  # of them, by number, those that nothing comes of
        self.calls = 0  # of torch, in one pass
        self.nats: float | None = None  # mean loss of real tokens; None if it was not asked
        self.steady = True  # whether forward says the same twice

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        with self._autocast() as stack:
            if self.reads:
                stack.enter_context(Answer(self.reads, self.idle))
            if self.targets is None:
                logits: torch.Tensor = self.model(idx)
            else:
                seen = stack.enter_context(_CrossEntropy())
                self.model(idx, self.targets, reduction="none")
                found = _as_logits(seen.found[self.which][0], idx)
                if found is None:
                    raise TypeError("no cross entropy of all tokens")
                logits = found
        return logits

    def listen(self, idx: torch.Tensor) -> torch.Tensor:
        """The logits of real tokens, twice (the first may set things up); remembers what was read on the way."""
        self.reads = []
        with torch.no_grad():
            first: torch.Tensor = self(idx)
            with Listen() as listened:
                logits: torch.Tensor = self(idx)
            self.idle = idle(listened.found, self.model, lambda: self(idx), logits)
        self.reads, self.calls = listened.found, listened.calls
        self.steady = _alike(first, logits)
        return logits

    def candidates(self, batch: Batch) -> dict[int, torch.Tensor]:
        """Logits by number of the cross entropies, in the model's own loss, that are of these very targets."""
        with torch.no_grad(), self._autocast(), _CrossEntropy() as seen:
            self.model(batch.inputs, batch.targets, reduction="none")
        found = {at: _as_logits(logits, batch.inputs) for at, (logits, _) in enumerate(seen.found)}
        own = {
            at for at, (_, targets) in enumerate(seen.found) if torch.equal(targets.flatten(), batch.targets.flatten())
        }
        return {at: logits for at, logits in found.items() if logits is not None and at in own}

    def _autocast(self) -> ExitStack:
        stack = ExitStack()
        if self.autocast is not None:
            stack.enter_context(torch.autocast(self.device_type, dtype=self.autocast))
        return stack

    def losses(self, batch: Batch) -> torch.Tensor | None:
        """What the model itself says of a batch, one number a token; None if it has no such interface."""
        with torch.no_grad(), self._autocast():
            try:
                found = self.model(batch.inputs, batch.targets, reduction="none")
            except Exception:  # noqa: BLE001 - a loss that cannot be asked for one number a token says nothing
                return None
        whole = isinstance(found, torch.Tensor) and found.numel() == batch.targets.numel()
        return found.float().reshape(-1) if whole else None


def _alike(one: Any, two: Any) -> bool:
    """Whether two runs said the same, up to what a GPU adds up in another order."""
    if not (isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and one.shape == two.shape):
        return not (isinstance(one, torch.Tensor) or isinstance(two, torch.Tensor))
    one, two = one.float(), two.float()
    return torch.allclose(one, two, rtol=1e-2, atol=1e-2 * float(one.nan_to_num().abs().max()), equal_nan=True)


class _CrossEntropy(TorchFunctionMode):
    """Sees what losses are computed of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.cross_entropy:
            given = dict(zip(("input", "target"), args, strict=False)) | kwargs
            self.found.append((given["input"], given["target"]))
        return func(*args, **kwargs)


def _as_logits(seen: torch.Tensor, idx: torch.Tensor) -> torch.Tensor | None:
    """[rows, seq_len, vocab] of what a loss is computed of; None if it is not of all tokens, row by row."""
    if seen.dim() == 3 and seen.shape[0] == idx.shape[0] and seen.shape[2] == idx.shape[1]:
        return seen.transpose(1, 2)
    if seen.dim() == 2 and seen.shape[0] == idx.numel():
        return seen.reshape(*idx.shape, seen.shape[-1])
    return None


def _functional(module: torch.nn.Module, idx: torch.Tensor) -> Recording:
    with Some():
        exported = torch.export.export(module, (idx,), strict=False)
    return lower(exported.run_decompositions({}))


Mode = Callable[[torch.nn.Module, torch.Tensor], Recording]
MODES: dict[str, Mode] = {"functional": _functional, "direct": direct.record}


def ways(module: Logits) -> list[Mode]:
    """The modes in the order in which they are tried."""
    long = module.calls > LONG
    return [MODES[name] for name in sorted(MODES, key=lambda name: long and name != "direct")]
