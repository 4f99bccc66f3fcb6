"""The evaluator's time is the candidate's time: folding and scoring are measured against the baseline's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.evaluator.build import CPU, Build
from trainer.evaluator import costs
from trainer.evaluator.costs import Allowance, Costs
from trainer.evaluator.model import graph, ops, program
from trainer.evaluator.model.program import Program, Work
from trainer.wire.refusal import Reason, Refused

BASELINE = Costs(pass_flops=1e9, pass_elements=100_000_000, passes=100, scoring_seconds=100.0)


def prepared(elements: int, allowance: Allowance, steps: int = 1) -> Program:
    """A program that folds about 2 * `elements` * `steps` elements."""
    b = Build(table=torch.zeros(16, 16))
    big = b.op("full.default", [elements], 1.0)
    for _ in range(steps):
        big = b.op("neg.default", big)
    logits = b.op("add.Tensor", b.op("embedding.default", b.ids["table"], b.idx), b.op("select.int", big, 0, 0))
    return program.prepare(
        graph.parse(b.data(logits), CPU), b.weights, rows=1, seq_len=8, vocab=16, device=CPU,
        limits=program.Limits(), allow=allowance.folding,
    )  # fmt: skip


def test_folding_may_take_its_share_of_the_baselines_scoring_and_no_more() -> None:
    allowance = Allowance(0.01, 4.0, 100, BASELINE)  # 1e8 elements
    assert prepared(10_000_000, allowance, 2).folding.elements < 100_000_000
    with pytest.raises(Refused) as caught:
        prepared(10_000_000, allowance, 6)
    assert caught.value.reason is Reason.COMPUTE_LIMIT


def test_a_baseline_is_measured_against_itself() -> None:
    assert prepared(1000, Allowance(0.01, 4.0, 100))
    with pytest.raises(Refused):
        prepared(10_000_000, Allowance(0.01, 4.0, 100), 3)


def test_products_of_constants_count_by_their_flops() -> None:
    def folded(size: int) -> Program:
        b = Build(table=torch.zeros(16, 16), square=torch.ones(size, size))
        product = b.op("mm.default", b.ids["square"], b.ids["square"])
        part = b.op("select.int", b.op("select.int", product, 0, 0), 0, 0)
        logits = b.op("add.Tensor", b.op("embedding.default", b.ids["table"], b.idx), part)
        return program.prepare(
            graph.parse(b.data(logits), CPU), b.weights, rows=1, seq_len=8, vocab=16, device=CPU,
            limits=program.Limits(), allow=Allowance(0.01, 4.0, 1, Costs(1e6, 10**9, 1, 1.0)).folding,
        )  # fmt: skip

    assert folded(64).folding.flops == 2 * 64**3
    with pytest.raises(Refused) as caught:
        folded(1024)
    assert caught.value.reason is Reason.COMPUTE_LIMIT


def test_time_ends_what_elements_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(costs, "clock", lambda _: float(next(ticks)))
    with pytest.raises(Refused) as caught:
        prepared(10, Allowance(0.01, 4.0, 100, Costs(1e9, 10**8, 100, 1.0)))
    assert caught.value.reason is Reason.COMPUTE_LIMIT
    assert prepared(10, Allowance(0.01, 4.0, 100, Costs(1e9, 10**8, 100, 1e5)))


def test_scoring_may_take_a_multiple_of_the_baselines_time() -> None:
    assert Allowance(0.01, 4.0, 1, BASELINE).scoring_seconds == 400.0
    assert Allowance(0.01, 4.0, 1, Costs(0.0, 0, 1, 0.1)).scoring_seconds == costs.LEAST_SCORING_SECONDS
    assert Allowance(0.01, 4.0, 1).scoring_seconds == float("inf")


def test_work_is_counted_apart_for_constants_and_for_each_pass() -> None:
    b = Build(table=torch.zeros(16, 16))
    folded = b.op("neg.default", b.ids["table"])
    prog = b.program(b.op("embedding.default", folded, b.idx))
    assert prog.folding == Work(0.0, 512)  # read and written
    assert prog.each_pass == Work(0.0, 256 + 8 + 128)


def test_the_clock_of_a_cpu_counts_work_not_waiting() -> None:
    import time

    before = costs.clock(CPU)
    time.sleep(0.3)
    assert costs.clock(CPU) - before < 0.2


def test_what_the_launcher_says_is_read() -> None:
    told: dict[str, Any] = {"pass_flops": 1.0, "pass_elements": 2, "passes": 3, "scoring_seconds": 4.0}
    assert Costs.from_go(told) == Costs(1.0, 2, 3, 4.0)
    assert Costs.from_go(None) is None


def test_a_pass_may_take_a_multiple_of_the_baselines_elements() -> None:
    def in_a_pass(count: int, baseline: Costs | None) -> Program:
        """Counts `count` pairs in every pass, disguised as something that depends on the tokens."""
        b = Build(table=torch.zeros(16, 16), pairs=torch.zeros(count, dtype=torch.int64), counts=torch.zeros(256))
        first = b.op("select.int", b.op("select.int", b.idx, 0, 0), 0, 0)
        pairs = b.op("add.Tensor", b.ids["pairs"], b.op("mul.Scalar", first, 0))
        ones = b.op("full.default", [count], 1.0)
        counted = b.op("scatter_add.default", b.ids["counts"], 0, pairs, ones)
        table = b.op("add.Tensor", b.ids["table"], b.op("view.default", counted, [16, 16]))
        logits = b.op("index.Tensor", table, [b.idx])
        return program.prepare(
            graph.parse(b.data(logits), CPU), b.weights, rows=1, seq_len=8, vocab=16, device=CPU,
            limits=program.Limits(), allow=Allowance(0.01, 8.0, 10, baseline).folding,
        )  # fmt: skip

    baseline = Costs(1e9, 100_000, 10, 1.0)
    assert in_a_pass(1000, baseline).each_pass.elements > 64 * 1000
    with pytest.raises(Refused) as caught:
        in_a_pass(100_000, baseline)
    assert caught.value.reason is Reason.COMPUTE_LIMIT
    assert in_a_pass(100_000, None)


def test_views_cost_nothing_and_scattering_much() -> None:
    assert ops.cost("view") == ops.cost("transpose") == 0
    assert ops.cost("mul") == ops.cost("embedding") == 1
    assert ops.cost("scatter_add") == ops.cost("sort") == 64
    names = {op._schema.name.removeprefix("aten::") for op in ops.allowed().values()}
    assert names >= ops._VIEWS | ops._SCATTERED
