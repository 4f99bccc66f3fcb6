"""Attention behind FlashAttention's interface: its semantics, which kernel is taken, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.conftest import Told
from trainer import attention

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def naive(q, k, v, causal, window):
    """Softmax attention by definition on [batch, seq, heads, dim]; a query that sees no key gets zeros."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    for i in range(q.shape[1]):
        at = i + k.shape[1] - q.shape[1]
        for j in range(k.shape[1]):
            left, right = window
            if (causal and j > at) or (left >= 0 and j < at - left) or (right >= 0 and j > at + right):
                scores[:, :, i, j] = float("-inf")
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1).nan_to_num(), v)


def drawn(queries: int = 16, keys: int = 16, kv_heads: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, queries, 4, 8), torch.randn(2, keys, kv_heads, 8), torch.randn(2, keys, kv_heads, 8)


@pytest.fixture(autouse=True)
def _compiled_by_nobody() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# What it computes


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [(-1, -1), (3, 0), (16, 0), (2, 2), (0, 0), (-1, 2)])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (5, 16), (1, 16), (16, 5)])
def test_windows_causality_grouped_heads_and_fewer_queries(
    causal: bool, window: tuple[int, int], kv_heads: int, queries: int, keys: int
) -> None:
    q, k, v = drawn(queries, keys, kv_heads)
    found = attention.flash_attn_func(q, k, v, causal=causal, window_size=window)
    torch.testing.assert_close(found, naive(q, k, v, causal, window), rtol=1e-5, atol=1e-5)


def test_the_scale_is_the_callers() -> None:
    q, k, v = drawn()
    found = attention.flash_attn_func(q, k, v, softmax_scale=0.5, causal=True)
    torch.testing.assert_close(found, naive(q * 0.5 * 8**0.5, k, v, True, (-1, -1)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, attention.flash_attn_func(q, k, v, causal=True))


@pytest.mark.parametrize(
    "option",
    [
        {"softcap": 15.0},
        {"softcap": 1.0},
        {"dropout_p": 0.1},
        {"return_attn_probs": True},
        {"alibi_slopes": torch.ones(1)},
        {"alibi_slopes": torch.zeros(4)},
        {"qv": "a tensor"},
        {"sinks": [0.0]},
    ],
)
def test_an_option_that_changes_the_result_and_is_not_served_is_an_error(option: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(option))):
        attention.flash_attn_func(*drawn(), causal=True, **option)


@pytest.mark.parametrize(
    "option",
    [{"softcap": 0.0}, {"alibi_slopes": None}, {"dropout_p": 0.0}, {"deterministic": False}, {"num_splits": 1}],
)
def test_an_option_at_its_harmless_value_passes(option: dict[str, Any]) -> None:
    q, k, v = drawn()
    found = attention.flash_attn_func(q, k, v, causal=True, **option)
    assert torch.equal(found, attention.flash_attn_func(q, k, v, causal=True))


# Which kernel is taken: tensors that say they are on a GPU, so that conditions and shapes can be seen without one


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors made meanwhile are fake, and there is a GPU of compute capability 8.0."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    with FakeTensorMode():
        yield


def on_gpu(
    dtype: torch.dtype = BF16, size: int = 64, kv_heads: int = 2, v_dtype: torch.dtype = BF16, v_size: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """16 queries of 4 heads, 12 keys and values."""
    return (
        torch.empty(2, 16, 4, size, dtype=dtype, device="cuda"),
        torch.empty(2, 12, kv_heads, size, dtype=dtype, device="cuda"),
        torch.empty(2, 12, kv_heads, v_size or size, dtype=v_dtype, device="cuda"),
    )


@pytest.mark.parametrize("case", [{}, {"dtype": F16, "v_dtype": F16}, {"size": 256}, {"size": 8}, {"kv_heads": 4}])
def test_half_precision_on_a_gpu_takes_torchs_own_kernel(ampere: None, case: dict[str, Any]) -> None:
    assert attention.has_kernel(*on_gpu(**case))


@pytest.mark.parametrize(
    "case",
    [
        {"dtype": F32, "v_dtype": F32},
        {"v_dtype": F16},  # of several types
        {"size": 264},  # too wide
        {"size": 60},  # not a multiple of eight
        {"v_size": 32},  # values of another width
        {"kv_heads": 3},  # that four heads cannot share
    ],
)
def test_what_the_kernel_does_not_serve_does_not_take_it(ampere: None, case: dict[str, Any]) -> None:
    assert not attention.has_kernel(*on_gpu(**case))


@pytest.mark.parametrize(("capability", "taken"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((12, 0), True)])
def test_a_gpu_older_than_the_kernel_does_not_take_it(
    ampere: None, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], taken: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert attention.has_kernel(*on_gpu()) is taken


def test_a_processor_has_no_kernel_and_no_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: pytest.fail("there is no GPU to ask"))
    assert not attention.has_kernel(*(x.bfloat16() for x in drawn()))


class Calls(TorchDispatchMode):
    """Remembers what is called, arguments by the names of the operation's own schema."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = [argument.name for argument in func._schema.arguments]
        self.seen.append((func._schema.name, dict(zip(names, args, strict=False)) | (kwargs or {})))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("asked", "passed"),
    [
        ({}, (False, -1, -1, None)),
        ({"causal": True}, (True, -1, 0, None)),
        ({"causal": True, "window_size": (3, 0)}, (True, 3, 0, None)),
        ({"window_size": (3, 5), "softmax_scale": 0.25}, (False, 3, 5, 0.25)),
    ],
)
def test_the_kernel_gets_every_argument_in_its_place(
    ampere: None, asked: dict[str, Any], passed: tuple[bool, int, int, float | None]
) -> None:
    q, k, v = on_gpu()
    with Calls() as calls:
        found = attention.flash_attn_func(q, k, v, **asked)
    ((called, bound),) = calls.seen
    assert called == "aten::_flash_attention_forward"
    assert [bound[name].shape for name in ("query", "key", "value")] == [(2, 16, 4, 64), (2, 12, 2, 64), (2, 12, 2, 64)]
    assert (bound["cum_seq_q"], bound["cum_seq_k"], bound["max_q"], bound["max_k"]) == (None, None, 16, 12)
    assert (bound["dropout_p"], bound["return_debug_mask"]) == (0.0, False)
    named = ("is_causal", "window_size_left", "window_size_right", "scale")
    assert tuple(bound.get(name) for name in named) == passed
    assert (found.shape, found.dtype, found.device.type) == (q.shape, BF16, "cuda")


@pytest.mark.parametrize("window", [(-1, -1), (3, 0)])
def test_the_kernel_has_a_gradient_of_the_operands_shapes(window: tuple[int, int]) -> None:
    with torch.device("meta"):
        q, k = (torch.empty(2, 16, heads, 64, dtype=BF16, requires_grad=True) for heads in (4, 2))
    attention.flash(q, k, k, None, True, *window).sum().backward()
    assert q.grad is not None
    assert k.grad is not None
    assert (q.grad.shape, k.grad.shape) == (q.shape, k.shape)


# Under autocast: torch 2.12 and newer norm in float32 there, and upstream's train.py norms queries and keys


@contextmanager
def autocast_on_a_gpu() -> Iterator[None]:
    """What `torch.autocast("cuda")` sets; itself it does nothing where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", BF16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def normed(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, (x.shape[-1],))


def test_normed_queries_and_keys_under_autocast_take_the_kernel(ampere: None) -> None:
    q, k, v = on_gpu()
    with autocast_on_a_gpu(), Calls() as calls:
        q, k = normed(q), normed(k)
        assert (q.dtype, k.dtype, v.dtype) == (F32, F32, BF16)  # or this says nothing
        found = attention.flash_attn_func(q, k, v, causal=True, window_size=(3, 0))
    assert found.dtype == BF16
    assert "aten::_flash_attention_forward" in [name for name, _ in calls.seen]


def test_float32_without_autocast_stays_float32_and_takes_no_kernel(ampere: None) -> None:
    q, k, v = on_gpu(F32, v_dtype=F32)
    with Calls() as calls:
        assert attention.flash_attn_func(q, k, v, causal=True).dtype == F32
    assert "aten::_flash_attention_forward" not in [name for name, _ in calls.seen]


def test_float64_under_autocast_is_left_alone(ampere: None) -> None:
    with autocast_on_a_gpu():
        assert attention.in_autocast(torch.empty(2, device="cuda", dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("named", [False, True])
def test_a_package_gets_normed_queries_in_autocasts_type(named: bool, told: Told) -> None:
    seen: list[dict[str, torch.dtype]] = []

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, q_descale: torch.Tensor) -> torch.Tensor:
        seen.append({"q": q.dtype, "k": k.dtype, "v": v.dtype, "scale": q_descale.dtype})
        return q

    wrapped, (q, k, v), scale = attention.unless_exporting(kernel), drawn(), torch.ones(1)
    with torch.autocast("cpu", dtype=BF16):
        wrapped(q=q, k=k, v=v.bfloat16(), q_descale=scale) if named else wrapped(q, k, v.bfloat16(), scale)
    assert seen == [{"q": BF16, "k": BF16, "v": BF16, "scale": F32}]


def test_autocast_in_a_compiled_model_breaks_no_graph(told: Told) -> None:
    q, k, v = drawn()

    def model(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=BF16):
            return attention.flash_attn_func(q, k, v, causal=True, window_size=(3, 0))

    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(q, k, v), model(q, k, v))
    assert compiled(q, k, v).dtype == BF16


# While a model is exported


def test_an_exported_graph_holds_the_public_operation_also_where_there_is_a_kernel(
    ampere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_sdpa", lambda *_: "public")
    assert isinstance(attention.flash_attn_func(*on_gpu(), causal=True), torch.Tensor)
    with attention.exporting():
        assert attention.flash_attn_func(*on_gpu(), causal=True) == "public"


def twice(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: Any) -> torch.Tensor:
    """A package's attention that nobody takes for another."""
    return v * 2


def test_a_package_gives_way_while_exporting_and_only_then(told: Told) -> None:
    q, k, v = drawn()
    served = attention.unless_exporting(twice)
    assert torch.equal(served(q, k, v, causal=True), v * 2)
    with attention.exporting():
        torch.testing.assert_close(served(q, k, v, causal=True), naive(q, k, v, True, (-1, -1)))
    assert torch.equal(served(q, k, v, causal=True), v * 2)
    assert told() == [{"event": "attention", "kind": "package"}]


def test_an_export_that_fails_is_over_all_the_same() -> None:
    q, k, v = drawn()
    with pytest.raises(ZeroDivisionError), attention.exporting():
        raise ZeroDivisionError
    assert torch.equal(attention.unless_exporting(twice)(q, k, v), v * 2)


# What is told


def kinds(told: Told) -> list[str]:
    return [event["kind"] for event in told() if event["event"] == "attention"]


def test_each_kind_is_told_once_and_nothing_is_while_exporting(told: Told) -> None:
    q, k, v = drawn()
    with attention.exporting():
        attention.flash_attn_func(q, k, v, causal=True)
    assert kinds(told) == []
    for _ in range(3):
        attention.flash_attn_func(q, k, v, causal=True)
        attention.flash_attn_func(q, k, v, causal=True, window_size=(3, 0))
    assert kinds(told) == ["sdpa", "masked"]


def test_a_window_that_hides_nothing_is_not_told_as_a_mask(told: Told) -> None:
    attention.flash_attn_func(*drawn(), causal=True, window_size=(15, 0))
    assert kinds(told) == ["sdpa"]


def test_torchs_own_kernel_is_told(ampere: None, told: Told) -> None:
    attention.flash_attn_func(*on_gpu(), causal=True)
    assert kinds(told) == ["flash"]


def test_a_compiled_model_tells_the_same_and_is_one_graph(told: Told) -> None:
    q, k, v = drawn()

    def both(q, k, v):
        wide = attention.flash_attn_func(q, k, v, causal=True)
        return wide + attention.flash_attn_func(q, k, v, causal=True, window_size=(3, 0))

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(q, k, v), naive(q, k, v, True, (-1, -1)) + naive(q, k, v, True, (3, 0)))
    assert kinds(told) == ["sdpa", "masked"]


def test_a_package_gives_way_in_a_compiled_model_too(told: Told) -> None:
    q, k, v = drawn()
    served = attention.unless_exporting(twice)
    compiled = torch.compile(lambda: served(q, k, v, causal=True), backend="eager", fullgraph=True)
    assert torch.equal(compiled(), v * 2)
    with attention.exporting():
        torch.testing.assert_close(compiled(), naive(q, k, v, True, (-1, -1)))
    assert torch.equal(compiled(), v * 2)
    assert kinds(told) == ["package"]


@pytest.mark.parametrize("window", [(-1, -1), (3, 0)])
def test_torchs_own_kernel_is_part_of_the_compiled_graph_and_told_once(
    told: Told, monkeypatch: pytest.MonkeyPatch, window: tuple[int, int]
) -> None:
    """On tensors without content, which need no GPU."""
    monkeypatch.setattr(attention, "has_kernel", lambda *_: True)
    called: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        called.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    compiled = torch.compile(
        lambda q: attention.flash_attn_func(q, q, q, causal=True, window_size=window), backend=backend, fullgraph=True
    )
    with torch.device("meta"):
        q = torch.empty(2, 16, 4, 64, dtype=BF16)
    assert compiled(q).shape == compiled(q).shape == q.shape
    assert called[0] == "aten._flash_attention_forward"
    assert kinds(told) == ["flash"]


def test_whether_a_model_is_exported_is_ours_to_say(told: Told, ampere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside torch.compile torch 2.11 said that it was exporting: compiled models on GPUs then ran with masks."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    attention.flash_attn_func(*on_gpu(), causal=True)
    assert kinds(told) == ["flash"]


@pytest.mark.parametrize("right", [0, 2, 3, 6, 7])
def test_early_queries_before_the_keys_see_no_more_than_their_window(right: int) -> None:
    """More queries than keys: the first ones stand before the first key."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 8, 2, 8), torch.randn(1, 4, 2, 8), torch.randn(1, 4, 2, 8)
    found, wanted = attention.flash_attn_func(q, k, v, window_size=(-1, right)), naive(q, k, v, False, (-1, right))
    seen = ~wanted.isnan().any(-1).any(-1)  # a query that sees no key has no answer
    torch.testing.assert_close(found[seen], wanted[seen], rtol=1e-5, atol=1e-5)
