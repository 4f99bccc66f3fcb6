"""One bench with a strong honest best score, its launcher running, and short time allowances."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import policy, supervise
from runner.artifacts import store
from runner.audit import AuditLog
from runner.gitline import GitLine
from runner.home import SOURCE, Home
from runner.launching import LaunchClient
from runner.ledger import Ledger
from runner.loop import Loop


@pytest.fixture(scope="session")
def loop(prepared: Home, engine: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The experiment loop on real containers; its first experiment is the seed, honestly trained."""
    home = Home(tmp_path_factory.mktemp("attacks") / ".glovebox")
    shutil.copytree(prepared.root, home.root)
    shutil.copytree(SOURCE / "policies", home.root / "policies")
    path = home.root / "policies" / "decision.yaml"
    path.write_text(
        path.read_text()
        .replace("startup_seconds: 120.0", "startup_seconds: 14.0")
        .replace("hand_over_seconds: 60.0", "hand_over_seconds: 10.0")
    )
    policies = policy.load(home.root / "policies")
    ledger = Ledger(home.ledger)
    ledger.begin_run("attacks", "2026-01-01T00:00:00+00:00", "demo-1", policies.digest)
    with supervise.launcher(home) as (door, _):
        made = Loop(
            home=home,
            tag="attacks",
            policies=policies,
            ledger=ledger,
            line=GitLine(home.line),
            audit_log=AuditLog(home.audit),
            launches=LaunchClient(door),
            artifact=store.admit(home, "demo-1"),
            emit=lambda event, data: None,
        )
        honest = home.root / "honest.py"
        text = (SOURCE / "trainer" / "train.py").read_text()
        honest.write_text(text.replace("else 2**14 ", "else 2**11 ").replace("else 0.001 ", "else 0.004 "))
        assert made.experiment(honest, "honest").status == "keep"
        yield made
    ledger.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test writes its train.py; discarded candidates are restored here."""
    return tmp_path / "train.py"
