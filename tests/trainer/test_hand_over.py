"""A model is handed over as it was scored by its own train.py: its autocast, its attention, whatever the caller is in."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.evaluator import zoo
from tests.trainer.conftest import Told
from trainer import attention, hand_over
from trainer.evaluator.model import graph, program, weights
from trainer.export import capture
from trainer.export.refusals import NotExportable, Why
from trainer.wire import variables

CPU = torch.device("cpu")
ROWS = 2


def graph_of(folder: Path) -> list[dict[str, Any]]:
    """The operations that were handed over."""
    nodes: list[dict[str, Any]] = json.loads((folder / "graph.json").read_bytes())["nodes"]
    return nodes


def logits_of(folder: Path, idx: torch.Tensor) -> torch.Tensor:
    """What the evaluator computes of a hand-over."""
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 30, CPU)
    return program.prepare(
        parsed, tensors, rows=ROWS, seq_len=zoo.SEQ, vocab=zoo.VOCAB, device=CPU, limits=program.Limits()
    )(idx)


@pytest.fixture
def idx() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, zoo.VOCAB, (ROWS, zoo.SEQ))


@pytest.fixture(params=list(capture.MODES))
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One way of exporting alone."""
    monkeypatch.setattr(capture, "MODES", {request.param: capture.MODES[request.param]})
    return str(request.param)


# The caller's autocast


@pytest.mark.parametrize("autocast", [True, False])
def test_the_dry_run_is_of_the_program_and_not_under_the_callers_autocast(
    mode: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autocast: bool
) -> None:
    """Under autocast it would be a dry run of another program: the casts are in the graph already."""
    under: list[bool] = []
    real = program.check

    def check(*args: Any, **more: Any) -> None:
        under.append(torch.is_autocast_enabled("cpu"))
        real(*args, **more)

    monkeypatch.setattr(program, "check", check)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        hand_over.hand_over(zoo.FAMILIES["sdpa"](), tmp_path, rows=ROWS, seq_len=zoo.SEQ)
        assert torch.is_autocast_enabled("cpu") is autocast
    assert under == [False]
    casts = [node for node in graph_of(tmp_path) if node.get("k", {}).get("dtype") == {"d": "bfloat16"}]
    assert bool(casts) is autocast


def test_what_is_evaluated_is_what_the_caller_computed_under_autocast(
    mode: str, told: Told, tmp_path: Path, idx: torch.Tensor
) -> None:
    torch.manual_seed(1)
    model = zoo.FAMILIES["sdpa"]().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hand_over.hand_over(model, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
        with torch.no_grad():
            expected = model(idx)
    with torch.no_grad():
        plain = model(idx)
    # The evaluator sums products of half precision in float32: some logits differ in their last bit.
    found = logits_of(tmp_path, idx)
    assert (found == expected).float().mean() > 0.5
    assert (plain == expected).float().mean() < 0.1


# Attention while a model is handed over


class Attends(torch.nn.Module):
    """Nothing but attention of a pluggable kind with a window."""

    def __init__(self, attend: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.embed = torch.nn.Embedding(zoo.VOCAB, 3 * zoo.VOCAB)
        self.attend = attend

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        q, k, v = self.embed(idx).view(*idx.shape, 3, 4, -1).unbind(2)
        return self.attend(q, k, v, causal=True, window_size=(8, 0)).flatten(2)


def never(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("a package's kernel was called while a model was handed over")


@pytest.mark.parametrize("compiled", [True, False])
def test_a_package_gives_way_and_the_graph_holds_the_public_operation(
    told: Told, tmp_path: Path, idx: torch.Tensor, compiled: bool
) -> None:
    model: Any = Attends(attention.unless_exporting(never))
    hand_over.hand_over(torch.compile(model) if compiled else model, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    assert "aten.scaled_dot_product_attention.default" in {node["op"] for node in graph_of(tmp_path)}
    expected = Attends(attention.flash_attn_func)(idx)
    torch.testing.assert_close(logits_of(tmp_path, idx), expected)
    assert [event["event"] for event in told()] == ["phase", "attention"]  # the second by the line above


def test_after_a_hand_over_that_failed_the_package_is_used_again(told: Told, tmp_path: Path) -> None:
    def twice(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **_: Any) -> torch.Tensor:
        return v * 2

    class Draws(Attends):
        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            logits = super().forward(idx)
            return logits + torch.rand_like(logits)

    served = attention.unless_exporting(twice)
    with pytest.raises(NotExportable) as caught:
        hand_over.hand_over(Draws(served), tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    assert caught.value.why is Why.RANDOM
    assert told()[-1] == {"event": "not_exportable", "reason": "random_numbers", "op": "rand_like"}
    x = torch.ones(1, 4, 4, 16)
    assert torch.equal(served(x, x, x, causal=True), x * 2)


# The rehearsal, while the room waits for its work


def test_the_rehearsal_sees_no_gpu_and_hides_it_from_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What train.py says of its allocator counts as long as CUDA is not initialised."""
    asked: list[str] = []
    seen: list[bool] = []
    real = hand_over.MODES["functional"]

    def is_available() -> bool:
        asked.append("driver")
        return True

    def functional(*args: Any) -> Any:
        seen.append(torch.cuda.is_available())
        return real(*args)

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setitem(hand_over.MODES, "functional", functional)
    hand_over.rehearse()
    assert seen == [False]
    assert asked == []
    assert torch.cuda.is_available is is_available


def test_a_rehearsal_that_fails_hides_the_gpu_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    before = torch.cuda.is_available
    monkeypatch.setitem(hand_over.MODES, "functional", broken)
    with pytest.raises(ZeroDivisionError):
        hand_over.rehearse()
    assert torch.cuda.is_available is before


def test_the_rehearsal_leaves_the_random_numbers_as_they_are() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    hand_over.rehearse()
    assert torch.equal(torch.get_rng_state(), before)


# What is given to evaluate_bpb


def test_torchs_own_wrappers_are_taken_off_and_nobody_elses(tmp_path: Path) -> None:
    net = zoo.FAMILIES["sdpa"]().eval()

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = self.module = net

        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.module(idx) * 2
            return found

    averaged, parallel = torch.optim.swa_utils.AveragedModel(net), torch.nn.DataParallel(net)
    assert hand_over.unwrap(torch.compile(parallel)) is net
    assert hand_over.unwrap(averaged) is averaged.module
    for kept in (Own(), torch.nn.Sequential(OrderedDict(module=net, tanh=torch.nn.Tanh()))):
        assert hand_over.unwrap(kept) is kept
    hooked = torch.nn.DataParallel(net)
    hooked.register_forward_hook(lambda *_: None)
    assert hand_over.unwrap(hooked) is hooked


def test_a_function_of_tokens_is_a_model(tmp_path: Path, idx: torch.Tensor) -> None:
    net = zoo.FAMILIES["sdpa"]().eval()
    hand_over.hand_over(lambda tokens: net(tokens) * 2, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    torch.testing.assert_close(logits_of(tmp_path, idx), net(idx) * 2)


def test_of_several_hand_overs_the_last_that_succeeds_counts(tmp_path: Path, idx: torch.Tensor) -> None:
    one, two = zoo.FAMILIES["sdpa"]().eval(), zoo.FAMILIES["einsum"]().eval()
    for net in (one, two):
        hand_over.hand_over(net, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    with pytest.raises(NotExportable):
        hand_over.hand_over(lambda tokens: two(tokens) + torch.rand(1), tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    torch.testing.assert_close(logits_of(tmp_path, idx), two(idx))


def test_what_the_policy_does_not_admit_is_refused_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = zoo.FAMILIES["sdpa"]().eval()
    monkeypatch.setenv(variables.LIMITS, json.dumps({"weight_bytes": 1000, "threads": 3}))
    with pytest.raises(NotExportable, match="weights of 0 MiB, at most 0 are admitted") as caught:
        hand_over.hand_over(net, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    assert caught.value.why is Why.LIMIT
    monkeypatch.setenv(variables.LIMITS, json.dumps({"elements": 10}))
    with pytest.raises(NotExportable):
        hand_over.hand_over(net, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
    monkeypatch.setenv(variables.LIMITS, json.dumps({"weight_bytes": 1 << 20}))
    hand_over.hand_over(net, tmp_path, rows=ROWS, seq_len=zoo.SEQ)
