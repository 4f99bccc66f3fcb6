"""Ledger rows for tests that need some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core.base.home import SOURCE, Home
from runner.core.base.launching import Costs
from runner.core.base.values import Evaluation, Experiment, Score, Status

COSTS = Costs(pass_flops=1e9, pass_elements=1000, passes=32, scoring_seconds=1.0)
AUDITED = Evaluation(order=7, audited=128, alone=3, whole=True, costs=COSTS)  # every row


def scored(val_bpb: float, evaluation: Evaluation | None = AUDITED) -> Score:
    """What the evaluator says of a model it proved."""
    return Score(status="scored", val_bpb=val_bpb, val_bpb_bytes=val_bpb, causality="proved", evaluation=evaluation)


def experiment(number: int = 1, **changes: Any) -> Experiment:
    """A plausible kept row; change what matters to the test."""
    base: dict[str, Any] = {
        "id": number,
        "tag": "t",
        "status": Status.KEEP,
        "val_bpb": 2.0 - number / 100,
        "val_bpb_bytes": 2.0 - number / 100,
        "claimed": None,
        "confirmed": None,
        "causality": "proved",
        "description": f"idea {number}",
        "snapshot": f"{number:064x}",
        "snapshot_size": 100,
        "commit": f"{number:040x}",
        "memory_gb": 0.5,
        "seconds": 10.0,
        "train_seconds": 8.0,
        "eval_seconds": 2.0,
        "reason": None,
        "crash": None,
        "curve": [(0, 6.9), (10, 5.0)],
        "summary": {"num_steps": 10.0},
        "run": f"{number:016x}",
        "started": "2026-01-01T00:00:00+00:00",
        "artifact": "demo-1",
        "policy": "f" * 64,
    }
    return Experiment(**{**base, **changes})


def plainly(home: Home) -> None:
    """Rule upstream on a bench: what is kept does not depend on how quiet the machine is, and nothing runs twice."""
    text = (SOURCE / "policies" / "decision.yaml").read_text()
    (home.root / "policies" / "decision.yaml").write_text(text.replace("rule: odds ", "rule: upstream "))


QUICK = '''"""A baseline that trains nothing and scores in seconds."""

import torch
from prepare import Tokenizer, evaluate_bpb

tokenizer = Tokenizer.from_directory()
V = tokenizer.get_vocab_size()
torch.manual_seed(0)
model = torch.nn.Embedding(V, V)
evaluate_bpb(model.eval(), tokenizer, 4)
'''


def quickly(home: Home, text: str = QUICK) -> None:
    """New tags of a bench begin with this file: the baseline is not what a test is about."""
    home.seed.write_text(text)


def begun(glovebox: Callable[..., tuple[int, str, str]], home: Home, tag: str = "t", **env: str) -> None:
    """A tag with its baseline, under the policies as they are now."""
    quickly(home)
    code, _, err = glovebox("run", "--tag", tag, "--train-py", str(home.seed), env=env)
    assert code == 0, err
