"""While a proof is made, memory that is free is given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runner.core.base.mountable import SOURCE

# Large blocks come and go, and of each a small one stays behind it: what keeps a heap from shrinking.
SCRIPT = """
import contextlib, sys, torch
from trainer.evaluator.allocator import giving_back
def now():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
kept = []
for _ in range(4):
    large = torch.ones(5 << 20); del large  # glibc learns
before = now()
with giving_back() if sys.argv[1] == "giving" else contextlib.nullcontext():
    for at in range(60):
        large = torch.ones((4 << 20) + 4096 * at)
        kept.append(torch.ones(2048))
        del large
    print(now() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_small_block_that_stays_keeps_no_large_hole() -> None:
    def grown(how: str) -> int:
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=SOURCE).stdout)

    assert grown("giving") < 64 << 20
    assert grown("keeping") > grown("giving")
