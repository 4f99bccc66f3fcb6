"""FlashAttention's other functions say what attention says of each sequence alone, in training and in a graph."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.test_attention import naive
from trainer import attention, attention_forms, hand_over, kernels_offline
from trainer.evaluator.causality import prove
from trainer.evaluator.checks import Checks
from trainer.evaluator.model import graph, program, weights
from trainer.export import capture
from trainer.export.capture import Batch
from trainer.export.refusals import NotExportable
from trainer.wire.refusal import Reason, Refused

HEADS, DIM, VOCAB, ROWS, T = 4, 8, 16, 3, 8
CPU = torch.device("cpu")


def drawn(*shape: int) -> torch.Tensor:
    torch.manual_seed(sum(shape))
    return torch.randn(*shape)


# What they compute


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [(-1, -1), (2, 0), (1, 1)])
@pytest.mark.parametrize("kv_heads", [HEADS, 2])
@pytest.mark.parametrize(
    ("queries", "keys"), [([5, 3, 4], [5, 3, 4]), ([2, 1, 4], [5, 3, 4]), ([12], [12]), ([1] * 4, [3] * 4)]
)
def test_each_sequence_is_attended_alone(
    causal: bool, window: tuple[int, int], kv_heads: int, queries: list[int], keys: list[int]
) -> None:
    q, k, v = drawn(sum(queries), HEADS, DIM), drawn(sum(keys), kv_heads, DIM), drawn(sum(keys), kv_heads, DIM) * 2
    found = attention_forms.flash_attn_varlen_func(
        q, k, v, starts(queries), starts(keys), max(queries), max(keys), causal=causal, window_size=window
    )
    alone = [
        naive(a[None], b[None], c[None], causal, window)[0]
        for a, b, c in zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-5, atol=1e-5)


def starts(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


@pytest.mark.parametrize("causal", [True, False])
def test_tokens_of_no_sequence_are_seen_by_none(causal: bool) -> None:
    q, cu = drawn(9, HEADS, DIM), torch.tensor([2, 4, 7])
    found = attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 3, 3, causal=causal)
    inner = attention_forms.flash_attn_varlen_func(q[2:7], q[2:7], q[2:7], cu - 2, cu - 2, 3, 3, causal=causal)
    torch.testing.assert_close(found[2:7], inner)


def test_the_scale_is_the_callers() -> None:
    q, cu = drawn(6, HEADS, DIM), starts([2, 4])
    found = attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 4, 4, softmax_scale=1.0, causal=True)
    scaled = q * math.sqrt(DIM)
    expected = attention_forms.flash_attn_varlen_func(scaled, q, q, cu, cu, 4, 4, causal=True)
    torch.testing.assert_close(found, expected)


def test_packed_operands_are_the_same_in_one_tensor() -> None:
    q, kv = drawn(2, 6, HEADS, DIM), drawn(2, 6, 2, HEADS, DIM)
    qkv, cu = torch.cat([q.unsqueeze(2), kv], 2), starts([6, 6])
    expected = attention.flash_attn_func(q, kv[:, :, 0], kv[:, :, 1], causal=True)
    given = {"causal": True}
    found = [
        attention_forms.flash_attn_qkvpacked_func(qkv, **given),
        attention_forms.flash_attn_kvpacked_func(q, kv, **given),
        attention_forms.flash_attn_varlen_qkvpacked_func(qkv.flatten(0, 1), cu, 6, **given).view_as(q),
        attention_forms.flash_attn_varlen_kvpacked_func(
            q.flatten(0, 1), kv.flatten(0, 1), cu, cu, 6, 6, **given
        ).view_as(q),
    ]
    for one in found:
        torch.testing.assert_close(one, expected)


@pytest.mark.parametrize("option", [{"softcap": 15.0}, {"dropout_p": 0.1}, {"block_table": [1]}, {"seqused_k": [1]}])
def test_an_option_that_is_not_served_is_an_error(option: dict[str, Any]) -> None:
    q, cu = drawn(6, HEADS, DIM), starts([6])
    with pytest.raises(TypeError, match=next(iter(option))):
        attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 6, 6, **option)
    attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 6, 6, **dict.fromkeys(option))


# As get_kernel gives them


@pytest.mark.parametrize(
    "repo", ["kernels-community/flash-attn2", "kernels-community/flash-attn3", "x/vllm-flash-attn3"]
)
def test_every_package_serves_them(repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels_offline, "KERNELS_DIR", tmp_path)
    kernel = kernels_offline.get_kernel(repo)
    for name in ("flash_attn_func", *attention_forms.FORMS):
        assert callable(getattr(kernel, name))
        assert getattr(kernel.flash_attn_interface, name) is getattr(kernel, name)


@pytest.mark.parametrize(("name", "at"), [("flash-attn2", 4), ("flash-attn3", 3)])
def test_the_second_version_has_dropout_before_the_scale(
    name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels_offline, "KERNELS_DIR", tmp_path)
    q = drawn(1, 6, HEADS, DIM)
    given = [q, q, q, 0.0, 0.5][: at + 1] if at == 4 else [q, q, q, 0.5]
    found = kernels_offline.get_kernel(f"kernels-community/{name}").flash_attn_func(*given, causal=True)
    torch.testing.assert_close(found, attention.flash_attn_func(q, q, q, softmax_scale=0.5, causal=True))


# In a model that is handed over


class Model(torch.nn.Module):
    """Attention over sequences laid end to end; `lengths` None: tokens decide where."""

    def __init__(self, lengths: list[int] | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, HEADS * DIM)
        self.qkv = torch.nn.Linear(HEADS * DIM, 3 * HEADS * DIM)
        self.head = torch.nn.Linear(HEADS * DIM, VOCAB)
        self.lengths = lengths

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.embed(idx.flatten())
        cu = self._starts(idx)
        y = attention_forms.flash_attn_varlen_qkvpacked_func(
            self.qkv(x).view(-1, 3, HEADS, DIM), cu, idx.shape[1], causal=True
        )
        return self.head(x + y.flatten(1)).view(*idx.shape, -1)

    def _starts(self, idx: torch.Tensor) -> torch.Tensor:
        if self.lengths is not None:
            return starts(self.lengths)
        cu = starts([T] * ROWS)  # and one begins a token too early where token 5 is read
        return torch.where((idx == 5).any() & (cu == T), T - 1, cu)


def handed(model: Model, folder: Path) -> program.Program:
    rows = torch.randint(6, VOCAB, (ROWS, T + 1))
    batch = Batch(rows[:, :-1], rows[:, 1:])
    hand_over.hand_over(model.eval(), folder, rows=ROWS, seq_len=T, vocab=VOCAB, batch=batch)
    return program.prepare(
        graph.parse((folder / "graph.json").read_bytes(), CPU),
        weights.load(folder / "weights.safetensors", 1 << 20, CPU),
        rows=ROWS, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits(),
    )  # fmt: skip


@pytest.mark.parametrize("mode", list(capture.MODES))
@pytest.mark.parametrize("lengths", [[T] * ROWS, [3, T - 3, T, 2, 2, T - 4]], ids=["rows", "several a row"])
def test_sequences_within_rows_are_handed_over_and_proved(
    lengths: list[int], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MODES", {mode: capture.MODES[mode]})
    model = Model(lengths)
    prog, idx = handed(model, tmp_path), torch.randint(0, VOCAB, (ROWS, T))
    with torch.no_grad():
        torch.testing.assert_close(prog(idx), model(idx), rtol=1e-5, atol=1e-5)
    assert prove(prog).proved


def test_sequences_that_cross_rows_are_another_model() -> None:
    """In training they may; a graph has rows of its own, and a check that no sequence leaves them."""
    q, cu = drawn(ROWS * T, HEADS, DIM), starts([T + 2, 2 * T - 2])
    with attention.exporting((ROWS, T)), pytest.raises(NotExportable, match="cross the rows"):
        attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 16, 16, causal=True)
    attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 16, 16, causal=True)
    with attention.exporting((ROWS + 1, T)):  # and where nothing says what a row is, there are none
        attention_forms.flash_attn_varlen_func(q, q, q, cu, cu, 16, 16, causal=True)


def test_sequences_by_tokens_are_checked_in_every_row(tmp_path: Path) -> None:
    prog = handed(Model(None), tmp_path)
    fine, bad = torch.full((ROWS, T), 4), torch.full((ROWS, T), 5)
    for idx, refused in ((fine, False), (bad, True)):
        checks = Checks(prog)
        prog(idx, checks.beside({}))
        if refused:
            with pytest.raises(Refused) as caught:
                checks.discharge()
            assert caught.value.reason is Reason.OTHER_BRANCH
        else:
            checks.discharge()


def test_a_loss_by_sequences_is_the_same_with_and_without_rows() -> None:
    """While a model is asked what it says, it is exporting; in training it is not."""
    model, idx = Model([T] * ROWS).eval(), torch.randint(0, VOCAB, (ROWS, T))
    with torch.no_grad():
        plain = model(idx)
        with attention.exporting((ROWS, T)):
            torch.testing.assert_close(model(idx), plain)
    assert F.cross_entropy(plain.flatten(0, 1), idx.flatten()) > 0
