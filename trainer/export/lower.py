"""An exported program, operation by operation, as operations that the evaluator admits. UNTRUSTED side.

Each operation of the program is, in this order: written in other words (rewrites.py); taken as it is where it is
admitted; computed here and now, where it depends on parameters and constants alone; taken apart by torch's own
decompositions; refused by its name. What a decomposition calls goes the same way, since it runs under a dispatch mode.
All tensors but those of the program itself are fake: nothing is computed but constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from trainer.evaluator.model import ops
from trainer.evaluator.model.graph import DTYPES
from trainer.export import higher_order, reads, rewrites, rows, sorted_rows
from trainer.export.calls import Call, name_of, named
from trainer.export.negations import SAID_BETTER, Negations
from trainer.export.recording import Recording, encode
from trainer.export.refusals import NotExportable, Why
from trainer.export.values import BESIDE, Read, Values, tensors

_SKIPPED = frozenset(
    {
        *("aten._assert_tensor_metadata.default", "aten._assert_scalar.default"),
        *("aten.sym_constrain_range_for_size.default", "aten.sym_constrain_range.default"),
    }
)
CHECKS = frozenset({"aten._assert_async.default", "aten._assert_async.msg", "aten._functional_assert_async.msg"})
_READ = frozenset({"aten._local_scalar_dense.default", "aten.item.default", "aten.is_nonzero.default"})
_OF_ROWS = frozenset({"nonzero", "index", "embedding", "index_put", "index_add"})
_OF_ORDER = frozenset({"sort", "argsort", "index", "index_select", "index_put", "_grouped_mm"})
_SHIPPED = frozenset(DTYPES.values())


class Lowering(TorchDispatchMode):
    """Records operations; as a dispatch mode it hears what decompositions call."""

    def __init__(self, out: Recording, fake: FakeTensorMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.out, self.values, self.rows = out, Values(out, fake), rows.Rows()
        self.orders = sorted_rows.Orders(self.rows)
        self.negations = Negations(self._fixed, self.rows.is_chosen)
        self._opened: list[OpOverload] = []  # what is being taken apart, from the outside in

    def node(self, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What a node of the program's graph gives."""
        if target is operator.getitem:
            if args[0][args[1]] is None:
                raise NotExportable(Why.UNSUPPORTED_OP, BESIDE)
            return args[0][args[1]]
        if isinstance(target, OpOverload):
            return self.call(target, args, kwargs)
        if isinstance(target, torch._ops.HigherOrderOperator):
            plain = higher_order.PLAIN.get(target.name())
            if plain is None:
                raise NotExportable(Why.HIGHER_ORDER, f"{target} has no plain implementation")
            with self._listening():
                return plain(*args, **kwargs)
        if callable(target) and all(type(x) in (int, bool) for x in args) and not kwargs:
            return target(*args)  # sizes
        raise NotExportable(Why.CONTROL_FLOW, f"{target} is not a tensor operation")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """The (fake) result of an operation, once it is recorded in whatever words."""
        self.rows.counted(func, args, kwargs)
        ways = (self._of_no_value, self._of_order, self._of_rows, self._turned, self._rewritten, self._admitted)
        for way in (*ways, self._computed):
            found = way(func, args, kwargs)
            if found is not NotImplemented:
                break
        else:
            found = self._apart(func, args, kwargs)
        self.negations.note(func, args, kwargs, found)
        return found

    def emit(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record an admitted operation as it is."""
        with _disable_current_modes(), self.values.fake:  # or this mode would hear what the operation is made of
            result = func(*args, **kwargs)
        many = isinstance(result, tuple | list)
        results = list(result) if many else [result]
        given = tensors([args, kwargs])
        if any(self.rows.mask(tensor) is not None for tensor in given):
            self.rows.carried(func, args, kwargs, results)
        if given:
            self.rows.reshaped(func, given[0], result)
        constant = all(self.values.is_constant(tensor) for tensor in given)
        refer = self.values.refer
        operation = self.out.add(func, refer(list(args)), refer(kwargs), len(results), many)
        for at, fake in enumerate(results):
            self.values.note(fake, operation.first + at, constant=constant)
        return result

    def known(self, tensor: torch.Tensor, read: Read = torch.Tensor.tolist) -> Any:
        """What `read` says of a constant; None if it depends on the tokens."""
        return None if self.rows.mask(tensor) is not None else self.values.known(tensor, read)

    def places(self, tensor: torch.Tensor) -> list[int] | None:
        """Where rows could be chosen from, in their order; None if that depends on more than the mask."""
        found: list[int] | None = self.values.known(tensor)
        return found

    def constant(self, real: torch.Tensor) -> torch.Tensor:
        """A tensor of this value."""
        return self.values.held(real)

    # The ways, in the order in which they are tried

    def _of_no_value(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """What makes no tensor: checks, numbers, sizes; and what writes in place, where nobody else looks."""
        name = str(func)
        if name in _SKIPPED:
            return None
        if name in CHECKS:
            return self._check(*args)
        if name in _READ:
            return self._number(args[0])
        if name == "aten.sym_size.int":
            return self.rows.size(*args)
        if func.namespace == "prim":  # what a tensor is, not what is in it
            return func(*args, **kwargs)
        if func._schema.is_mutable and func._schema.name.endswith("_"):
            return self._in_place(func, args, kwargs)
        return NotImplemented

    def _of_order(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Sorting rows by what the tokens say, and back (sorted_rows.py)."""
        name = name_of(func)
        if name not in _OF_ORDER:
            return NotImplemented
        given = named(func, args, kwargs)
        x, one = given["self"], len(given.get("indices", ())) == 1
        found: Any = None
        with self._listening():
            if name in ("sort", "argsort"):
                both = self.orders.sort(self, x, given["descending"])
                found = both[1] if both is not None and name == "argsort" else both
            elif name == "index_select" and self.rows.mask(given["index"]) is not None and given["dim"] % x.dim() == 0:
                found = self.call(torch.ops.aten.index.Tensor, (x, [given["index"]]), {})
            elif name == "index" and one:
                found = self.orders.undone(self, x, given["indices"][0])
            elif name == "index_put" and one and not given["accumulate"]:
                found = self.orders.laid_out(self, x, given["indices"][0], given["values"])
            elif name == "_grouped_mm" and given["bias"] is None and given["out_dtype"] is None:
                found = self.orders.grouped_product(x, given["mat2"], given["offs"])
        return NotImplemented if found is None else found

    def _of_rows(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Choosing rows by the tokens, and putting them back (rows.py)."""
        name = name_of(func)
        if name not in _OF_ROWS:
            return NotImplemented
        given = named(func, args, kwargs)
        with self._listening():
            if name == "nonzero" and not self.values.is_constant(given["self"]):
                return rows.nonzero(self.rows, given["self"])
            if name == "index":
                return rows.index(self.rows, self, given["self"], given["indices"])
            if name == "embedding":
                return rows.embedding(self.rows, self, func, args, kwargs)
            if name == "index_put":
                x, where, values = given["self"], given["indices"], given["values"]
                return rows.index_put(self.rows, self, x, where, values, given["accumulate"])
            if name == "index_add" and given["alpha"] == 1:
                x, dim, where, values = given["self"], given["dim"], given["index"], given["source"]
                return rows.index_add(self.rows, self, x, dim, where, values)
        return NotImplemented

    def _turned(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Conditions the other way round (negations.py)."""
        if name_of(func) not in SAID_BETTER:
            return NotImplemented
        with self._listening():
            found = self.negations.instead(func, args, kwargs)
        return NotImplemented if found is None else found

    def _rewritten(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        rewrite = rewrites.REWRITES.get(str(func))
        if rewrite is None:
            return NotImplemented
        with self._listening():
            return rewrite(Call(self, func, args, kwargs))

    def _admitted(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        if str(func) not in ops.allowed() or not self._sayable(args, kwargs):
            return NotImplemented
        return self.emit(func, args, kwargs)

    def _computed(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operation on constants alone: its result is a weight."""
        if torch.Tag.nondeterministic_seeded in func.tags and not _harmless(func, args, kwargs):
            raise NotExportable(Why.RANDOM, f"random numbers in forward, by aten.{name_of(func)}", name_of(func))
        if func._schema.is_mutable or not all(self._fixed(tensor) for tensor in tensors([args, kwargs])):
            return NotImplemented
        over = torch.utils._pytree.tree_map_only
        args, kwargs = over(torch.Tensor, self.values.real, (args, kwargs))
        try:
            with _disable_current_modes():
                result = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError) as error:
            raise NotExportable(Why.UNSUPPORTED_OP, f"{func}: {error}", name_of(func)) from None
        return over(torch.Tensor, self.values.held, result)

    def _apart(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """By torch's own decompositions, of which some are written in terms of each other."""
        if func in self._opened:
            raise self._refused(func)
        self._opened.append(func)
        with self._listening():
            for parts in _decompositions(func, tensors([args, kwargs])):
                if (found := parts(*args, **kwargs)) is not NotImplemented:
                    self._opened.pop()
                    return found
        raise self._refused(func)

    def _refused(self, func: OpOverload) -> NotExportable:
        """By the name that people know: that of the first operation that was taken apart."""
        func = next((opened for opened in self._opened if opened.namespace == "aten"), func)
        if func.namespace != "aten":
            return NotExportable(Why.CUSTOM_OP, str(func))
        detail = f"the operation aten.{name_of(func)} cannot be handed over"
        return NotExportable(Why.UNSUPPORTED_OP, detail, name_of(func))

    # Their parts

    def _fixed(self, tensor: torch.Tensor) -> bool:
        """Whether nothing of it is said by the tokens: neither what is in it, nor which of its rows count."""
        return self.values.is_constant(tensor) and self.rows.mask(tensor) is None

    def _sayable(self, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether the format has words for all arguments; what it has none for may still be computed here."""
        try:
            encode([self.values.refer(list(args)), list(self.values.refer(kwargs).values())])
        except NotExportable as error:
            if error.why is Why.DATA_DEPENDENT:
                raise
            return False
        return all(tensor.dtype in _SHIPPED for tensor in tensors([args, kwargs]))

    def _check(self, condition: torch.Tensor, kind: str = reads.BRANCH, *_: Any) -> None:
        """A branch on parameters goes where it goes; one on tokens is for every row to confirm; a number is refused."""
        if self._fixed(condition):
            if not self.known(condition):
                raise NotExportable(Why.CONTROL_FLOW, "a check of constants fails")
        elif self.rows.mask(condition) is not None:
            raise NotExportable(Why.DATA_DEPENDENT, "a shape depends on data: a check of chosen rows")
        elif kind == reads.NUMBER:
            raise NotExportable(Why.CONTROL_FLOW, NUMBER_READ)
        else:
            self.out.checks.append(self.values.id_of(condition))

    def _number(self, tensor: torch.Tensor) -> Any:
        if not self._fixed(tensor):
            raise NotExportable(Why.CONTROL_FLOW, NUMBER_READ)
        return self.known(tensor, torch.Tensor.item)

    def _in_place(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """A decomposition may write to a tensor that it has just made: the same as another value of that name."""
        target = args[0]
        packet = getattr(torch.ops.aten, name_of(func).removesuffix("_"), None)
        plain = getattr(packet, func._overloadname, None)
        if plain is None or not self.values.is_alone(target):
            raise NotExportable(Why.MUTATION, f"{func} writes to what others see", name_of(func).removesuffix("_"))
        found = self.call(plain, args, kwargs)
        if found.dtype is not target.dtype:
            found = self.call(torch.ops.aten._to_copy.default, (found,), {"dtype": target.dtype})
        self.values.rename(target, found)
        self.negations.forget()
        return target

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with self.values.fake, self:
            yield


NUMBER_READ = "a number is read from a tensor that depends on the tokens"


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    """Decompositions of torch.export first, then whatever else torch has."""
    return {**torch._decomp.decomposition_table, **dict(torch.export.default_decompositions())}


def _decompositions(func: OpOverload, given: list[torch.Tensor]) -> Iterator[Callable[..., Any]]:
    if func in _table():
        yield _table()[func]
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        yield func.decompose
    if (custom := OPDEFS.get(func._schema.name)) is not None:
        device = given[0].device.type if given else "cpu"
        if (own := custom._backend_fns.get(device, custom._backend_fns.get(None))) is not None:
            yield own


def _harmless(func: OpOverload, args: Any, kwargs: dict[str, Any]) -> bool:
    """Dropout that drops nothing: a model as it is evaluated."""
    given = named(func, args, kwargs)
    return given.get("train", given.get("training")) is False or given.get("p", given.get("dropout_p")) == 0
