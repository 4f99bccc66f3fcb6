"""The logits that are handed over are those that the model's own loss is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.conftest import Told
from trainer import asking, hand_over
from trainer.evaluator.model import graph, program, weights
from trainer.export import capture
from trainer.export.capture import Batch
from trainer.export.refusals import NotExportable, Why

VOCAB, T, ROWS = 16, 8, 2
CPU = torch.device("cpu")
Loss = Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor]


class Model(torch.nn.Module):
    """`plain` of the logits without targets, `loss` of them with."""

    def __init__(self, plain: Callable[[torch.Tensor], Any], loss: Loss) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(VOCAB, VOCAB)
        self.plain, self.loss = plain, loss

    def forward(self, idx: torch.Tensor, targets: torch.Tensor | None = None, reduction: str = "mean") -> Any:
        logits = self.table(idx)
        return self.plain(logits) if targets is None else self.loss(logits, targets, reduction)


def plainly(z: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
    return F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction=reduction)


def tokens(seed: int) -> Batch:
    torch.manual_seed(seed)
    rows = torch.randint(0, VOCAB, (3, T + 1))
    return Batch(rows[:, :-1], rows[:, 1:])


def handed(model: torch.nn.Module, folder: Path) -> program.Program:
    hand_over.hand_over(model.eval(), folder, rows=ROWS, seq_len=T, vocab=VOCAB, batch=tokens(1))
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 20, CPU)
    return program.prepare(parsed, tensors, rows=ROWS, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits())


def score(prog: program.Program, batch: Batch) -> float:
    logits = prog(batch.inputs[:ROWS].contiguous())
    return float(F.cross_entropy(logits.flatten(0, 1), batch.targets[:ROWS].flatten()))


SAME = lambda z: z  # noqa: E731
PATHS: dict[str, tuple[Callable[[torch.Tensor], Any], Loss]] = {
    "the same": (SAME, plainly),
    "the last position alone without targets": (lambda z: z[:, [-1]], plainly),
    "a temperature": (SAME, lambda z, y, r: plainly(z / 2, y, r)),
    "a softcap": (SAME, lambda z, y, r: plainly(3 * torch.tanh(z / 3), y, r)),
    "logits in another order of dimensions": (SAME, lambda z, y, r: F.cross_entropy(z.mT * 0.7, y, reduction=r)),
    "nothing without targets": (lambda z: None, plainly),
    "a second loss beside it": (
        SAME,
        lambda z, y, r: plainly(z * 0.8, y, r) + 0 * F.cross_entropy(z[:, 0], y[:, 0]),
    ),
    "by keyword": (SAME, lambda z, y, r: F.cross_entropy(input=z.flatten(0, 1) / 3, target=y.flatten(), reduction=r)),
}


@pytest.mark.parametrize("name", PATHS)
def test_the_score_is_what_the_model_says_of_other_tokens_too(name: str, tmp_path: Path, told: Told) -> None:
    model, other = Model(*PATHS[name]).eval(), tokens(2)
    expected = float(model(other.inputs[:ROWS], other.targets[:ROWS], "none").mean())
    assert score(handed(model, tmp_path), other) == pytest.approx(expected, rel=1e-6)
    assert [event["event"] for event in told()] == ["phase"]


class Heads(Model):
    """A second head, before or after the first, of other targets: whichever is last, the main one is meant."""

    def __init__(self, kind: str) -> None:
        super().__init__(SAME, plainly)
        self.kind, self.other = kind, torch.nn.Embedding(VOCAB, VOCAB)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor | None = None, reduction: str = "mean") -> Any:
        logits = self.table(idx) * 0.7
        if targets is None:
            return None if self.kind == "nothing plain" else logits
        ahead = self.other(idx) + self.table(targets)  # sees what it is to be told next but one
        if self.kind == "first":
            plainly(ahead, targets.roll(-1, 1), "mean")
            return plainly(logits, targets, reduction)
        main = plainly(logits, targets, reduction)
        extra = plainly(ahead, targets.roll(-1, 1), "mean")
        return main + 0.3 * extra if self.kind == "added" else main


@pytest.mark.parametrize("kind", ["first", "last", "nothing plain", "added"])
def test_another_heads_loss_is_not_taken_for_the_models(kind: str, tmp_path: Path) -> None:
    model, other = Heads(kind).eval(), tokens(2)
    expected = plainly(model.table(other.inputs[:ROWS]) * 0.7, other.targets[:ROWS], "mean")
    assert score(handed(model, tmp_path), other) == pytest.approx(float(expected), rel=1e-6)


def test_a_loss_of_tokens_in_another_order_is_not_read_in_ours(tmp_path: Path, told: Told) -> None:
    def turned(z: torch.Tensor, y: torch.Tensor, reduction: str) -> torch.Tensor:
        found = plainly(z.transpose(0, 1) * 1.0, y.t(), reduction)
        return found.view(y.shape[1], -1).t().flatten() if reduction == "none" else found

    model, other = Model(SAME, turned), tokens(2)
    expected = plainly(model.table(other.inputs[:ROWS]), other.targets[:ROWS], "mean")
    assert score(handed(model, tmp_path), other) == pytest.approx(float(expected), rel=1e-6)


def test_nothing_of_the_model_is_other_than_before(tmp_path: Path) -> None:
    class Counts(Model):
        def __init__(self) -> None:
            super().__init__(SAME, plainly)
            self.register_buffer("calls", torch.zeros(()))
            self.drop = torch.nn.Dropout(0.1)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().forward(*args, **kwargs)

    model = Counts().eval()
    model.drop.train()
    batch = tokens(1)
    before = torch.get_rng_state()
    hand_over.hand_over(model, tmp_path, rows=ROWS, seq_len=T, vocab=VOCAB, batch=batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert (float(model.calls), model.training, model.drop.training) == (0.0, False, True)


def test_a_model_that_says_something_else_the_second_time_is_refused(tmp_path: Path) -> None:
    class Remembers(Model):
        memory: Any = 0.0

        def forward(self, idx: torch.Tensor, targets: torch.Tensor | None = None, reduction: str = "mean") -> Any:
            logits = self.table(idx) + self.memory
            self.memory = logits.detach() * 0.5 + 1
            return logits if targets is None else plainly(logits, targets, reduction)

    with pytest.raises(NotExportable) as caught:
        handed(Remembers(SAME, plainly), tmp_path)
    assert caught.value.why is Why.MUTATION


UNLIKE: dict[str, Loss] = {
    "a z-loss": lambda z, y, r: plainly(z, y, r) + 0.1 * z.logsumexp(-1).square().flatten(),
    "label smoothing": lambda z, y, r: F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction=r, label_smoothing=0.2),
    "a loss by hand of scaled logits": lambda z, y, r: -(z * 3).log_softmax(-1).gather(-1, y[..., None]).flatten(),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_a_loss_that_is_no_cross_entropy_of_logits_is_said(name: str, tmp_path: Path, told: Told) -> None:
    prog = handed(Model(SAME, UNLIKE[name]), tmp_path)
    assert score(prog, tokens(2)) == pytest.approx(score(handed(Model(SAME, plainly), tmp_path), tokens(2)))
    assert [event.get("message") for event in told() if event["event"] == "crash"] == [
        "the loss is not the cross entropy of the logits"
    ]


def test_without_a_batch_the_logits_are_those_of_the_plain_call(tmp_path: Path, told: Told) -> None:
    hand_over.hand_over(Model(SAME, UNLIKE["a z-loss"]).eval(), tmp_path, rows=ROWS, seq_len=T)
    assert [event["event"] for event in told()] == ["phase"]


@pytest.mark.parametrize(
    "plain",
    [
        lambda z: z[:, [-1]],
        lambda z: z.mT,
        lambda z: F.pad(z, (0, 3)),
        lambda z: z[:1],
        lambda z: z.long(),
        lambda z: (z, z),
    ],
)
def test_other_shapes_than_logits_are_refused_with_both(plain: Callable[..., Any], tmp_path: Path, told: Told) -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(VOCAB, VOCAB)

        def forward(self, idx: torch.Tensor) -> Any:
            return plain(self.table(idx))

    with pytest.raises(NotExportable, match=r"must give floating logits \[2, 8, 16\], not ") as caught:
        handed(Plain(), tmp_path)
    assert caught.value.why is Why.OUTPUT_SHAPE
    assert told()[-1] == {"event": "not_exportable", "reason": "output_shape", "op": ""}


def test_what_the_model_raises_is_raised(tmp_path: Path) -> None:
    def short(z: torch.Tensor) -> torch.Tensor:
        return z + torch.zeros(3, T, VOCAB)  # a batch of three alone

    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        handed(Model(short, plainly), tmp_path)


def test_a_batch_shorter_than_the_context_is_not_asked_about(tmp_path: Path, told: Told) -> None:
    batch = Batch(torch.zeros(2, T - 1, dtype=torch.int64), torch.zeros(2, T - 1, dtype=torch.int64))
    model = Model(SAME, UNLIKE["a z-loss"]).eval()
    hand_over.hand_over(model, tmp_path, rows=ROWS, seq_len=T, vocab=VOCAB, batch=batch)
    assert [event["event"] for event in told()] == ["phase"]
    assert not math.isnan(float(model.table.weight.sum()))


def test_a_gpu_too_full_to_ask_costs_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what training left there may be no room for logits of a whole batch, at whatever step."""

    def full(*_: Any) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(asking, "_tells", full)
    model, other = Model(SAME, plainly).eval(), tokens(2)
    expected = float(plainly(model.table(other.inputs[:ROWS]), other.targets[:ROWS], "mean"))
    assert score(handed(model, tmp_path), other) == pytest.approx(expected, rel=1e-6)


# The graph says what the model says


class Looks(torch.nn.Module):
    """Looks at what it is called with: a recording gives it tensors that are no parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(VOCAB, VOCAB)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.table(idx)
        return logits * (3 if isinstance(self.table.weight, torch.nn.Parameter) else 0.1)


def test_of_two_ways_the_one_that_says_what_the_model_says_is_taken(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, traced = capture.MODES["direct"], capture.MODES["functional"]
    tried: list[str] = []

    def way(name: str, mode: capture.Mode) -> capture.Mode:
        return lambda *given: (tried.append(name), mode(*given))[1]

    monkeypatch.setattr(capture, "MODES", {"a": way("recorded", recorded), "b": way("traced", traced)})
    prog, model = handed(Looks(), tmp_path), Looks().eval()
    assert tried == ["recorded", "traced"]
    torch.testing.assert_close(prog(tokens(2).inputs[:ROWS].contiguous()), model(tokens(2).inputs[:ROWS]))
    assert not [event for event in told() if event["event"] == "crash"]


def test_a_model_that_no_graph_agrees_with_is_handed_over_and_the_agent_is_told(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MODES", {"direct": capture.MODES["direct"]})
    handed(Looks(), tmp_path)
    assert [event["message"] for event in told() if event["event"] == "crash"] == [asking.DIFFERS]


def test_a_model_whose_loss_is_no_number_is_not_compared(tmp_path: Path, told: Told) -> None:
    class Broken(Looks):
        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            return super().forward(idx) * math.nan

    handed(Broken(), tmp_path)
    assert not [event for event in told() if event["event"] == "crash"]


@pytest.mark.parametrize(("rate", "tried"), [(1.001, ["recorded", "traced"]), (1.0, ["recorded"])])
def test_in_float32_the_next_way_is_tried_for_less_than_anybody_would_see(
    rate: float, tried: list[str], tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Barely(Looks):
        def forward(self, idx: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.table(idx)
            return found * (rate if isinstance(self.table.weight, torch.nn.Parameter) else 1)

    found: list[str] = []

    def way(name: str, mode: capture.Mode) -> capture.Mode:
        return lambda *given: (found.append(name), mode(*given))[1]

    recorded, traced = capture.MODES["direct"], capture.MODES["functional"]
    monkeypatch.setattr(capture, "MODES", {"a": way("recorded", recorded), "b": way("traced", traced)})
    prog, model = handed(Barely(), tmp_path), Barely().eval()
    assert found == tried
    torch.testing.assert_close(prog(tokens(2).inputs[:ROWS].contiguous()), model(tokens(2).inputs[:ROWS]))
    assert not [event for event in told() if event["event"] == "crash"]
