"""A forward pass that is recorded while it runs says what it does, leaves nothing behind, and is refused where Python
reads what no recording hears."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.core.base.mountable import SOURCE
from trainer import hand_over
from trainer.evaluator.causality import prove
from trainer.evaluator.model import graph, program, weights
from trainer.export import direct
from trainer.export.capture import Batch, Logits
from trainer.export.refusals import NotExportable, Why

VOCAB, DIM, T, ROWS = 16, 8, 6, 2
CPU = torch.device("cpu")
Core = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    """Embeddings, `core(model, x, idx)`, logits by the same table: one parameter under two names."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, DIM)
        self.head = torch.nn.Linear(DIM, VOCAB, bias=False)
        self.head.weight = self.embed.weight
        self.gate = torch.nn.Linear(DIM, DIM)
        self.stat = torch.nn.Buffer(torch.ones(DIM))
        self.plain = torch.linspace(0.5, 1.5, DIM)  # neither parameter nor buffer
        self.seen: Any = None
        self.many: list[Any] = [1]
        self.cache: dict[int, Any] = {}
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.head(self.core(self, self.embed(idx), idx))


def loop(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """A recurrence that writes into what it allocated."""
    out, h = torch.empty_like(x), x.new_zeros(x.shape[0], DIM)
    for t in range(x.shape[1]):
        h = torch.tanh(m.gate(h) + x[:, t])
        out[:, t] = h
    return out


def views(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """What is written through one view is seen through all others."""
    y = x * 2
    left, right = y.chunk(2, -1)
    left.mul_(right)
    y[:, 1:].add_(y[:, :-1].clone())
    return y + left.repeat(1, 1, 2)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * 2


HONEST: dict[str, Core] = {
    "a loop that writes": loop,
    "views": views,
    "a tensor that is no buffer": lambda m, x, idx: x * m.plain.abs()[:DIM],
    "a function of its own": lambda m, x, idx: Doubled.apply(x),  # type: ignore[no-untyped-call]
    "checkpointed": lambda m, x, idx: torch.utils.checkpoint.checkpoint(m.gate, x, use_reentrant=False),
    "compiled inside": lambda m, x, idx: torch.compile(m.gate)(x),
    "a buffer that is read": lambda m, x, idx: x * m.stat,
    "a mask of constants": lambda m, x, idx: x[:, torch.arange(T) < T] * 2,
}


def recorded(core: Core) -> Any:
    with torch.no_grad():
        return direct.record(Logits(Model(core), "cpu", None).eval(), torch.zeros(ROWS, T, dtype=torch.int64))


def as_program(recording: Any, folder: Path) -> program.Program:
    document, tensors = recording.document()
    hand_over._write_weights(folder / "weights", tensors)
    parsed = graph.parse(json.dumps(document).encode(), CPU)
    return program.prepare(
        parsed, weights.load(folder / "weights", 1 << 20, CPU),
        rows=ROWS, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits(),
    )  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_what_was_recorded_says_of_other_tokens_what_the_model_says(name: str, tmp_path: Path) -> None:
    idx = torch.randint(0, VOCAB, (ROWS, T))
    prog = as_program(recorded(HONEST[name]), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(prog(idx), Model(HONEST[name]).eval()(idx), rtol=1e-6, atol=1e-6)


def test_recurrent_layers_are_written_out(tmp_path: Path) -> None:
    class Recurrent(Model):
        def __init__(self) -> None:
            super().__init__(lambda m, x, idx: m.rnn(x)[0])
            self.rnn = torch.nn.LSTM(DIM, DIM, batch_first=True)

    model, idx = Recurrent().eval(), torch.randint(0, VOCAB, (ROWS, T))
    with torch.no_grad():
        prog = as_program(direct.record(Logits(model, "cpu", None).eval(), idx), tmp_path)
        torch.testing.assert_close(prog(idx), model(idx))
    assert prove(prog).proved


def test_nothing_of_the_model_is_changed() -> None:
    def writes(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        m.seen = x.mean()
        m.fresh = x
        m.many.append(x)
        m.cache[T] = x
        m.stat.mul_(2)
        m.plain.mul_(2)
        return x

    model = Model(writes).eval()
    with torch.no_grad():
        direct.record(model, torch.zeros(ROWS, T, dtype=torch.int64))
    assert model.seen is None
    assert (model.many, model.cache) == ([1], {})
    assert not hasattr(model, "fresh")
    assert torch.equal(model.stat, torch.ones(DIM))
    assert torch.equal(model.plain, torch.linspace(0.5, 1.5, DIM))
    assert type(model.head.weight) is torch.nn.Parameter
    assert model.head.weight is model.embed.weight


def test_a_module_of_several_names_is_the_same_afterwards(tmp_path: Path) -> None:
    class Shared(Model):
        def __init__(self) -> None:
            super().__init__(lambda m, x, idx: m.again[1](m.again[0](m.gate(x))))
            self.again = torch.nn.ModuleList([self.gate, self.gate])
            self.fast = torch.compile(self.gate)

    model, idx = Shared().eval(), torch.randint(0, VOCAB, (ROWS, T))
    with torch.no_grad():
        expected = model(idx)
        prog = as_program(direct.record(Logits(model, "cpu", None).eval(), idx), tmp_path)
        torch.testing.assert_close(prog(idx), expected)
        torch.testing.assert_close(model(idx), expected)
    assert type(model.gate.weight) is torch.nn.Parameter


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_how_precise_products_are_is_nobodys_business_here(precision: str) -> None:
    """torch refuses to read one of its two ways to say it once the other was used."""
    script = f"""
import torch
from tests.trainer.export.test_direct import loop, recorded
torch.backends.cudnn.fp32_precision = {precision!r}
recorded(loop)
assert torch._C._get_cudnn_enabled() and torch._C._get_mkldnn_enabled()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=SOURCE)


def state(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    m.stat.add_(1)
    return x * m.stat


def written_through_a_view(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    m.stat[:2].copy_(x.mean((0, 1))[:2])
    return x * m.stat


def a_plain_tensor(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    m.plain += x.mean((0, 1))
    return x * m.plain


def counts(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    return x * x[idx == 3].shape[0]


def places(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    return x * (idx == 3).nonzero().shape[0]


def selected(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    return x * idx.masked_select(idx == 3).numel()


def assigned(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[idx == 3] = 1.0
    return x


@pytest.mark.parametrize(
    ("core", "why"),
    [
        (state, Why.MUTATION),
        (written_through_a_view, Why.MUTATION),
        (a_plain_tensor, Why.MUTATION),
        (lambda m, x, idx: x + idx.mul_(1).unsqueeze(-1), Why.MUTATION),
        (counts, Why.DATA_DEPENDENT),
        (places, Why.DATA_DEPENDENT),
        (selected, Why.DATA_DEPENDENT),
        (lambda m, x, idx: x * x.sum().item(), Why.CONTROL_FLOW),
        (lambda m, x, idx: x * int(idx.max()), Why.CONTROL_FLOW),
        (lambda m, x, idx: x * len(set(idx.flatten().tolist())), Why.CONTROL_FLOW),
        (lambda m, x, idx: x * float(idx.numpy().sum()), Why.CONTROL_FLOW),
        (lambda m, x, idx: x * float(np.asarray(m.stat).sum()), Why.CONTROL_FLOW),
        (lambda m, x, idx: x * float(idx.data_ptr()), Why.CONTROL_FLOW),
        (lambda m, x, idx: torch.nn.functional.dropout(x, 0.5, training=True), Why.RANDOM),
    ],
    ids=[
        "state",
        "a view of a buffer",
        "a plain tensor",
        "its input",
        "counted",
        "places",
        "selected",
        "item",
        "int",
        "list",
        "numpy",
        "array",
        "address",
        "noise",
    ],
)
def test_what_no_straight_line_says_is_refused(core: Core, why: Why) -> None:
    with pytest.raises(NotExportable) as caught:
        recorded(core)
    assert caught.value.why is why


def test_a_buffer_that_is_overwritten_before_it_is_read_is_no_state(tmp_path: Path) -> None:
    def scratch(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        m.stat.copy_(x[0, 0])
        return x * 2

    prog = as_program(recorded(scratch), tmp_path)
    assert torch.equal(prog(torch.ones(ROWS, T, dtype=torch.int64)), prog(torch.ones(ROWS, T, dtype=torch.int64)))


def test_two_layers_that_loop_over_more_positions_than_was_ever_admitted(tmp_path: Path) -> None:
    """More than 20,000 operations, where the end was until November 2026."""
    torch.manual_seed(0)
    seq, width = 1150, 4

    class Looped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(VOCAB, width)
            self.gates = torch.nn.ModuleList(torch.nn.Linear(width, 4 * width) for _ in range(2))
            self.head = torch.nn.Linear(width, VOCAB)

        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            x = self.embed(idx)
            for gates in self.gates:
                new, forget, enter, leave = gates(x).sigmoid().chunk(4, -1)
                h, given = torch.zeros_like(x[:, 0]), []
                for t in range(idx.shape[1]):
                    h = forget[:, t] * h + enter[:, t] * new[:, t]
                    given.append(leave[:, t] * h.tanh())
                x = x + torch.stack(given, 1)
            return self.head(x)

    model, rows = Looped().eval(), torch.randint(0, VOCAB, (ROWS, seq + 1))
    batch = Batch(rows[:, :-1], rows[:, 1:])
    hand_over.hand_over(model, tmp_path, rows=ROWS, seq_len=seq, vocab=VOCAB, batch=batch)
    prog = program.prepare(
        graph.parse((tmp_path / "graph.json").read_bytes(), CPU),
        weights.load(tmp_path / "weights.safetensors", 1 << 20, CPU),
        rows=ROWS, seq_len=seq, vocab=VOCAB, device=CPU, limits=program.Limits(),
    )  # fmt: skip
    assert len(prog.nodes) > 20_000
    assert prove(prog).proved
    other = torch.randint(0, VOCAB, (ROWS, seq))
    with torch.no_grad():
        torch.testing.assert_close(prog(other), model(other))
