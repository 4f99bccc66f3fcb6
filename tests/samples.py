"""Ledger rows for tests that need some, and the bench they are on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.standin import AUDITED as AUDITED  # noqa: PLC0414 - what tests score by, too
from bench.standin import COSTS as COSTS  # noqa: PLC0414
from bench.standin import scored as scored  # noqa: PLC0414
from runner.core.artifacts import keys, profiles, store
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Experiment, Status
from runner.core.data import prepare


def prepared(folder: Path) -> Home:
    """A bench with the demo artifact in its store."""
    home = Home(folder / ".glovebox")
    home.root.mkdir()
    keys.create(home)
    store.admit(home, prepare.prepare(home, profiles.shipped("demo")))
    return home


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
