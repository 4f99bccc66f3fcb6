"""Which recorded value a fake tensor stands for, and what is known of it while a program is lowered. UNTRUSTED side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from trainer.evaluator.model.arguments import Ref
from trainer.export.recording import Recording
from trainer.export.refusals import NotExportable, Why

BESIDE = "what a kernel returns beside its result is read"
_UNREAD = -1
Read = Callable[[torch.Tensor], Any]


class Values:
    """Fake tensors by identity, the recorded values they stand for, and those of them that depend on no token."""

    def __init__(self, out: Recording, fake: FakeTensorMode) -> None:
        self.out, self.fake = out, fake
        self._ids: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # or an identity could be given twice
        self._constant: dict[int, torch.Tensor | None] = {}  # by id; the tensor, once it is known
        self._sharing: dict[int, int] = {}  # values of one storage

    def note(self, fake: torch.Tensor, id_: int, *, constant: bool) -> None:
        """This tensor stands for that value."""
        self._ids[id(fake)] = id_
        self._alive.append(fake)
        self._sharing[_storage(fake)] = self._sharing.get(_storage(fake), 0) + 1
        if constant:
            self._constant.setdefault(id_, None)

    def hold(self, real: torch.Tensor, fake: torch.Tensor) -> None:
        """This tensor stands for one that is there from the start."""
        with _disable_current_modes():
            real = real.resolve_conj().resolve_neg()  # a file has no word for either
        id_ = self.out.hold(real)
        self.note(fake, id_, constant=True)
        self._constant[id_] = real

    def held(self, real: torch.Tensor) -> torch.Tensor:
        """A fake tensor for a real one."""
        with _disable_current_modes():
            fake = self.fake.from_tensor(real, static_shapes=True)
        self.hold(real, fake)
        return fake

    def nothing(self) -> torch.Tensor:
        """A fake tensor that nobody may read: what a kernel returns beside its result."""
        with _disable_current_modes(), self.fake:
            fake = torch.empty(0)
        self._ids[id(fake)] = _UNREAD
        self._alive.append(fake)
        return fake

    def rename(self, fake: torch.Tensor, other: torch.Tensor) -> None:
        """What the one stands for is from now on what the other stands for: it was written to."""
        self._ids[id(fake)] = self.id_of(other)

    def id_of(self, tensor: torch.Tensor) -> int:
        """The number of a tensor; one that a decomposition made by itself is a constant."""
        if id(tensor) not in self._ids:
            real = tensor.constant if isinstance(tensor, FakeTensor) else tensor
            if real is None or isinstance(real, FakeTensor):
                raise NotExportable(Why.OTHER, "a tensor of unknown origin")
            self.hold(real, tensor)
        if self._ids[id(tensor)] == _UNREAD:
            raise NotExportable(Why.UNSUPPORTED_OP, BESIDE)
        return self._ids[id(tensor)]

    def is_known(self, tensor: Any) -> bool:
        """Whether this is a tensor that stands for a value already."""
        return isinstance(tensor, torch.Tensor) and id(tensor) in self._ids

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether it depends on no token."""
        return self.id_of(tensor) in self._constant

    def is_alone(self, tensor: torch.Tensor) -> bool:
        """Whether nobody else sees what is written to it."""
        return self._sharing.get(_storage(tensor), 0) == 1

    def real(self, tensor: torch.Tensor) -> torch.Tensor:
        """The value of a constant."""
        return self._real(self.id_of(tensor))

    def known(self, tensor: torch.Tensor, read: Read = torch.Tensor.tolist) -> Any:
        """What `read` says of a constant; None if it depends on the tokens."""
        if not self.is_constant(tensor):
            return None
        real = self.real(tensor)
        with _disable_current_modes():
            return read(real)

    def refer(self, value: Any) -> Any:
        """An argument with values in place of tensors."""
        if isinstance(value, torch.Tensor):
            return Ref(self.id_of(value))
        if isinstance(value, dict):
            return {key: self.refer(x) for key, x in value.items()}
        return [self.refer(x) for x in value] if isinstance(value, list | tuple) else value

    def _real(self, id_: int) -> torch.Tensor:
        """Computed from the tensors of the program, once; a chain of constants may be as long as a loop over time."""
        ahead = [id_]
        while (known := self._constant[id_]) is None:
            operation = self.out.made(ahead[-1])
            missing = [ref for ref in operation.refs if self._constant[ref] is None]
            if missing:
                ahead += missing
                continue
            with _disable_current_modes():
                self._constant.update(operation.run(self._constant))
            while ahead and self._constant[ahead[-1]] is not None:
                ahead.pop()
        return known


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in arguments."""
    return [x for x in torch.utils._pytree.tree_leaves(value) if isinstance(x, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
