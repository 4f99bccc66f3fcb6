"""The operation conformance campaign, in small: what the dry run infers is what the kernels make (tests/fuzz_ops)."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.fuzz_ops import workers
from tests.fuzz_ops.campaign import Campaign, Tally, settled
from tests.fuzz_ops.compare import Dry, Outcome
from trainer.evaluator.model import ops

ROUNDS = 8  # calls of every operation


@pytest.fixture(autouse=True)
def _settled() -> Iterator[None]:
    with settled():
        yield


def test_every_operation_makes_what_the_dry_run_says() -> None:
    campaign = Campaign()
    for seed in range(ROUNDS * len(campaign.names)):
        campaign.seed(seed)
    assert not campaign.tally.mismatches
    assert set(campaign.tally.counts["compared"]) == set(ops.allowed())


def test_a_known_wrong_shape_is_found_unless_a_rule_forbids_it() -> None:
    """torch 2.13: an index of no dimensions after one with dimensions."""
    found = _of("aten.index.Tensor", 300, rule=lambda *_: False)
    assert found["aten.index.Tensor", "shape"]["real"] != found["aten.index.Tensor", "shape"]["fake"]
    assert not _of("aten.index.Tensor", 300, rule=lambda *_: True)


@pytest.mark.parametrize("kind", ["shape", "dtype", "device", "count"])
def test_a_wrong_dry_run_of_any_kind_is_found(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dry, "run", _wrong(kind, Dry.run))
    assert set(_of("aten.mul.Tensor", 20)) == {("aten.mul.Tensor", kind)}


def test_a_wrong_answer_of_the_dry_runs_cache_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right at first, wrong from the cache: only the comparison with a new mode tells which of the two it was."""
    monkeypatch.setattr(Dry, "run", _wrong("shape", Dry.run, only=lambda dry: dry.mode.cache_enabled))
    assert set(_of("aten.mul.Tensor", 200)) == {("aten.mul.Tensor", "shape"), ("aten.mul.Tensor", "cache")}


def test_a_call_follows_from_its_seed() -> None:
    one, two = Campaign(), Campaign()
    for campaign, seeds in ((one, range(100, 140)), (two, reversed(range(100, 140)))):
        for seed in seeds:
            campaign.seed(seed)
    assert one.tally.counts == two.tally.counts


@pytest.mark.slow
def test_a_kernel_that_ends_its_process_is_reported_with_its_seed() -> None:
    """The signal comes from outside while the worker computes; the rest of its chunk is done by another process."""
    worker = workers.Worker(["aten.mul.Tensor"])
    try:
        worker.give(list(range(10**6, 10**6 + 200)))
        while worker.at.value < 10**6:
            time.sleep(0.01)
        os.kill(worker.process.pid, signal.SIGSEGV)
        death, rest = worker.take(), worker.take()
    finally:
        worker.end()
    assert isinstance(death, workers.Death)
    assert isinstance(rest, Tally)
    assert death.signal == signal.SIGSEGV
    assert 10**6 <= death.seed < 10**6 + 200
    assert sum(rest.total(what) for what in rest.counts if what != "mismatched") == 199


def _of(name: str, calls: int, rule: Any = None) -> dict[tuple[str, str], dict[str, Any]]:
    campaign = Campaign([name], rule)
    for seed in range(calls):
        campaign.seed(seed)
    return campaign.tally.mismatches


def _wrong(kind: str, run: Any, only: Any = lambda _: True) -> Any:
    """`Dry.run`, with this much of its first output changed."""

    def changed(self: Dry, *call: Any) -> Outcome:
        outcome = run(self, *call)
        if outcome.error or not only(self):
            return outcome
        (shape, dtype, device), *others = outcome.outputs
        first = {
            "shape": [((*shape, 1), dtype, device)],
            "dtype": [(shape, torch.int8 if dtype is not torch.int8 else torch.int16, device)],
            "device": [(shape, dtype, "meta")],
            "count": [],
        }[kind]
        return dataclasses.replace(outcome, outputs=[*first, *others])

    return changed
