"""A validated graph bound to its weights: dry run, constant folding, execution. TRUSTED.

Order matters: `prepare` measures shapes, memory and work on fake tensors before the first real operation runs, and
folding (which executes) comes after it. Otherwise a graph of constants could burn the machine before any limit was
looked at.

What was reasoned about is what runs: limits and proof speak of the dry run's values, and torch's shape inference is
not always its kernel's (`aten.index.Tensor`, torch 2.13). So every value that is computed, while folding and in every
pass, is compared with the dry run's before anything reads it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from trainer.evaluator.model import hidden, kernels, ops
from trainer.evaluator.model.graph import DTYPES, Graph, Node, substitute
from trainer.evaluator.model.traps import trap
from trainer.wire.refusal import Reason, Refused

MAX_RANK = 8
MAX_STEPS = 16_384  # of a GRU, in all layers and directions: 2.4 ms each while they are fake
DRY_RUN_SECONDS = 120.0  # of processor time; a recurrence is unrolled there, step by step
_DTYPES = frozenset(DTYPES.values())


@dataclass(frozen=True)
class Limits:
    """Ceilings of one forward pass, folding included; policies/evaluator.yaml sets them."""

    weight_bytes: int = 8 << 30
    peak_bytes: int = 16 << 30  # live intermediate values
    elements: int = 1 << 31  # of one value
    total_elements: int = 1 << 36  # written in one pass, what FLOP counters do not see
    flops: float = 1e15


class Work(NamedTuple):
    """What operations cost, counted before they run: FLOPs of products, and elements read and written (ops.cost)."""

    flops: float = 0.0
    elements: int = 0


NOTHING = Work()


@dataclass
class Program:
    """`model(idx) -> logits` at fixed [rows, seq_len], as data."""

    nodes: list[Node]
    constants: dict[int, torch.Tensor]
    input: int
    output: int
    rows: int
    seq_len: int
    vocab: int
    device: torch.device
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[int, torch.dtype] = field(default_factory=dict)
    devices: dict[int, str] = field(default_factory=dict)
    each_pass: Work = NOTHING  # of operations that depend on the input
    folding: Work = NOTHING  # of the others, which are computed once
    free: list[list[int]] = field(default_factory=list)
    checks: tuple[int, ...] = ()

    def __call__(
        self, idx: torch.Tensor, watch: dict[int, Callable[[torch.Tensor], None]] | None = None
    ) -> torch.Tensor:
        """Logits [rows, seq_len, vocab] of idx int64 [rows, seq_len]; `watch` sees values by id.

        Raises Refused(SHAPE_MISMATCH) as soon as a value is not what the dry run said, the input included.
        """
        watch = watch or {}
        self._same(self.input, idx)
        values = {**self.constants, self.input: idx}
        with torch.no_grad():
            for node, dead in zip(self.nodes, self.free, strict=True):
                for id_, value in self.compute(node, values):
                    values[id_] = value
                    if id_ in watch:
                        watch[id_](value)
                for id_ in dead:
                    values.pop(id_, None)
        return values[self.output]

    def compute(self, node: Node, values: dict[int, Any]) -> list[tuple[int, torch.Tensor]]:
        """(id, tensor) of each output of a node, all as the dry run said; raises Refused(SHAPE_MISMATCH)."""
        results = kernels.run(node, values)
        for id_, value in results:
            self._same(id_, value)
        return results

    def note(self, id_: int, value: torch.Tensor) -> None:
        """Remember what value `id_` will be."""
        self.shapes[id_], self.dtypes[id_], self.devices[id_] = tuple(value.shape), value.dtype, value.device.type

    def _same(self, id_: int, value: torch.Tensor) -> None:
        found = (tuple(value.shape), value.dtype, value.device.type)
        inferred = (self.shapes[id_], self.dtypes[id_], self.devices[id_])
        if found != inferred:
            raise Refused(Reason.SHAPE_MISMATCH, f"value {id_} is {found}, the dry run said {inferred}")


def rehearse() -> None:
    """A dry run of next to nothing: the first one imports and initialises more than torch itself, for a second."""
    with FakeTensorMode() as fake, FlopCounterMode(display=False), torch.no_grad():
        one = fake.from_tensor(torch.ones(2, 2))
        torch.nn.functional.linear(one, one)


def prepare(
    graph: Graph,
    weights: dict[str, torch.Tensor],
    *,
    rows: int,
    seq_len: int,
    vocab: int,
    device: torch.device,
    limits: Limits,
    allow: Callable[[Program], Callable[[], object]] = lambda _: lambda: None,
) -> Program:
    """Bind, dry-run within `limits`, fold constants; raises Refused.

    `allow` sees the program once it is known what folding costs; what it returns is called after each folded operation.
    """
    program = check(graph, weights, rows=rows, seq_len=seq_len, vocab=vocab, device=device, limits=limits)
    fold(program, allow)
    return program


def check(
    graph: Graph,
    weights: dict[str, torch.Tensor],
    *,
    rows: int,
    seq_len: int,
    vocab: int,
    device: torch.device,
    limits: Limits,
) -> Program:
    """Bind and dry-run within `limits`, with any vocabulary if that is 0; raises Refused. It runs once it is folded."""
    program = Program(
        nodes=_reachable(graph),
        constants=_bind(graph, weights),
        input=graph.input,
        output=graph.output,
        rows=rows,
        seq_len=seq_len,
        vocab=vocab,
        device=device,
        checks=graph.checks,
    )
    with _refusing():
        _dry_run(program, limits)
    return program


def fold(program: Program, allow: Callable[[Program], Callable[[], object]] = lambda _: lambda: None) -> None:
    """Compute what depends on weights alone; raises Refused. `allow` as in `prepare`."""
    with _refusing():
        _fold(program, allow(program))


@contextmanager
def _refusing() -> Iterator[None]:
    """An operation that rejects its arguments refuses the graph: it is hostile, or unsupported."""
    try:
        yield
    except (Refused, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise Refused(Reason.BAD_ARGUMENT, f"{type(error).__name__}: {error}"[:500]) from None


def _bind(graph: Graph, weights: dict[str, torch.Tensor]) -> dict[int, torch.Tensor]:
    missing = set(graph.weights.values()) - set(weights)
    if missing:
        raise Refused(Reason.WEIGHTS_FORMAT, f"{len(missing)} weights missing")
    return {id_: weights[name] for id_, name in graph.weights.items()}


def _reachable(graph: Graph) -> list[Node]:
    needed, keep = {graph.output, *graph.checks}, []
    for node in reversed(graph.nodes):
        if needed.intersection(range(node.first, node.first + node.outputs)):
            keep.append(node)
            needed.update(node.refs)
    return keep[::-1]


def _last_use(nodes: list[Node], keep: set[int]) -> list[list[int]]:
    """Per node, the value ids nothing after it reads (its own unread outputs included)."""
    last: dict[int, int] = {}
    for at, node in enumerate(nodes):
        last.update(dict.fromkeys(range(node.first, node.first + node.outputs), at))
        last.update(dict.fromkeys(node.refs, at))
    free: list[list[int]] = [[] for _ in nodes]
    for id_, at in last.items():
        if id_ not in keep:
            free[at].append(id_)
    return free


def _dry_run(program: Program, limits: Limits) -> None:
    """Run on fake tensors: notes what each value will be and what it costs; raises Refused above a limit."""
    varying = _varying(program)
    folded = _read_by_rest(program, varying) - varying  # computed once, then held for every pass
    free = _last_use(program.nodes, {program.output, *folded})
    work = {True: NOTHING, False: NOTHING}  # by whether the operation depends on the input
    # In inference mode, or autograd keeps the whole chain of what is a view of what: memory and time by its square.
    with FakeTensorMode() as fake, FlopCounterMode(display=False) as flops, torch.inference_mode():
        values: dict[int, torch.Tensor] = {i: fake.from_tensor(value) for i, value in program.constants.items()}
        values[program.input] = torch.empty(program.rows, program.seq_len, dtype=torch.int64, device=program.device)
        for id_, value in values.items():
            program.note(id_, value)
        live = sum(_bytes(value) for value in values.values())
        total, counted, until = 0, 0, time.process_time() + DRY_RUN_SECONDS
        for node, dead in zip(program.nodes, free, strict=True):
            bound = {k: substitute(v, values) for k, v in node.bound().items()}
            _refuse_traps(node, bound)
            read = sum(values[ref].numel() for ref in node.refs)
            written = 0
            for id_, value in node.run(values):
                _check_value(value, limits)
                values[id_] = value
                program.note(id_, value)
                live += _bytes(value)
                written += value.numel()
            total += written
            new = flops.get_total_flops() - counted
            counted += new
            new = new or hidden.flops(node.name, bound)
            done = work[node.first in varying]
            cost = ops.cost(node.name) * (read + written)
            work[node.first in varying] = Work(done.flops + new, done.elements + cost)
            spent = work[True].flops + work[False].flops
            peak = live + hidden.scratch(node.name, bound)
            if peak > limits.peak_bytes or total > limits.total_elements or spent > limits.flops:
                raise Refused(Reason.COMPUTE_LIMIT, f"live {peak} B, elements {total}, {spent} FLOPs")
            if time.process_time() > until:
                raise Refused(Reason.COMPUTE_LIMIT, f"the dry run takes more than {DRY_RUN_SECONDS:.0f} s")
            live -= sum(_bytes(values.pop(id_)) for id_ in dead if id_ in values)
        logits = values[program.output]
        expected = (program.rows, program.seq_len) + ((program.vocab,) if program.vocab > 0 else logits.shape[2:])
        if logits.dim() != 3 or tuple(logits.shape) != expected or not logits.is_floating_point():
            raise Refused(Reason.OUTPUT_SHAPE, f"{tuple(logits.shape)} {logits.dtype}")
    program.each_pass, program.folding = work[True], work[False]


def _refuse_traps(node: Node, bound: dict[str, Any]) -> None:
    if (made := _made(node.name, bound)) not in (None, node.outputs):
        raise Refused(Reason.BAD_ARGUMENT, f"{node.name} makes {made} tensors, not {node.outputs}")
    for name in ("size", "shape", "sizes"):  # a view of thousands of dimensions takes minutes to be one
        if isinstance(asked := bound.get(name), list) and len(asked) > MAX_RANK:
            raise Refused(Reason.GRAPH_LIMIT, f"{node.name} of {len(asked)} dimensions")
    if node.name == "gru" and _steps(bound) > MAX_STEPS:
        raise Refused(Reason.COMPUTE_LIMIT, f"a GRU of more than {MAX_STEPS} steps: they are run one by one")
    why = trap(node.name, bound)
    if why is not None:
        raise Refused(Reason.BAD_ARGUMENT, f"{node.name}: {why}")


def _steps(bound: dict[str, Any]) -> int:
    """How many cells a GRU is made of: steps, layers and directions."""
    shape, layers = bound["input"].shape, max(1, int(bound["num_layers"]))
    steps = shape[1] if len(shape) == 3 and bound["batch_first"] else shape[0] if shape else 0
    return int(steps) * layers * (2 if bound["bidirectional"] else 1)


def _made(name: str, bound: dict[str, Any]) -> int | None:
    """How many tensors an operation of many will make, before it makes them; None of all others."""
    x, dim = bound.get("self"), bound.get("dim", 0)
    if name not in ("unbind", "split", "chunk") or not isinstance(x, torch.Tensor) or not -x.dim() <= dim < x.dim():
        return None
    size, asked = int(x.shape[dim]), bound.get("split_size", bound.get("chunks", 1))
    if name == "unbind" or asked < 1:
        return size if name == "unbind" else None
    if name == "chunk" and size == 0:
        return int(asked)
    each: int = asked if name == "split" else max(1, -(-size // asked))
    return max(1, -(-size // each))


def _check_value(value: torch.Tensor, limits: Limits) -> None:
    if value.numel() > limits.elements or value.dim() > MAX_RANK or value.dtype not in _DTYPES:
        raise Refused(Reason.GRAPH_LIMIT, f"value {tuple(value.shape)} {value.dtype}")


def _bytes(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()


# Their result depends on the shape of their operand alone, so they are constants too. Only what is computed
# here, as the run would compute it, counts as a constant for the proof.
_SHAPE_ONLY = frozenset(["zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"])


def _fold(program: Program, after_each: Callable[[], object]) -> None:
    """Execute the part that depends on weights alone, once; keep the rest with its liveness."""
    constants, rest = program.constants, []
    kept = _read_by_rest(program, _varying(program))
    with torch.no_grad():
        for node, dead in zip(program.nodes, _last_use(program.nodes, {program.output}), strict=True):
            if all(ref in constants for ref in node.refs):
                constants.update(program.compute(node, constants))
            elif node.name in _SHAPE_ONLY:
                like = {ref: _like(program, ref) for ref in node.refs}
                constants.update(program.compute(node, like | constants))
            else:
                rest.append(node)
            after_each()
            for id_ in dead:
                if id_ not in kept:
                    constants.pop(id_, None)
    program.constants = {id_: value for id_, value in constants.items() if id_ in kept}
    program.nodes = rest
    program.free = _last_use(rest, {program.output, *program.constants})


def _read_by_rest(program: Program, varying: set[int]) -> set[int]:
    """Values read by operations that depend on the input, the output, and what is checked."""
    return {program.output, *program.checks}.union(*(node.refs for node in program.nodes if node.first in varying))


def _varying(program: Program) -> set[int]:
    """Values that depend on the input by more than its shape."""
    varying = {program.input}
    for node in program.nodes:
        if node.name not in _SHAPE_ONLY and not varying.isdisjoint(node.refs):
            varying.update(range(node.first, node.first + node.outputs))
    return varying


def _like(program: Program, id_: int) -> torch.Tensor:
    return torch.empty(program.shapes[id_], dtype=program.dtypes[id_], device=program.device)
