"""A receipt says under what an experiment ran, and whether anybody had attacked those walls."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from runner.core.base.home import Home
from runner.core.base.values import Crash, Status
from runner.core.evidence import audit_chain, receipts, verify
from runner.core.evidence.receipts import Probes
from runner.rooms.desk.experiment import Loop
from runner.rooms.launcher import specification
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import ended
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture
from tests.samples import AUDITED, experiment

PROBES = Probes(
    ok=True, policy="f" * 64, runtime="runc", when="2026-01-01T00:00:00+00:00", blocked=144, open=0, skipped=3,
    removed=57, unnoticed=0,
)  # fmt: skip


def test_a_receipt_names_policy_images_artifact_snapshot_probes_score_and_verdict() -> None:
    row = experiment(3)
    found = receipts.receipt(row, "d" * 64, [ended(), ended()], PROBES)
    assert [c["role"] for c in found["containers"]] == ["trainer", "evaluator"]
    assert {c["image"] for c in found["containers"]} == {"sha256:1"}
    for name in ("policy", "artifact", "snapshot", "commit", "val_bpb", "status"):
        assert found[name] == getattr(row, name)
    assert found["probes"]["blocked"] == 144
    assert receipts.vouches(found, row, "d" * 64)
    assert not receipts.vouches(found, row, "e" * 64)
    older = {"row": receipts.row_digest(row)}
    assert receipts.vouches(older, row, "e" * 64)  # an entry from before it had the hash of the text
    assert not receipts.vouches(older, row.model_copy(update={"val_bpb": 0.5}), "e" * 64)


def test_a_red_team_result_counts_only_under_the_policies_it_was_taken_under(home: Home) -> None:
    assert receipts.probes(home, "f" * 64) is None
    receipts.keep_probes(home, PROBES)
    assert receipts.probes(home, "f" * 64) == PROBES
    assert receipts.probes(home, "e" * 64) is None
    home.redteam.write_text('{"ok": true}')
    assert receipts.probes(home, "f" * 64) is None


def test_a_specification_that_differs_in_anything_has_another_hash() -> None:
    one: dict[str, Any] = {"image": "a", "cap_drop": ["ALL"]}
    assert specification.digest(one) == specification.digest(dict(reversed(one.items())))
    assert specification.digest(one) != specification.digest(one | {"cap_drop": []})


@pytest.mark.parametrize(
    ("containers", "good"),
    [
        (
            [
                {"role": "trainer", "image": "i", "specification": "s"},
                {"role": "evaluator", "image": "i", "specification": "s"},
            ],
            True,
        ),
        ([{"role": "trainer", "image": "i", "specification": "s"}], False),
        (
            [
                {"role": "trainer", "image": "i", "specification": ""},
                {"role": "evaluator", "image": "i", "specification": "s"},
            ],
            False,
        ),
        ([], False),
        (["x"], False),
        (None, False),
    ],
)
def test_a_score_needs_two_containers_that_were_compared_with_their_specification(containers: Any, good: bool) -> None:
    assert receipts.complete({"val_bpb": 1.0, "containers": containers}) is good


def test_a_crash_needs_no_evaluator() -> None:
    assert receipts.complete({"val_bpb": None, "containers": [{"role": "trainer", "image": "i", "specification": "s"}]})
    assert receipts.complete({"val_bpb": None, "containers": []})


def test_rows_from_before_a_field_existed_keep_their_hash() -> None:
    row = experiment(1, status=Status.CRASH, val_bpb=None, crash=Crash(error="ValueError", line=3))
    later_ = {"interval", "pairs", "pace", "hopeless", "lane", "evaluation", "neighbours"}
    later_ |= {"gain", "probability", "sigma", "parent", "speed", "attention", "total", "kinds", "told"}
    old = row.model_dump(mode="json", exclude=later_) | {"crash": {"error": "ValueError", "line": 3}}
    assert receipts.row_digest(row) == hashlib.sha256(audit_chain.canonical(old)).hexdigest()
    told = row.model_copy(update={"crash": Crash(error="ValueError", line=3, template="matmul", message="x")})
    assert receipts.row_digest(told) != receipts.row_digest(row)
    for later in (
        {"interval": (0.1, 0.2)},
        {"pairs": 3},
        {"pace": [(0.5, 3.0)]},
        {"lane": "0-3"},
        {"gain": 0.001},
        {"probability": 0.5},
        {"sigma": 0.001},
        {"parent": 1},
        {"evaluation": AUDITED},
    ):
        assert receipts.row_digest(row.model_copy(update=later)) != receipts.row_digest(row)


@pytest.mark.parametrize(("ok", "said"), [(True, False), (False, True), (None, True)])
def test_a_red_team_that_found_a_hole_is_no_evidence(bench: Home, ok: bool | None, said: bool) -> None:
    """The three experiments of the bench ran without any; only theirs may be counted if the fourth's held."""
    found = None if ok is None else PROBES.model_copy(update={"ok": ok}).model_dump()
    assert receipts.probed({"probes": found}) is not said
    assert any(line.startswith("3 experiments ran without a red team") for line in verify.verify(bench).unknown)


@pytest.mark.engine
@pytest.mark.slow
def test_a_real_experiment_leaves_a_complete_receipt(loop: Loop) -> None:
    entry = audit_chain.by_name(audit_chain.read(loop.home.audit), "finished")[loop.tag, 1]
    assert entry["evaluation"]["whole"]
    assert entry["evaluation"]["audited"] == 128
    assert receipts.complete(entry)
    assert [c["role"] for c in entry["containers"]] == ["trainer", "evaluator"]
    assert all(c["image"].startswith("sha256:") and len(c["specification"]) == 64 for c in entry["containers"])
