"""The causality proof against real runs of random graphs, and the fuzzer against rules broken on purpose."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from runner.core.base.mountable import SOURCE
from tests.fuzz_causality import generate
from tests.fuzz_causality.check import Outcome, examine
from tests.fuzz_causality.controls import CONTROLS, search
from tests.fuzz_causality.generate import Focus

SECONDS = 40
START = 1_000_000
TRIES = 40  # graphs until an operation must have run on values that depend on tokens


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads, log = torch.get_num_threads(), logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    torch.set_num_threads(1)
    log.setLevel(logging.CRITICAL)  # it reports what the dry run refuses, which is expected here
    yield
    torch.set_num_threads(threads)
    log.setLevel(level)


@pytest.mark.slow
def test_what_is_claimed_of_random_graphs_is_what_happens() -> None:
    command = [sys.executable, "-m", "tests.fuzz_causality", "--jobs", "1"]
    asked = [*command, "--seconds", str(SECONDS), "--start", str(START)]
    done = subprocess.run(asked, cwd=SOURCE, capture_output=True, text=True, check=False)
    *findings, last = done.stdout.splitlines()
    print(last)
    assert not findings, "\n".join(findings)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(last)
    assert result["unsound"] == result["errors"] == 0
    assert result["refused"] < result["graphs"] / 5  # the generator writes graphs, not refusals
    assert result["proved"] > result["graphs"]
    assert result["checks"] > 1000 * result["graphs"]


@pytest.mark.slow
def test_every_allowed_operation_is_compared() -> None:
    out = Outcome()
    for name in generate.names():
        focus = Focus((name,), steps=(3, 6))
        for seed in range(TRIES):
            if out.operations[name]:
                break
            out.add(examine(seed, focus))
    assert not out.lines, "\n".join(out.lines)
    assert [name for name in generate.names() if not out.operations[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.filterwarnings("ignore")
def test_a_broken_rule_is_found(name: str) -> None:
    out = search(CONTROLS[name])
    print(out.counts["graphs"], out.lines)
    assert any(line.startswith(CONTROLS[name].finding) for line in out.lines)


def test_the_same_seed_writes_the_same_graph() -> None:
    assert generate.data(generate.build(7)) == generate.data(generate.build(7))
    assert generate.data(generate.build(7)) != generate.data(generate.build(8))
