"""A receipt says under what an experiment ran, and whether anybody had attacked those walls."""

from __future__ import annotations

from typing import Any

import pytest

from runner import receipts, verify
from runner.audit import AuditLog
from runner.home import Home
from runner.loop import Loop
from runner.receipts import Probes
from runner.records import EndReason, EngineResult
from tests.samples import experiment
from tests.test_sealing import bench as bench  # noqa: PLC0414 - a fixture
from tests.test_sealing import witness as witness  # noqa: PLC0414 - a fixture

PROBES = Probes(
    ok=True, policy="f" * 64, runtime="runc", when="2026-01-01T00:00:00+00:00", blocked=144, open=0, skipped=3,
    removed=57, unnoticed=0,
)  # fmt: skip


def engine(specification: str = "5" * 64) -> EngineResult:
    return EngineResult(
        exit_code=0, reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0, image="sha256:1", container="c",
        specification=specification,
    )  # fmt: skip


def test_a_receipt_names_policy_images_artifact_snapshot_probes_score_and_verdict() -> None:
    row = experiment(3)
    found = receipts.receipt(row, [engine(), engine()], PROBES)
    assert [c["role"] for c in found["containers"]] == ["trainer", "evaluator"]
    assert {c["image"] for c in found["containers"]} == {"sha256:1"}
    for name in ("policy", "artifact", "snapshot", "commit", "val_bpb", "status"):
        assert found[name] == getattr(row, name)
    assert found["probes"]["blocked"] == 144
    assert found["row"] == receipts.row_digest(row)


def test_a_red_team_result_counts_only_under_the_policies_it_was_taken_under(home: Home) -> None:
    assert receipts.probes(home, "f" * 64) is None
    receipts.keep_probes(home, PROBES)
    assert receipts.probes(home, "f" * 64) == PROBES
    assert receipts.probes(home, "e" * 64) is None
    home.redteam.write_text('{"ok": true}')
    assert receipts.probes(home, "f" * 64) is None


def test_a_specification_that_differs_in_anything_has_another_hash() -> None:
    one: dict[str, Any] = {"image": "a", "cap_drop": ["ALL"]}
    assert receipts.specification_digest(one) == receipts.specification_digest(dict(reversed(one.items())))
    assert receipts.specification_digest(one) != receipts.specification_digest(one | {"cap_drop": []})


@pytest.mark.parametrize(("specification", "good"), [("5" * 64, True), ("", False)])
def test_verify_refuses_a_container_that_was_compared_with_nothing(bench: Home, specification: str, good: bool) -> None:
    log = AuditLog(bench.audit)
    row = experiment(1)
    log.append("finished", receipts.receipt(row, [engine(specification)], None))
    outcome = verify.verify(bench)
    said = [line for line in outcome.failures if "compared with no specification" in line]
    assert bool(said) is not good
    assert any("without a red team result" in line for line in outcome.unknown)


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_experiment_leaves_a_complete_receipt(loop: Loop) -> None:
    from runner import audit

    entry = audit.finished(audit.verify(loop.home.audit))[loop.tag, 1]
    assert receipts.complete(entry)
    assert [c["role"] for c in entry["containers"]] == ["trainer", "evaluator"]
    assert all(c["image"].startswith("sha256:") and len(c["specification"]) == 64 for c in entry["containers"])
