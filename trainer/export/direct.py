"""A forward pass recorded while it runs on fake tensors, without torch.export. UNTRUSTED side.

torch.export keeps every operation's place in the source, and traces twice: 2.8 ms an operation, a minute for one layer
that loops over 2,048 positions. Here each operation is lowered as it is called, in a tenth of that. Writes become
values of their own by torch's functionalization (its C++ half, which needs no tracer).

What torch.export knows better is left to it: functions as arguments (flex_attention, scan), and rows chosen by the
tokens, whose number Python would read off a shape unheard.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from trainer.export.calls import name_of, named
from trainer.export.lower import NUMBER_READ, Lowering
from trainer.export.reads import kept
from trainer.export.recording import Recording
from trainer.export.refusals import NotExportable, Why


def record(module: torch.nn.Module, idx: torch.Tensor) -> Recording:
    """What `module(idx)` does, in admitted operations; raises NotExportable, or what forward itself raises."""
    out, fake = Recording(), FakeTensorMode(allow_non_fake_inputs=True)
    lowering = _Running(out, fake)
    tokens = fake.from_tensor(idx, static_shapes=True)
    out.input = out.place()
    lowering.values.note(tokens, out.input, constant=False)
    with kept(module):
        state, given = _State(module, lowering), torch._to_functional_tensor(tokens)
        with torch.compiler.set_stance("force_eager"), fake, lowering, _functional(), _Reads():
            logits = torch.func.functional_call(module, state.named, (given,), tie_weights=False)
            plain = _plain(logits)
        written = state.written()
        if _written(given):
            raise NotExportable(Why.MUTATION, "forward writes to its input")
    if not isinstance(plain, torch.Tensor) or not lowering.values.is_known(plain):
        raise NotExportable(Why.SIGNATURE, "forward(idx) must return one tensor of logits")
    out.output = lowering.values.id_of(plain)
    if not out.read().isdisjoint(lowering.values.id_of(fake) for fake in written):
        raise NotExportable(Why.MUTATION, "what forward writes reaches the logits")
    return out


class _State:
    """A module's tensors as functional ones, one for each: parameters and buffers by name, attributes put in place."""

    def __init__(self, module: torch.nn.Module, lowering: Lowering) -> None:
        self._values, self._wrapped = lowering.values, dict[int, tuple[torch.Tensor, torch.Tensor]]()
        self.named: dict[str, torch.Tensor] = {}
        for at, part in module.named_modules():  # one name for a module that has several: each place is swapped once
            for name, tensor in (*part._parameters.items(), *part._buffers.items()):
                if tensor is not None:
                    self.named[f"{at}.{name}".lstrip(".")] = self._functional(tensor)
            for name, value in list(vars(part).items()):
                if isinstance(value, torch.Tensor):
                    vars(part)[name] = self._functional(value)

    def written(self) -> list[torch.Tensor]:
        """The fake tensors behind those that were written to."""
        return [fake for fake, functional in self._wrapped.values() if _written(functional)]

    def _functional(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._wrapped:
            fake = self._values.held(tensor.detach())
            self._wrapped[id(tensor)] = fake, torch._to_functional_tensor(fake)
        return self._wrapped[id(tensor)][1]


class _Running(Lowering):
    """Operations of a forward pass that is running: what it reads from Python is not heard."""

    def call(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """As it is called; where Python's None stands for a result that nobody reads, C++ needs one of its type."""
        found = super().call(func, args, kwargs)
        if not isinstance(found, tuple) or not any(one is None for one in found):
            return found
        types = [str(returned.type) for returned in func._schema.returns]
        return tuple(
            one if one is not None else self.values.nothing() if kind == "Tensor" else 0
            for one, kind in zip(found, types, strict=True)
        )

    def _of_rows(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        chosen = name_of(func) == "nonzero" and not self.values.is_constant(args[0])
        if name_of(func) in ("index", "index_put", "masked_select"):
            where = named(func, args, kwargs).get("indices") or [args[1]]
            masks = [x for x in where if isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)]
            chosen = not all(self.values.is_constant(x) for x in masks)
        if chosen:
            raise NotExportable(Why.DATA_DEPENDENT, "rows chosen by the tokens", name_of(func))
        return super()._of_rows(func, args, kwargs)


class _Reads(TorchFunctionMode):
    """Refuses what looks at memory that is not there: C++ would read whatever lies in its place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MEMORY and torch._is_functional_tensor(args[0]):
            raise NotExportable(Why.CONTROL_FLOW, NUMBER_READ)
        return func(*args, **(kwargs or {}))


_OF_MEMORY = ("numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage", "tolist")
_MEMORY = frozenset(getattr(torch.Tensor, name) for name in _OF_MEMORY)


@contextmanager
def _functional() -> Iterator[None]:
    """Writes become values, views stay views; recurrent layers are loops of plain operations: no library has them."""
    mkldnn, cudnn = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    torch._C._set_cudnn_enabled(False)
    torch._enable_functionalization(reapply_views=True)
    try:
        yield
    finally:
        torch._disable_functionalization()
        torch._C._set_mkldnn_enabled(mkldnn)
        torch._C._set_cudnn_enabled(cudnn)


def _plain(value: Any) -> Any:
    """A tensor without what functionalization wraps around it, all writes done."""
    if not isinstance(value, torch.Tensor) or not torch._is_functional_tensor(value):
        return value
    torch._sync(value)  # type: ignore[attr-defined, no-untyped-call]
    return torch._from_functional_tensor(value)


def _written(tensor: torch.Tensor) -> bool:
    return bool(torch._functionalize_has_data_mutation(tensor))  # type: ignore[attr-defined]
