"""Which of somebody's models score at all? Each is handed over, proved, audited and compared with eager mode.

    python -m bench.models (--corpus DIR | --upstream CLONE) [--artifact DIR] [--seconds N] [--jobs N] [--json]

DIR holds Python files, each in a process of its own (they are run as they are, without walls: only files that you
trust). A file with `build()` gives a module, `SEQ` and `VOCAB` its sizes, `AUTOCAST = True` bfloat16, `CAUSAL = False`
that it looks ahead on purpose. Any other file is a train.py, run by the trainer's own entry with a budget of
`--seconds` on the signed artifact `--artifact`; what it hands over is proved. With `--upstream` the files are all
different models that any ref of a clone ever had as train.py, made small for a CPU (corpus.py). One line a file, then
the counts; exit code 1 if a score differs from eager mode by more than 1e-6 (5e-3 where there is bfloat16), or one that
looks ahead was proved. Figures are in docs/score.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench import corpus
from runner.core.base.mountable import SOURCE
from trainer import hand_over
from trainer.evaluator import audit, score
from trainer.evaluator.causality import prove
from trainer.evaluator.checks import Checks
from trainer.evaluator.model import graph, program, weights
from trainer.export.capture import Batch
from trainer.export.refusals import NotExportable
from trainer.wire.refusal import Refused

CPU = torch.device("cpu")
ROWS, SCORED = 2, 8
SECONDS = 300  # for one file, all in all
EXACT, ROUNDED = 1e-6, 5e-3  # relative; what rounds to bfloat16 may take the other side of a threshold


def main() -> int:
    """Run every file of the corpus in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--corpus", type=Path)
    given.add_argument("--upstream", type=Path, help="a clone; all its refs are looked through")
    parser.add_argument("--artifact", type=Path, help="folder of a signed artifact, for files that are a train.py")
    parser.add_argument("--seconds", type=int, default=6, help="of training, for a train.py")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.upstream is not None:
            print(f"{corpus.write(asked.upstream, Path(folder))} different models", file=sys.stderr)
        return _all(asked.corpus or Path(folder), asked)


def _all(folder: Path, asked: argparse.Namespace) -> int:
    files = sorted(folder.glob("*.py"))
    with ThreadPoolExecutor(asked.jobs) as pool:
        found = dict(zip(files, pool.map(lambda path: _apart(path, asked), files), strict=True))
    counts = Counter(result["outcome"] for result in found.values())
    if asked.json:
        print(json.dumps({"counts": counts, "files": {path.stem: result for path, result in found.items()}}))
    else:
        print("  ".join(f"{outcome}: {count}" for outcome, count in counts.most_common()))
    return int(bool(counts["differs"] or counts["proved, and looks ahead"]))


def _apart(path: Path, asked: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-P", "-W", "ignore", "-m", "bench.models", "--one"]
    given = [str(path), str(asked.artifact or ""), str(asked.seconds)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *given], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        lines = done.stdout.splitlines()
        result = (
            json.loads(lines[-1]) if done.returncode == 0 and lines else {"outcome": "died", "code": done.returncode}
        )
    except subprocess.TimeoutExpired:
        result = {"outcome": "timeout"}
    result["seconds"] = round(time.monotonic() - started, 1)
    if not asked.json:
        told = "  ".join(
            f"{key} {value}" for key, value in result.items() if key != "outcome" and value not in ("", None)
        )
        print(f"{path.stem:40} {result['outcome']:24} {told}", flush=True)
    return result


def one(path: Path, artifact: str, seconds: str) -> dict[str, Any]:
    """What becomes of one file."""
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or "def build(" not in path.read_text(errors="replace"):
        return _script(path, artifact, seconds)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return _module(module)


def _module(file: ModuleType) -> dict[str, Any]:
    """A module: handed over with two rows, compared on others."""
    model, half = file.build().eval(), bool(getattr(file, "AUTOCAST", False))
    seq, vocab = int(file.SEQ), int(file.VOCAB)
    torch.manual_seed(1)
    rows = torch.randint(0, vocab, (SCORED, seq + 1))
    token_bytes = torch.tensor([0 if token % 13 == 0 else token % 5 + 1 for token in range(vocab)])
    with tempfile.TemporaryDirectory() as out:
        os.environ["GLOVEBOX_OUT"] = out
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            try:
                expected = _eager(model, rows, token_bytes)
            except Exception as error:  # noqa: BLE001 - somebody's model raises what it likes
                return {"outcome": "fails in eager mode", "error": f"{type(error).__name__}: {error}"[:200]}
            try:
                batch = Batch(rows[:ROWS, :-1].contiguous(), rows[:ROWS, 1:].contiguous())
                hand_over.hand_over(model, Path(out), rows=ROWS, seq_len=seq, vocab=vocab, batch=batch)
            except NotExportable as refused:
                return {"outcome": "not exportable", "why": refused.why, "op": refused.op, "detail": str(refused)[:200]}
        result = _evaluated(Path(out), rows, token_bytes, seq, vocab)
    if "val_bpb" not in result:
        return result
    far = abs(result["val_bpb"] - expected) / expected
    rounded = half or any(p.dtype is torch.bfloat16 for p in [*model.parameters(), *model.buffers()])
    if far > (ROUNDED if rounded else EXACT):
        result["outcome"] = "differs"
    if result["outcome"] == "scored" and not getattr(file, "CAUSAL", True):
        result["outcome"] = "proved, and looks ahead"
    return result | {"far": f"{far:.1e}"}


def _script(path: Path, artifact: str, seconds: str) -> dict[str, Any]:
    """A train.py, by the trainer's own entry."""
    if not artifact:
        return {"outcome": "skipped", "detail": "a train.py needs --artifact"}
    profile = json.loads((Path(artifact) / "tokenizer" / "profile.json").read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "go.json").write_text(json.dumps({"seed": 42, "budget": int(seconds)}) + "\n")
        given = {"TRAIN_PY": path, "OUT": out, "GO": out / "go.json", "ARTIFACTS": artifact}
        environment = {**os.environ, **{f"GLOVEBOX_{key}": str(value) for key, value in given.items()}}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "trainer.entry"], env=environment, capture_output=True, text=True, check=False
        )
        events = [json.loads(line) for line in (out / "telemetry.jsonl").read_text().splitlines()]
        refused = [event for event in events if event["event"] == "not_exportable"]
        if not (out / "graph.json").exists() or not (out / "graph.json").stat().st_size:
            told = (
                {"why": refused[-1]["reason"], "op": refused[-1]["op"]} if refused else {"detail": done.stderr[-200:]}
            )
            return {"outcome": "not exportable" if refused else "nothing handed over", **told}
        rows = torch.randint(0, profile["vocab_size"], (profile["eval_batch"], profile["max_seq_len"] + 1))
        token_bytes = torch.ones(profile["vocab_size"], dtype=torch.int64)
        return _evaluated(out, rows, token_bytes, profile["max_seq_len"], profile["vocab_size"], profile["eval_batch"])


def _evaluated(
    out: Path, rows: torch.Tensor, token_bytes: torch.Tensor, seq: int, vocab: int, batch: int = ROWS
) -> dict[str, Any]:
    """As the evaluator does it: parse, prove, audit, score."""
    try:
        prog = program.prepare(
            graph.parse((out / "graph.json").read_bytes(), CPU),
            weights.load(out / "weights.safetensors", 8 << 30, CPU),
            rows=batch, seq_len=seq, vocab=vocab, device=CPU, limits=program.Limits(),
        )  # fmt: skip
        proof = prove(prog)
        if not proof.proved:
            unknown = ", ".join(proof.unknown_ops)
            return {"outcome": "not proved", "ahead": proof.lookahead, "rows apart": proof.isolated, "unknown": unknown}
        audit.audit(prog, rows, trials=8)
        checks = Checks(prog)

        def discharge(_: int) -> None:
            proof.obligations.discharge()
            checks.discharge()

        watch = checks.beside(proof.obligations.watch())
        found = score.score(prog, rows, token_bytes, token_bytes, watch, discharge)
    except Refused as refused:
        return {"outcome": "refused", "why": refused.reason, "detail": refused.detail[:200]}
    return {"outcome": "scored", "val_bpb": found.upstream, "operations": len(prog.nodes)}


def _eager(model: torch.nn.Module, rows: torch.Tensor, token_bytes: torch.Tensor) -> float:
    """Upstream's evaluate_bpb, restated: the model's own loss per token, weighted by bytes."""
    nats = total = 0.0
    with torch.no_grad():
        for pair in rows.split(ROWS):
            targets = pair[:, 1:].contiguous()
            losses = model(pair[:, :-1].contiguous(), targets, reduction="none").reshape(-1).float()
            counted = token_bytes[targets.flatten()]
            nats += float((losses * (counted > 0)).double().sum())
            total += float(counted.sum())
    return nats / (math.log(2) * total)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(Path(sys.argv[2]), sys.argv[3], sys.argv[4])))
        sys.exit(0)
    sys.exit(main())
