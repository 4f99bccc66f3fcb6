"""What a tag's experiments teach, computed by the runner: kinds of edits, near misses, plateau, noise. TRUSTED, pure.

Reads sources the agent wrote (parsed, never run) and rows as far as the agent was told of them, so nothing here is news
to it; the noise alone comes from reruns, and is counted in leak_budget.py. Kinds are ours: a closed list, picked by the
names of what changed.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from runner.core.base.launching import Frozen
from runner.core.base.values import Experiment, Status
from runner.core.decision.noise import Noise

Kind = Literal[
    "learning_rate", "schedule", "batch", "size", "optimizer", "regularization", "attention", "initialization",
    "architecture", "training_loop", "nothing", "other",
]  # fmt: skip
_PATTERNS: dict[Kind, str] = {
    "schedule": r"warm|cool|schedul|anneal|final_lr|lr_frac|get_lr",
    "learning_rate": r"(^|_)lr($|_|s$)|learning_rate",
    "batch": r"batch|accum",
    "regularization": r"weight_decay|(^|_)wd($|_)|dropout|softcap|clip|smoothing",
    "optimizer": r"adam|muon|beta|momentum|optim|orthogonal|newton|polar|(^|_)eps($|_)",
    "attention": r"attention|attn|head_dim|n_head|n_kv|window|rope|rotary|rotate|(^|_)kv($|_)",
    "initialization": r"init|seed",
    "size": r"depth|width|n_layer|aspect|embd|hidden|(^|_)dim($|_)",
}
NEAR_SIGMAS = 2.0  # a discard that lost or gained less than this is a near miss
NEAR_SHOWN = 8
_MOST_ANSWERS = 4096  # answers are kept, not the files: a night has hundreds
_answers: dict[tuple[bytes, bytes], tuple[Kind, ...]] = {}
_MAX_SOURCE = 1 << 20
_MAX_STATEMENTS = 5000


class Tally(Frozen):
    """How experiments that changed one kind of thing fared."""

    tried: int
    kept: int
    failed: int  # no score
    best_gain: float | None  # the largest claimed


class Analysis(Frozen):
    """A tag at a glance, for the agent and for people."""

    kinds: dict[Kind, Tally]
    near_misses: list[int]  # numbers of discards within the noise of the best of their time, closest first
    plateau: int  # experiments since the last keep
    noise_bpb: float | None  # standard deviation of one run, two digits


def study(rows: Sequence[Experiment], noise: Noise | None, source: Callable[[Experiment], bytes | None]) -> Analysis:
    """Analyse rows in order; `source` gives an experiment's train.py, None if it is lost."""
    found: dict[Kind, list[Experiment]] = {}
    best: Experiment | None = None
    for row in rows:
        for kind in kinds(source(best), source(row)) if best is not None else []:
            found.setdefault(kind, []).append(row)
        best = row if row.status is Status.KEEP else best
    since = len(rows) - (rows.index(best) + 1 if best else 0)
    sigma = two_digits(noise.sigma) if noise else None
    ordered = {kind: _tally(found[kind]) for kind in get_args(Kind) if kind in found}
    return Analysis(kinds=ordered, near_misses=_near(rows, sigma), plateau=since, noise_bpb=sigma)


def _tally(rows: list[Experiment]) -> Tally:
    gains = [row.claimed for row in rows if row.claimed is not None]
    return Tally(
        tried=len(rows),
        kept=sum(row.status is Status.KEEP for row in rows),
        failed=sum(row.val_bpb is None for row in rows),
        best_gain=max(gains, default=None),
    )


def _near(rows: Sequence[Experiment], sigma: float | None) -> list[int]:
    if sigma is None:
        return []
    close = [
        (-row.claimed, row.id)
        for row in rows
        if row.status is Status.DISCARD and row.claimed is not None and row.claimed > -NEAR_SIGMAS * sigma
    ]
    return [number for _, number in sorted(close)[:NEAR_SHOWN]]


def against(row: Experiment, before: Experiment | None) -> dict[str, float]:
    """Telemetry next to that of the best it was made from: last loss (difference), steps and tokens (ratios)."""
    if before is None:
        return {}
    found = {}
    if row.curve and before.curve:
        found["last_loss"] = round(row.curve[-1][1] - before.curve[-1][1], 3)
    for name in ("num_steps", "total_tokens_M", "num_params_M", "peak_vram_mb"):
        ours, theirs = row.summary.get(name), before.summary.get(name)
        if ours is not None and theirs:
            found[name] = round(ours / theirs, 2)
    return found


def two_digits(value: float) -> float:
    """Rounded to two significant digits."""
    return float(f"{value:.1e}")


def kinds(before: bytes | None, after: bytes | None) -> tuple[Kind, ...]:
    """What was changed between two versions of train.py; `other` for what cannot be parsed or compared."""
    key = (_hash_of(before), _hash_of(after))
    if key not in _answers:
        if len(_answers) >= _MOST_ANSWERS:
            _answers.clear()
        _answers[key] = _compared(before, after)
    return _answers[key]


def _hash_of(source: bytes | None) -> bytes:
    """Short enough to keep for every file of a night."""
    return hashlib.sha256(source or b"").digest()


def _compared(before: bytes | None, after: bytes | None) -> tuple[Kind, ...]:
    try:
        old, new = _units(before), _units(after)
        if old is None or new is None:
            return ("other",)
        changed = {name for name in old.keys() | new.keys() if _differ(old.get(name), new.get(name))}
    except (SyntaxError, ValueError, RecursionError, MemoryError, IndexError):  # an agent may write anything
        return ("other",)
    hit = {_kind(name) for name in changed}
    return tuple(kind for kind in get_args(Kind) if kind in hit) or ("nothing",)


def _kind(name: str) -> Kind:
    """The kind of one named part: CONSTANT, function, Class.method, or the empty name for all other statements."""
    if not name:
        return "training_loop"
    own = name.rpartition(".")[2]
    for text in (name.removesuffix("__init__"),) if own == "__init__" else (own, name):
        for kind, pattern in _PATTERNS.items():  # the first that fits
            if re.search(pattern, text.lower()):
                return kind
    return "architecture" if "." in name else "other"


class _Part(NamedTuple):
    """A named part: where each of its statements stands in the file, and their syntax trees."""

    text: list[bytes]
    nodes: list[ast.stmt]


def _differ(old: _Part | None, new: _Part | None) -> bool:
    """Whether two parts say different things; trees are written out only where the text differs."""
    if old is None or new is None:
        return old is not new
    return old.text != new.text and [*map(ast.dump, old.nodes)] != [*map(ast.dump, new.nodes)]


@lru_cache(maxsize=4)  # a syntax tree is a hundred times its file: the best and the newest are enough
def _units(source: bytes | None) -> dict[str, _Part] | None:
    """Named parts of a file; None if it is none, or has too many."""
    if source is None or len(source) > _MAX_SOURCE:
        return None
    tree, lines = ast.parse(source), source.splitlines()
    if len(tree.body) > _MAX_STATEMENTS:
        return None
    parts: dict[str, _Part] = {}
    for node in tree.body:
        inner = _members(node) if isinstance(node, ast.ClassDef) else [(_name(node), node)]
        for name, one in inner:
            part = parts.setdefault(name, _Part([], []))
            part.text.append(_text(lines, one))
            part.nodes.append(one)
    return parts


def _text(lines: list[bytes], node: ast.stmt) -> bytes:
    """The statement as written, without what else stands on its lines."""
    end_line, end = node.end_lineno or node.lineno, node.end_col_offset
    if end_line == node.lineno:
        return lines[node.lineno - 1][node.col_offset : end]
    inside = lines[node.lineno : end_line - 1]
    return b"\n".join([lines[node.lineno - 1][node.col_offset :], *inside, lines[end_line - 1][:end]])


def _members(node: ast.ClassDef) -> list[tuple[str, ast.stmt]]:
    """What a class is made of: bases and decorators, methods by name, the rest of its body."""
    head = [*node.bases, *node.decorator_list]
    bases = [(f"{node.name}.bases", ast.copy_location(ast.Expr(part), part)) for part in head]
    return [*bases, *((f"{node.name}.{getattr(member, 'name', 'body')}", member) for member in node.body)]


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name if name.isupper() else ""
    return ""
