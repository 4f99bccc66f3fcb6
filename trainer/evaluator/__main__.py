"""Entry point of the evaluator container. TRUSTED.

    python -m trainer.evaluator SETTINGS_JSON

Reads /handed/graph.json and /handed/weights.safetensors (hostile), /artifacts (signed), writes one JSON
object to /out/score.json. Exit status 0 whether the model was scored or refused; anything else means the
evaluator itself failed. stderr is for people and stays in quarantine.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.evaluator import score
from trainer.evaluator.audit import Auditor, audit
from trainer.evaluator.causality import Proof, prove
from trainer.evaluator.checks import Checks
from trainer.evaluator.costs import Allowance, Costs, clock
from trainer.evaluator.model import graph, kernels, program, weights
from trainer.wire import device as promised
from trainer.wire import release
from trainer.wire.refusal import Reason, Refused

SCORE_FORMAT = "glovebox-score/1"
_BYTES = ("token_bytes", "token_bytes_true")


@dataclass(frozen=True)
class Settings:
    """What the launcher passes from policies/evaluator.yaml."""

    limits: program.Limits = field(default_factory=program.Limits)
    accept: tuple[str, ...] = ("proved",)
    audit_trials: int = 8  # row trials on top of a proof, at least; 0: no audit at all
    audit_share: float = 0.05  # of the rows, on top of a proof
    audit_trials_unproved: int = 20_000  # row trials in place of a proof
    audit_alone_share: float = 0.1  # of the passes of a would-be keep, run again with one row alone
    fold_share: float = 0.01  # of what the baseline costs to score, for constants
    scoring_ratio: float = 8.0  # times what the baseline took to score
    threads: int = 256  # or all the host has, if fewer
    on_contradiction: str = "stop"  # for the runner

    @classmethod
    def from_json(cls, text: str) -> Settings:
        raw = json.loads(text)
        return cls(**{**raw, "limits": program.Limits(**raw.get("limits", {})), "accept": tuple(raw["accept"])})


@dataclass(frozen=True)
class Order:
    """What the launcher says of this one evaluation (records.Release)."""

    audit_below: float | None = None  # a score below may be kept: every row is audited before it is
    baseline: Costs | None = None

    @classmethod
    def from_go(cls, raw: dict[str, Any]) -> Order:
        return cls(raw.get("audit_below"), Costs.from_go(raw.get("baseline")))


NO_ORDER = Order()


def main(argv: list[str], handed: Path, artifacts: Path, out: Path) -> int:
    """Score or refuse; the result file is written once, at the end."""
    settings = Settings.from_json(argv[1])
    if not promised.there():
        return promised.NO_DEVICE
    kernels.settle()
    torch.set_num_threads(min(settings.threads, len(os.sched_getaffinity(0))))
    program.rehearse()
    kernels.warm(torch.device("cpu"))  # a GPU is lent with the release only
    order = Order.from_go(release.wait())
    started = time.monotonic()
    if not promised.openable():
        return promised.NO_DEVICE
    try:
        result = _evaluated(settings, order, handed, artifacts)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        result = {"status": "refused", "reason": str(refused.reason)}
    except torch.OutOfMemoryError as error:
        print(f"out of memory: {error}", file=sys.stderr)
        result = {"status": "refused", "reason": str(Reason.OUT_OF_MEMORY)}
    except Exception as error:  # whatever a hostile graph made an operation raise, it is a refusal
        print(f"failed while running the graph: {type(error).__name__}: {error}", file=sys.stderr)
        result = {"status": "refused", "reason": str(Reason.EXECUTION)}
    result |= {"format": SCORE_FORMAT, "seconds": round(time.monotonic() - started, 3)}
    with (out / "score.json").open("wb") as file:
        file.write(json.dumps(result).encode())
    return 0


def _evaluated(settings: Settings, order: Order, handed: Path, artifacts: Path) -> dict[str, Any]:
    """The score document; a score that differs from itself is taken again, all of it, on one thread."""
    try:
        return evaluate(settings, handed, artifacts, order)
    except Refused as refused:
        if refused.reason is not Reason.NONDETERMINISTIC:
            raise
        _log(f"{refused}: once more, on one thread")
    torch.set_num_threads(1)  # with one there is nobody to differ from
    return evaluate(settings, handed, artifacts, order)


def evaluate(settings: Settings, handed: Path, artifacts: Path, order: Order = NO_ORDER) -> dict[str, Any]:
    """The score document of one handed-over model, without format and time; raises Refused."""
    profile = json.loads((artifacts / "tokenizer" / "profile.json").read_bytes())
    device = torch.device(promised.name())
    rows = _array(artifacts / "val" / "rows.npy")
    _log(f"rows {len(rows)} of {rows.shape[1]} tokens on {device}")
    allowance = Allowance(
        settings.fold_share, settings.scoring_ratio, len(rows) // profile["eval_batch"], order.baseline
    )
    prog = load(settings, handed, profile, device, allowance)
    _log(f"loaded: {len(prog.nodes)} operations, {prog.each_pass} a pass, {prog.folding} folded")
    proof = prove(prog)
    _log(f"proof: {proof}")
    _acceptable(settings, proof, prog, rows)
    key = secrets.randbits(63)
    sequence = torch.randperm(len(rows), generator=torch.Generator().manual_seed(key))
    began = clock(device)
    found, costs = _score(prog, proof, rows, sequence, allowance)
    token_bytes, true_bytes = (_array(artifacts / "tokenizer" / f"{name}.npy") for name in _BYTES)
    bpb = score.bpb(found, rows, token_bytes, true_bytes)
    auditor = Auditor(prog, rows, found, sequence)
    whole = _audit(settings, proof, auditor, order.audit_below is not None and bpb.upstream < order.audit_below)
    _log(f"audited {auditor.trials} rows, {auditor.alone} alone; in all {clock(device) - began:.3f} s of work")
    return {
        "status": "scored",
        "val_bpb": bpb.upstream,
        "val_bpb_bytes": bpb.true,
        "targets": bpb.targets,
        "causality": "proved" if proof.proved else "audited",
        "operations": len(prog.nodes),
        "order": key,
        "audited": auditor.trials,
        "alone": auditor.alone,
        "whole": whole,
        **asdict(costs),
    }


def _score(
    prog: program.Program, proof: Proof, rows: torch.Tensor, sequence: torch.Tensor, allowance: Allowance
) -> tuple[torch.Tensor, Costs]:
    """Nats of all rows, scored in `sequence`, obligations discharged after every pass; raises Refused."""
    if prog.device.type == "cuda":
        kernels.warm(prog.device)
    score.batch(prog, rows[: prog.rows, :-1], rows[: prog.rows, 1:])  # a first pass never counts
    began = clock(prog.device)

    checks = Checks(prog)

    def progress(_: int) -> None:
        checks.discharge()
        if proof.proved:
            proof.obligations.discharge()
        if clock(prog.device) - began > allowance.scoring_seconds:
            raise Refused(Reason.COMPUTE_LIMIT, f"scoring took more than {allowance.scoring_seconds:.1f} s of work")

    watch = checks.beside(proof.obligations.watch() if proof.proved else {})
    found = score.losses(prog, rows, sequence, watch, progress)
    seconds = round(clock(prog.device) - began, 3)
    _log(f"scored in {seconds} s of work")
    return found, Costs(prog.each_pass.flops, prog.each_pass.elements, allowance.passes, seconds)


def _acceptable(settings: Settings, proof: Proof, prog: program.Program, rows: torch.Tensor) -> None:
    """Raise Refused where policy wants a proof and there is none."""
    if proof.proved or "audited" in settings.accept:
        if not proof.proved or "proved" in settings.accept:
            return
        raise Refused(Reason.NOT_PROVED, "proved is not accepted by policy")
    if not proof.unknown_ops:
        raise Refused(Reason.NON_CAUSAL, f"looks {proof.lookahead} positions ahead, isolated {proof.isolated}")
    if settings.audit_trials:
        audit(prog, rows, settings.audit_trials)  # does it, or is it only that nobody can say?
    raise Refused(Reason.NOT_PROVED, f"no rule for {', '.join(proof.unknown_ops)}")


def _audit(settings: Settings, proof: Proof, auditor: Auditor, may_be_kept: bool) -> bool:
    """Audit what was scored; returns whether it was done on every row. Raises Refused."""
    share = math.ceil(settings.audit_share * len(auditor.rows))
    trials = max(settings.audit_trials, share) if proof.proved else settings.audit_trials_unproved
    try:
        if not settings.audit_trials:
            return False
        auditor.some(trials)
        if may_be_kept:
            auditor.every(settings.audit_alone_share)
    except Refused as refused:
        if proof.proved and refused.reason is Reason.NON_CAUSAL:
            raise Refused(Reason.PROOF_CONTRADICTED, refused.detail) from None
        raise
    return auditor.trials >= len(auditor.rows)


def load(
    settings: Settings,
    handed: Path,
    profile: dict[str, Any],
    device: torch.device,
    allowance: Allowance | None = None,
) -> program.Program:
    """The validated program of a hand-over directory, within `allowance` if there is one; raises Refused."""
    graph_path, weights_path = handed / "graph.json", handed / "weights.safetensors"
    if not (graph_path.is_file() and weights_path.is_file()) or not graph_path.stat().st_size:
        raise Refused(Reason.MISSING, "no hand-over")
    if graph_path.stat().st_size > graph.MAX_GRAPH_BYTES:
        raise Refused(Reason.GRAPH_LIMIT, "graph.json too large")
    parsed = graph.parse(graph_path.read_bytes(), device)
    tensors = weights.load(weights_path, settings.limits.weight_bytes, device)
    return program.prepare(
        parsed,
        tensors,
        rows=profile["eval_batch"],
        seq_len=profile["max_seq_len"],
        vocab=profile["vocab_size"],
        device=device,
        limits=settings.limits,
        **({"allow": allowance.folding} if allowance else {}),
    )


def _array(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(
        main(
            sys.argv,
            Path(os.environ.get("GLOVEBOX_HANDED", "/handed")),
            Path(os.environ.get("GLOVEBOX_ARTIFACTS", "/artifacts")),
            Path(os.environ.get("GLOVEBOX_OUT", "/out")),
        )
    )
