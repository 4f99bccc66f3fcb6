"""The tests' models on the GPU, several processes at a time: handed over, proved, audited, scored twice to one bit.

`zoo` are whole architectures, each through every export mode; `constructs` are single things that people write in a
forward pass, each in float32 and under autocast, scored beside eager mode. A checkout has the tests; a package has not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from bench.gpu_acceptance.figures import Figure, explain, holds, noted
from trainer import hand_over
from trainer.evaluator import __main__ as evaluator
from trainer.evaluator import score
from trainer.evaluator.audit import Auditor
from trainer.evaluator.causality import prove
from trainer.evaluator.checks import Checks
from trainer.evaluator.model import kernels
from trainer.export import capture
from trainer.export.capture import MODES, Batch

CUDA = torch.device("cuda")
_CONTEXT_MIB = 1500  # of a process: CUDA's context, libraries and a small model
_TYPES = {"float32": 1e-5, "bfloat16": 2e-4}  # and how far a score may lie from eager mode's, relative
_EAGER = "not in eager mode either"
Case = tuple[str, str, str]  # kind, name, mode or type


def zoo(bench: dict[str, Any]) -> Iterator[Figure]:
    """Every architecture, in each of the export modes."""
    from tests.evaluator import zoo as animals  # noqa: PLC0415 - only a checkout has them

    failed = _all([("zoo", name, mode) for name in animals.FAMILIES for mode in MODES], bench)
    by_mode = {mode: {name for _, name, m in failed if m == mode} for mode in MODES}
    missing = set.intersection(*by_mode.values())
    every = len(animals.FAMILIES)
    yield holds("architectures that score, in one mode or more", not missing, f"{every - len(missing)} of {every}")
    for mode, names in by_mode.items():
        yield noted(f"{mode}: all but", ", ".join(sorted(names)) or "none")


def constructs(bench: dict[str, Any]) -> Iterator[Figure]:
    """Every construct, in both types."""
    from tests.evaluator.constructs import CONSTRUCTS  # noqa: PLC0415 - only a checkout has them

    failed = _all([("constructs", name, kind) for name in CONSTRUCTS for kind in _TYPES], bench)
    eager = {case for case, why in failed.items() if why.startswith(_EAGER)}
    for kind in _TYPES:
        names = sorted(name for _, name, k in set(failed) - eager if k == kind)
        could = len(CONSTRUCTS) - sum(k == kind for *_, k in eager)
        yield holds(f"{kind}: constructs that score as in eager mode", not names, f"{could - len(names)} of {could}")
        yield noted(f"{kind}: {_EAGER}", ", ".join(sorted(name for _, name, k in eager if k == kind)) or "none")


def _all(cases: list[Case], bench: dict[str, Any]) -> dict[Case, str]:
    """What failed, and why; each is explained."""
    free = torch.cuda.mem_get_info()[0] >> 20
    workers = max(1, min((os.cpu_count() or 2) // 2, free // 2 // _CONTEXT_MIB))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin) as pool:
        found = dict(zip(cases, pool.map(_tried, cases, [bench["work"]] * len(cases)), strict=True))
    failed = {case: why for case, why in found.items() if why}
    for (kind, *what), why in failed.items():
        explain(f"{kind}: {', '.join(what)}: {why}")
    return failed


def _begin() -> None:
    torch.set_num_threads(1)
    kernels.settle()


def _tried(case: Case, work: str) -> str:
    """Why a case fails; empty if it does not."""
    kind, name, how = case
    folder = Path(work) / kind / how / name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return (_animal if kind == "zoo" else _construct)(name, how, folder)
    except Exception as error:  # noqa: BLE001 - each is a finding
        return f"{type(error).__name__}: {str(error)[:400]}"


def _animal(name: str, mode: str, folder: Path) -> str:
    from tests.evaluator import zoo as animals  # noqa: PLC0415

    only = mock.patch.object(capture, "MODES", {mode: MODES[mode]})
    with torch.device(CUDA), only, torch.autocast("cuda", dtype=torch.bfloat16):
        torch.manual_seed(0)
        model = animals.FAMILIES[name]().to(CUDA).eval()
        hand_over.hand_over(model, folder, rows=4, seq_len=animals.SEQ)
    _scored(folder, torch.randint(0, animals.VOCAB, (64, animals.SEQ + 1)), 4)
    return ""


def _construct(name: str, kind: str, folder: Path) -> str:
    from tests.evaluator import zoo as animals  # noqa: PLC0415
    from tests.evaluator.constructs import CONSTRUCTS  # noqa: PLC0415
    from tests.evaluator.test_families import eager_bpb, table  # noqa: PLC0415

    rows = torch.randint(0, animals.VOCAB, (8, animals.SEQ + 1), generator=torch.Generator().manual_seed(1))
    here = rows.to(CUDA)
    torch.manual_seed(0)
    with torch.device(CUDA):
        model = CONSTRUCTS[name]().to(CUDA).eval()
    with torch.device(CUDA), torch.autocast("cuda", dtype=torch.bfloat16, enabled=kind == "bfloat16"):
        try:
            expected = eager_bpb(model, here, table().to(CUDA))
        except Exception as error:  # noqa: BLE001
            return f"{_EAGER}: {type(error).__name__}: {str(error)[:200]}"
        seen = Batch(here[:2, :-1], here[:2, 1:])
        hand_over.hand_over(model, folder, rows=2, seq_len=animals.SEQ, vocab=animals.VOCAB, batch=seen)
    found = score.bpb(_scored(folder, rows, 2), rows, table(), table()).upstream
    apart = abs(found / expected - 1)
    return "" if apart <= _TYPES[kind] else f"scored {found:.6f}, eager mode {expected:.6f}: {apart:.1e} apart"


def _scored(folder: Path, rows: torch.Tensor, batch: int) -> torch.Tensor:
    """Losses of `rows`, by a program that is proved, audited, and says the same twice; raises ValueError."""
    from tests.evaluator import zoo as animals  # noqa: PLC0415

    profile = {"eval_batch": batch, "max_seq_len": animals.SEQ, "vocab_size": animals.VOCAB}
    program = evaluator.load(evaluator.Settings(), folder, profile, CUDA)
    proof = prove(program)
    if not proof.proved:
        raise ValueError(f"not proved: {proof}")
    checks, order = Checks(program), torch.randperm(len(rows))
    watch = checks.beside(proof.obligations.watch())
    found, again = (score.losses(program, rows, order, watch, lambda _: None) for _ in range(2))
    if not torch.equal(found, again):
        raise ValueError(f"scored twice, it differs by {(found - again).abs().max().item():.3g}")
    proof.obligations.discharge()
    checks.discharge()
    Auditor(program, rows, found, order).some(len(rows))
    return found
