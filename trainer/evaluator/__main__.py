"""Entry point of the evaluator container. TRUSTED.

    python -m trainer.evaluator SETTINGS_JSON

Reads /handed/graph.json and /handed/weights.safetensors (hostile), /artifacts (signed), writes one JSON
object to /out/score.json. Exit status 0 whether the model was scored or refused; anything else means the
evaluator itself failed. stderr is for people and stays in quarantine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.evaluator import audit, graph, program, release, score, weights
from trainer.evaluator.causality import Proof, prove
from trainer.evaluator.refusal import Reason, Refused

SCORE_FORMAT = "glovebox-score/1"


@dataclass(frozen=True)
class Settings:
    """What the launcher passes from policies/evaluator.yaml."""

    limits: program.Limits = field(default_factory=program.Limits)
    accept: tuple[str, ...] = ("proved",)
    audit_trials: int = 4  # row trials on top of a proof
    audit_trials_unproved: int = 20_000  # row trials in place of a proof
    threads: int = 256  # or all the host has, if fewer

    @classmethod
    def from_json(cls, text: str) -> Settings:
        raw = json.loads(text)
        return cls(**{**raw, "limits": program.Limits(**raw.get("limits", {})), "accept": tuple(raw["accept"])})


def main(argv: list[str], handed: Path, artifacts: Path, out: Path) -> int:
    """Score or refuse; the result file is written once, at the end."""
    settings = Settings.from_json(argv[1])
    torch.set_num_threads(min(settings.threads, len(os.sched_getaffinity(0))))
    torch.backends.cudnn.enabled = False  # its convolutions may mix positions numerically
    program.rehearse()
    release.wait()
    started = time.monotonic()
    try:
        result = evaluate(settings, handed, artifacts)
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        result = {"status": "refused", "reason": str(refused.reason)}
    except Exception as error:  # whatever a hostile graph made an operation raise, it is a refusal
        print(f"failed while running the graph: {type(error).__name__}: {error}", file=sys.stderr)
        result = {"status": "refused", "reason": str(Reason.EXECUTION)}
    result |= {"format": SCORE_FORMAT, "seconds": round(time.monotonic() - started, 3)}
    with (out / "score.json").open("wb") as file:
        file.write(json.dumps(result).encode())
    return 0


def evaluate(settings: Settings, handed: Path, artifacts: Path) -> dict[str, Any]:
    """The score document of one handed-over model, without format and time; raises Refused."""
    profile = json.loads((artifacts / "tokenizer" / "profile.json").read_bytes())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    token_bytes = _array(artifacts / "tokenizer" / "token_bytes.npy").to(device)
    true_bytes = _array(artifacts / "tokenizer" / "token_bytes_true.npy").to(device)
    rows = _array(artifacts / "val" / "rows.npy")
    _log(f"rows {len(rows)} of {rows.shape[1]} tokens on {device}")
    prog = load(settings, handed, profile, device)
    _log(f"loaded: {len(prog.nodes)} operations, {prog.flops:.3g} FLOPs a pass")
    proof = prove(prog)
    _log(f"proof: {proof}")
    causality = _verdict(settings, proof, prog, rows)
    obligations = proof.obligations if causality == "proved" else type(proof.obligations)()
    bpb = score.score(prog, rows, token_bytes, true_bytes, obligations.watch(), lambda _: obligations.discharge())
    return {
        "status": "scored",
        "val_bpb": bpb.upstream,
        "val_bpb_bytes": bpb.true,
        "targets": bpb.targets,
        "causality": causality,
        "operations": len(prog.nodes),
    }


def load(settings: Settings, handed: Path, profile: dict[str, Any], device: torch.device) -> program.Program:
    """The validated program of a hand-over directory; raises Refused."""
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
    )


def _verdict(settings: Settings, proof: Proof, prog: program.Program, rows: torch.Tensor) -> str:
    """'proved' or 'audited', if the policy accepts it; raises Refused."""
    if proof.proved:
        audit.audit(prog, rows, settings.audit_trials)  # an independent check of prover and interpreter
        causality = "proved"
    else:
        causality = "audited"
        if "audited" not in settings.accept and not proof.unknown_ops:
            raise Refused(Reason.NON_CAUSAL, f"looks {proof.lookahead} positions ahead, isolated {proof.isolated}")
        audit.audit(
            prog, rows, settings.audit_trials_unproved if "audited" in settings.accept else settings.audit_trials
        )
    if causality not in settings.accept:
        raise Refused(Reason.NOT_PROVED, f"{causality} is not accepted by policy")
    return causality


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
