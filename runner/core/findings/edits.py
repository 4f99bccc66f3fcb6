"""What an experiment changed in train.py: kinds of edits, ours, a closed list, picked by the names of what changed.

TRUSTED, pure; reads sources the agent wrote (parsed, never run). The agent wrote both files, so nothing here is news to
it.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from typing import NamedTuple, get_args

from runner.core.base.values import Kind

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
_MAX_SOURCE = 1 << 20
_MAX_STATEMENTS = 5000


def parsed(source: bytes) -> ast.Module | None:
    """The syntax tree of a train.py, None if it has none: an agent may write anything."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def kinds(before: bytes | None, after: bytes | None) -> tuple[Kind, ...]:
    """What was changed between two versions of train.py; `other` for what cannot be parsed or compared."""
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
