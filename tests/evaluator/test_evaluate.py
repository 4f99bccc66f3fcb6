"""One evaluation from hand-over to score document: what is recorded, what is tried again, what is an incident."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.core.airlock import score_file
from runner.core.base.mountable import SOURCE
from tests.evaluator import zoo
from trainer import hand_over
from trainer.evaluator import __main__ as evaluator
from trainer.evaluator import audit, score
from trainer.evaluator.__main__ import Order, Settings, evaluate, main
from trainer.evaluator.costs import Costs
from trainer.wire import device
from trainer.wire.refusal import Reason, Refused

ROWS, B = 8, 2
HONEST = Settings()


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Signed data as the evaluator finds it, at the zoo's sizes."""
    import numpy as np

    folder = tmp_path / "artifacts"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "val").mkdir()
    profile = {"eval_batch": B, "max_seq_len": zoo.SEQ, "vocab_size": zoo.VOCAB}
    (folder / "tokenizer" / "profile.json").write_text(json.dumps(profile))
    for name in ("token_bytes", "token_bytes_true"):
        np.save(folder / "tokenizer" / f"{name}.npy", np.full(zoo.VOCAB, 3, dtype=np.int32))
    rows = np.random.default_rng(0).integers(0, zoo.VOCAB, (ROWS, zoo.SEQ + 1), dtype=np.int32)
    np.save(folder / "val" / "rows.npy", rows)
    return folder


@pytest.fixture
def handed(tmp_path: Path) -> Path:
    folder = tmp_path / "handed"
    folder.mkdir()
    hand_over.hand_over(zoo.FAMILIES["sdpa"]().eval(), folder, rows=B, seq_len=zoo.SEQ)
    return folder


def test_a_discards_score_is_audited_in_part_and_says_how_it_was_taken(handed: Path, artifacts: Path) -> None:
    found = evaluate(Settings(audit_trials=2), handed, artifacts, Order(audit_below=0.001))
    assert (found["status"], found["causality"], found["audited"], found["whole"]) == ("scored", "proved", 2, False)
    assert 0 <= found["order"] < 2**63
    assert found["passes"] == ROWS // B
    assert found["pass_flops"] > 0


def test_a_score_that_may_be_kept_is_audited_on_every_row(handed: Path, artifacts: Path) -> None:
    found = evaluate(HONEST, handed, artifacts, Order(audit_below=64.0))
    assert (found["audited"], found["alone"], found["whole"]) == (ROWS, 1, True)


def test_the_order_is_new_each_time_and_changes_no_digit(handed: Path, artifacts: Path) -> None:
    found = [evaluate(HONEST, handed, artifacts) for _ in range(4)]
    assert len({one["order"] for one in found}) == 4
    assert len({one["val_bpb"] for one in found}) == 1


def test_policy_may_turn_the_audit_off_and_then_it_is_off_for_keeps_too(handed: Path, artifacts: Path) -> None:
    found = evaluate(Settings(audit_trials=0), handed, artifacts, Order(audit_below=64.0))
    assert (found["audited"], found["whole"]) == (0, False)


@pytest.mark.parametrize("threads_help", [True, False])
def test_what_differs_from_itself_is_scored_again_on_one_thread_and_never_called_non_causal(
    handed: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, threads_help: bool
) -> None:
    real, calls = score.batch, [0]
    before = torch.get_num_threads()

    def odd(*args: Any, **more: Any) -> torch.Tensor:
        calls[0] += 1
        found = real(*args, **more)
        return found if threads_help and torch.get_num_threads() == 1 else found + calls[0] * 1e-9

    monkeypatch.setattr(score, "batch", odd)
    torch.set_num_threads(2)
    try:
        if threads_help:
            assert evaluator._evaluated(HONEST, Order(), handed, artifacts)["status"] == "scored"
            assert torch.get_num_threads() == 1
        else:
            with pytest.raises(Refused) as caught:
                evaluator._evaluated(HONEST, Order(), handed, artifacts)
            assert caught.value.reason is Reason.NONDETERMINISTIC
    finally:
        torch.set_num_threads(before)


def test_an_audit_that_contradicts_a_proof_is_a_reason_of_its_own(
    handed: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hit(*_: Any) -> None:
        raise Refused(Reason.NON_CAUSAL, "seen")

    monkeypatch.setattr(audit.Auditor, "suffixes", hit)
    with pytest.raises(Refused) as caught:
        evaluate(HONEST, handed, artifacts)
    assert caught.value.reason is Reason.PROOF_CONTRADICTED


def test_scoring_that_takes_too_long_is_refused(handed: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.evaluator.costs.LEAST_SCORING_SECONDS", 0.0)
    baseline = Costs(1.0, 10**9, ROWS // B, 0.0)
    with pytest.raises(Refused) as caught:
        evaluate(HONEST, handed, artifacts, Order(baseline=baseline))
    assert caught.value.reason is Reason.COMPUTE_LIMIT


def test_the_document_is_what_the_runner_reads(
    handed: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.core.policy import policy_files

    settings = policy_files.load(SOURCE / "policies").evaluator.model_dump_json()
    go = tmp_path / "go.json"
    baseline = {"pass_flops": 1e9, "pass_elements": 10**9, "passes": 4, "scoring_seconds": 5.0}
    go.write_text(json.dumps({"audit_below": 64.0, "baseline": baseline}) + "\n")
    monkeypatch.setattr("trainer.wire.release.GO", go)
    _quietly(monkeypatch)
    assert main(["x", settings], handed, artifacts, tmp_path) == 0
    found = score_file.read(tmp_path / "score.json")
    assert found is not None
    assert found.evaluation is not None
    assert found.evaluation.whole
    assert found.evaluation.bound == 3 / ROWS
    assert found.evaluation.costs.passes == ROWS // B


@pytest.mark.parametrize("missing", ["order", "audited", "whole", "pass_flops", "scoring_seconds"])
def test_a_score_that_does_not_say_how_it_was_taken_is_none(
    handed: Path, artifacts: Path, tmp_path: Path, missing: str
) -> None:
    document = evaluate(HONEST, handed, artifacts) | {"format": score_file.FORMAT, "seconds": 1.0}
    path = tmp_path / "score.json"
    path.write_text(json.dumps(document))
    assert score_file.read(path) is not None
    del document[missing]
    path.write_text(json.dumps(document))
    assert score_file.read(path) is None


# What an evaluation fails of is one word


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB"), "out_of_memory"),
        (RuntimeError("CUDA out of memory"), "execution"),  # the type says, not the text
        (MemoryError(), "execution"),
    ],
)
def test_a_gpu_that_is_too_small_is_told_apart_from_an_operation_that_failed(
    handed: Path,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    reason: str,
) -> None:
    def full(*_: Any) -> None:
        raise error

    _quietly(monkeypatch)
    monkeypatch.setattr(score, "batch", full)
    assert main(["x", SETTINGS], handed, artifacts, tmp_path) == 0
    found = score_file.read(tmp_path / "score.json")
    assert found is not None
    assert (found.status, found.reason) == ("refused", reason)
    assert str(error) in capsys.readouterr().err


# A room that was promised a GPU does not compute on anything else

SETTINGS = json.dumps({"accept": ["proved"]})


@pytest.mark.parametrize(("promised", "code"), [("cuda", device.NO_DEVICE), ("cpu", 0)])
def test_the_room_ends_without_its_gpu_before_it_waits_for_a_candidate(
    handed: Path, artifacts: Path, tmp_path: Path, promised: str, code: int
) -> None:
    go = tmp_path / "go.json"
    go.write_text("{}\n" if code == 0 else "{")  # in the room without its GPU the word never comes
    folders = {"HANDED": handed, "ARTIFACTS": artifacts, "OUT": tmp_path, "GO": go}
    environment = {f"GLOVEBOX_{name}": str(path) for name, path in folders.items()}
    done = subprocess.run(
        [sys.executable, "-m", "trainer.evaluator", SETTINGS],
        env=os.environ | environment | {"GLOVEBOX_DEVICE": promised, "CUDA_VISIBLE_DEVICES": ""},
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("no GPU: " in done.stderr) is (code != 0)
    assert (score_file.read(tmp_path / "score.json") is not None) is (code == 0)


@pytest.mark.parametrize("opens", [True, False])
def test_a_gpu_that_is_taken_away_while_the_room_waits_ends_it_without_a_score(
    handed: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    done: list[str] = []
    _quietly(monkeypatch)
    monkeypatch.setattr(evaluator.promised, "openable", lambda: done.append("looked") or opens)
    monkeypatch.setattr(evaluator.release, "wait", lambda: done.append("released") or {})
    assert main(["x", SETTINGS], handed, artifacts, tmp_path) == (0 if opens else device.NO_DEVICE)
    assert done == ["released", "looked"]
    assert (tmp_path / "score.json").exists() is opens


def _quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the whole process stay the tests'."""
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    for name in ("settle", "warm"):
        monkeypatch.setattr(evaluator.kernels, name, nothing)
