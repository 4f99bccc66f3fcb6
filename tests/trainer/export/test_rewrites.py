"""What CUDA's dispatcher calls is written as the public operation that it implements.

The kernels need no GPU here: a model is exported on fake tensors, for which every one of these operations has a shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer import hand_over
from trainer.evaluator.model import graph, program, weights
from trainer.export.capture import MODES
from trainer.export.refusals import NotExportable, Why

ROWS, T, HEADS, DIM, VOCAB = 2, 8, 4, 8, 16
CPU = torch.device("cpu")
PUBLIC = "aten.scaled_dot_product_attention.default"
MODE = {"attention_math": "functional"}  # a recording would take it apart, on any device
aten = torch.ops.aten

Core = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    """Queries, keys and values by token, and what is made of them: [rows, T, heads * dim]."""

    def __init__(self, core: Core, kv_heads: int = HEADS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tables = torch.nn.ModuleList(torch.nn.Embedding(VOCAB, n * DIM) for n in (HEADS, kv_heads, kv_heads))
        self.mask = torch.nn.Buffer(torch.randn(T, T))
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        q, k, v = (table(idx).view(*idx.shape, -1, DIM).transpose(1, 2) for table in self.tables)
        found = self.core(q, k, v) if not getattr(self.core, "masked", False) else self.core(q, k, v, self.mask)
        return found.transpose(1, 2).reshape(ROWS, T, -1)


def masked(core: Callable[..., torch.Tensor]) -> Core:
    """A core that is given the model's mask too."""
    core.masked = True  # type: ignore[attr-defined]
    return core


def written(model: torch.nn.Module, mode: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with torch.no_grad():
        return MODES[mode](model.eval(), torch.zeros(ROWS, T, dtype=torch.int64)).document()


def parsed(document: dict[str, Any]) -> graph.Graph:
    return graph.parse(json.dumps(document).encode(), CPU)


def same(core: Core, public: Core, mode: str, kv_heads: int = HEADS, op: str = PUBLIC) -> None:
    """`core` is written as one `op`, and the evaluator computes what `public` computes, and not by default."""
    document, tensors = written(Model(core, kv_heads), mode)
    named = [node["op"] for node in document["nodes"]]
    assert named.count(op) == 1
    assert not [name for name in named if name.startswith("aten._") and ("attention" in name or "norm" in name)]
    torch.manual_seed(1)
    idx = torch.randint(0, VOCAB, (ROWS, T))
    found = program.prepare(
        parsed(document),
        tensors,
        rows=ROWS,
        seq_len=T,
        vocab=HEADS * DIM,
        device=CPU,
        limits=program.Limits(),
    )(idx)
    torch.testing.assert_close(found, Model(public, kv_heads)(idx), rtol=1e-6, atol=1e-6)


# Attention by each backend, its arguments where the dispatcher puts them

BACKENDS: dict[str, Callable[..., torch.Tensor]] = {
    "flash_attention": lambda q, k, v, mask=None, dropout=0.0, **a: aten._scaled_dot_product_flash_attention(
        q, k, v, dropout, a.get("is_causal", False), False, scale=a.get("scale")
    )[0],
    "flash_attention_for_cpu": lambda q, k, v, mask=None, dropout=0.0, **a: (
        aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, dropout, a.get("is_causal", False), attn_mask=mask, scale=a.get("scale")
        )[0]
    ),
    "efficient_attention": lambda q, k, v, mask=None, dropout=0.0, **a: aten._scaled_dot_product_efficient_attention(
        q, k, v, mask, False, dropout, a.get("is_causal", False), scale=a.get("scale")
    )[0],
    "cudnn_attention": lambda q, k, v, mask=None, dropout=0.0, **a: aten._scaled_dot_product_cudnn_attention(
        q, k, v, mask, False, dropout, a.get("is_causal", False), False, scale=a.get("scale")
    )[0],
    "fused_attention_overrideable": lambda q, k, v, mask=None, dropout=0.0, **a: (
        aten._scaled_dot_product_fused_attention_overrideable(
            q, k, v, mask, dropout, a.get("is_causal", False), False, scale=a.get("scale")
        )[0]
    ),
    "attention_math": lambda q, k, v, mask=None, dropout=0.0, **a: aten._scaled_dot_product_attention_math(
        q, k, v, mask, dropout, a.get("is_causal", False), None, scale=a.get("scale"), enable_gqa=a.get("gqa", False)
    )[0],
}
TAKE_A_MASK = [name for name in BACKENDS if name != "flash_attention"]


def public(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, **a: Any) -> Any:
    gqa = a.pop("gqa", False)
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=gqa, **a)


def test_every_backend_of_attention_in_this_torch_is_known_here() -> None:
    """A torch with another one fails here, and not first on somebody's GPU."""
    prefix = "aten::_scaled_dot_product_"
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith(prefix)}
    forward = {name.removeprefix(prefix) for name in names if not name.endswith("_backward")}
    assert forward == {*BACKENDS, "attention_math_for_mps"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("given", [{}, {"is_causal": True}, {"is_causal": True, "scale": 0.3}, {"scale": 2.0}])
def test_causality_and_scale_survive(backend: str, given: dict[str, Any]) -> None:
    same(
        lambda q, k, v: BACKENDS[backend](q, k, v, **given),
        lambda q, k, v: public(q, k, v, **given),
        MODE.get(backend, "direct"),
    )


@pytest.mark.parametrize("backend", TAKE_A_MASK)
@pytest.mark.parametrize("given", [{}, {"scale": 0.3}])
def test_a_mask_survives(backend: str, given: dict[str, Any]) -> None:
    wide = (ROWS, HEADS, T, T)  # as CUDA's dispatcher hands it to its backends
    same(
        masked(lambda q, k, v, mask: BACKENDS[backend](q, k, v, mask.expand(wide), **given)),
        masked(lambda q, k, v, mask: public(q, k, v, mask, **given)),
        MODE.get(backend, "direct"),
    )


def test_grouped_heads_survive_where_the_backend_is_told_of_them() -> None:
    given = {"is_causal": True, "gqa": True}
    same(
        lambda q, k, v: BACKENDS["attention_math"](q, k, v, **given),
        lambda q, k, v: public(q, k, v, **given),
        "functional",
        kv_heads=2,
    )


@pytest.mark.parametrize("other", [{}, {"is_causal": True, "scale": 0.3}, {"is_causal": True, "mask": True}])
def test_the_comparison_above_sees_an_argument_that_is_lost(other: dict[str, Any]) -> None:
    given = {"is_causal": True}
    lost = dict(other)
    core = masked(public) if lost.pop("mask", False) else None
    with pytest.raises(AssertionError):
        same(
            lambda q, k, v: BACKENDS["efficient_attention"](q, k, v, **given),
            core or (lambda q, k, v: public(q, k, v, **lost)),
            "direct",
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_with_dropout_is_refused_and_without_it_is_not(backend: str) -> None:
    mode = MODE.get(backend, "direct")
    with pytest.raises(NotExportable, match="dropout") as caught:
        written(Model(lambda q, k, v: BACKENDS[backend](q, k, v, dropout=0.1)), mode)
    assert caught.value.why is Why.UNSUPPORTED_OP
    parsed(written(Model(lambda q, k, v: BACKENDS[backend](q, k, v, dropout=0.0)), mode)[0])


def test_a_mask_of_dropout_is_dropout_too() -> None:
    def core(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = (mask > 0).expand(ROWS, HEADS, T, T)
        found: torch.Tensor = aten._scaled_dot_product_attention_math(q, k, v, None, 0.0, False, kept)[0]
        return found

    with pytest.raises(NotExportable, match="dropout"):
        written(Model(masked(core)), "functional")


# The norm that CUDA calls


@pytest.mark.parametrize("eps", [None, 1e-5, 0.5])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_fused_norm_is_written_as_the_public_one(eps: float | None, weighted: bool) -> None:
    def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = aten._fused_rms_norm(q, [DIM], mask[0] if weighted else None, eps)[0]
        return found

    same(
        masked(fused),
        masked(lambda q, k, v, mask: F.rms_norm(q, (DIM,), mask[0] if weighted else None, eps)),
        "functional",
        op="aten.rms_norm.default",
    )


# What a backend returns besides


@pytest.mark.parametrize("read", [lambda found: found[0] + found[1].unsqueeze(-1), lambda found: found[1]])
def test_the_rest_of_what_a_backend_returns_cannot_be_read(read: Callable[[Any], torch.Tensor]) -> None:
    def reads(read: Callable[[Any], torch.Tensor]) -> torch.nn.Module:
        class Reads(Model):
            def forward(self, idx: torch.Tensor) -> torch.Tensor:
                q, k, v = (table(idx).view(*idx.shape, -1, DIM).transpose(1, 2) for table in self.tables)
                return read(aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True))

        return Reads(public)

    parsed(written(reads(lambda found: found[0]), "direct")[0])
    with pytest.raises(NotExportable, match="beside its result"):
        written(reads(read), "direct")


def test_grouped_heads_survive_where_the_backend_has_no_word_for_them() -> None:
    """What torch's dispatcher calls for them in a recording: fewer keys than queries, and no more."""

    def grouped(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    same(grouped, grouped, "direct", kv_heads=2)


def test_a_mask_of_booleans_in_the_plain_kernels_own_call_is_refused() -> None:
    """It adds them as 0 and 1; the public operation takes them for a mask."""

    def direct(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = aten._scaled_dot_product_attention_math(q, k, v, mask > 0)[0]
        return found

    with pytest.raises(NotExportable, match="never calls it"):
        written(Model(masked(direct)), "functional")


# Layers in other words


def equal(layer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Embedded tokens [ROWS, T, HEADS * DIM] through a layer, in eager mode and as the evaluator computes it."""

    class Layer(Model):
        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = layer(self.tables[0](idx))
            return found.reshape(ROWS, T, -1)

    model = Layer(public).eval()
    document, tensors = written(model, "functional")
    idx = torch.randint(0, VOCAB, (ROWS, T))
    vocab = model(idx).shape[-1]
    prog = program.prepare(
        parsed(document), tensors, rows=ROWS, seq_len=T, vocab=vocab, device=CPU, limits=program.Limits()
    )
    torch.testing.assert_close(prog(idx), model(idx), rtol=1e-5, atol=1e-5)


def norm(mean: float, var: float) -> Callable[[torch.Tensor], torch.Tensor]:
    layer = torch.nn.BatchNorm1d(HEADS * DIM).eval()
    layer.running_mean, layer.running_var = torch.full((HEADS * DIM,), mean), torch.full((HEADS * DIM,), var)
    return lambda x: layer((x * var**0.5 + mean).mT).mT


LAYERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "batch norm": norm(0.5, 2.0),
    "batch norm far from zero": norm(1000.0, 0.01),
    "a pool of one size for two dimensions": lambda x: F.max_pool2d(x, (3,), (1,), (1,)),
    "a pool of two": lambda x: F.max_pool2d(x, (1, 2), (1, 2)).repeat(1, 1, 2),
    "a mean of two dimensions": lambda x: F.avg_pool2d(F.pad(x, (0, 0, 1, 1)), (3, 1), 1),
    "a padded mean that counts the padding": lambda x: F.avg_pool1d(x, 3, 1, 1),
    "buckets to the right": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0]), right=True).float(),
    "buckets to the left": lambda x: torch.bucketize(x.round(), torch.tensor([-1.0, 0.0, 1.0])).float(),
    "bags of one size": lambda x: F.embedding_bag(
        torch.arange(ROWS * T).reshape(-1, 2) % 5, torch.eye(5, HEADS * DIM), mode="mean"
    ).repeat(2, 1).view(ROWS, T, -1) + x,
    "a row that a float mask hides whole": lambda x: F.scaled_dot_product_attention(
        x, x, x, torch.zeros(T, T).masked_fill(torch.ones(T, T).triu(1) > 0, -1e9).index_fill(0, torch.tensor([2]), -torch.inf)
    ),
    "the largest of all": lambda x: x - x.max() + torch.maximum(x, x.min()),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_other_words_says_the_same(name: str) -> None:
    equal(LAYERS[name])


def test_bags_of_several_sizes_are_refused() -> None:
    offsets = torch.tensor([0, 8, 10, 12])
    with pytest.raises(NotExportable):
        equal(lambda x: x + F.embedding_bag(torch.arange(16) % T, x[0], offsets)[:1])


# What CUDA makes of recurrent cells


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [torch.nn.LSTMCell, torch.nn.GRUCell])
def test_a_fused_cell_computes_what_a_cell_does(kind: type[torch.nn.LSTMCell], bias: bool, tmp_path: Path) -> None:
    class Fused(torch.nn.Module):
        """A cell over the tokens of a row at once; `fused` says by which operation."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.cell, self.fused = torch.nn.Embedding(VOCAB, VOCAB), kind(VOCAB, VOCAB, bias), False

        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            x, cell = self.embed(idx.flatten()), self.cell
            hidden, before = x.roll(1, 1), x.flip(1)
            lstm = kind is torch.nn.LSTMCell
            if not self.fused:
                found = cell(x, (hidden, before) if lstm else hidden)
            else:
                gates = F.linear(x, cell.weight_ih), F.linear(hidden, cell.weight_hh)
                biases = (cell.bias_ih, cell.bias_hh) if bias else (None, None)
                op = aten._thnn_fused_lstm_cell if lstm else aten._thnn_fused_gru_cell
                found = op(*gates, before if lstm else hidden, *biases)[: 2 if lstm else 1]
            return (found[0] + 2 * found[1] if lstm else found[0] if self.fused else found).view(*idx.shape, -1)

    model, idx = Fused().eval(), torch.randint(0, VOCAB, (ROWS, T))
    with torch.no_grad():
        expected = model(idx)
    model.fused = True
    document, tensors = written(model, "direct")
    hand_over._write_weights(tmp_path / "weights", tensors)
    loaded = weights.load(tmp_path / "weights", 1 << 20, CPU)
    prog = program.prepare(
        parsed(document), loaded, rows=ROWS, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits()
    )
    torch.testing.assert_close(prog(idx), expected)
