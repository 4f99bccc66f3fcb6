"""Different models among all the train.py files of a clone, every ref and its history, in a form that a CPU trains.

`distinct` compares what models are made of: the classes of a file but those of optimizers, schedules and data, without
their numbers. `on_a_cpu` is for files that were written for one GPU: two small layers, no compiler, and no_gpu.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

_NO_MODELS = re.compile("Optim|Muon|Adam|Scheduler|Loader|Dataset")
_SIZES = {
    "4": "DEVICE_BATCH_SIZE BATCH_SIZE MICRO_BATCH_SIZE EVAL_BATCH_SIZE DEVICE_BATCH",
    "2": "DEPTH N_LAYER N_LAYERS NUM_LAYERS",
    "4 * MAX_SEQ_LEN": "TOTAL_BATCH_SIZE",
    "1": "GRAD_ACCUM_STEPS",
    "32": "HEAD_DIM",
    "128": "MODEL_DIM N_EMBD",
    "False": "COMPILE USE_COMPILE",
}
_PRELUDE = "from bench import no_gpu as _no_gpu\n_no_gpu.install()\n"


def distinct(clone: Path) -> dict[str, str]:
    """Source by name (the blob it is), one for each model that no earlier one is like; raises if git does."""
    found: dict[str, tuple[str, str]] = {}
    for blob in _blobs(clone):
        source = _git(clone, "cat-file", "blob", blob).decode(errors="replace").replace("\r\n", "\n")
        if key := _of_model(source):
            found.setdefault(key, (blob[:12], source))
    return dict(found.values())


def _blobs(clone: Path) -> Iterator[str]:
    """Every train.py that any ref ever had, in whatever folder, oldest first."""
    how = ("--all", "--reverse", "--format=", "--raw", "--no-abbrev", "--no-renames")
    log = _git(clone, "log", *how, "--", "*train.py")
    seen = set[str]()
    for line in log.decode(errors="replace").splitlines():
        fields, _, path = line.partition("\t")
        blob = fields.split()[3]
        if Path(path).name == "train.py" and set(blob) != {"0"} and blob not in seen:
            seen.add(blob)
            yield blob


def _of_model(source: str) -> str:
    """What its models are made of, numbers and words aside; empty if it is no train.py of the loop, or no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    if not any(isinstance(node, ast.ImportFrom) and node.module == "prepare" for node in ast.walk(tree)):
        return ""
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not _NO_MODELS.search(n.name)]
    for node in (inner for each in classes for inner in ast.walk(each)):
        if isinstance(node, ast.Constant):
            node.value = 0
    return "\n".join(ast.dump(each) for each in classes)


def on_a_cpu(source: str) -> str:
    """The same file for a machine without a GPU, small enough to train in seconds."""
    source = re.sub(r"""(["'])(?:cuda(?::0)?|mps)\1""", '"cpu"', source)
    source = re.sub(r"(pin_memory|fused)\s*=\s*True", r"\1=False", source)
    for value, names in _SIZES.items():
        for name in names.split():
            source = re.sub(rf"^{name}(?:\s*:\s*\w+)?\s*=(?!=).*$", f"{name} = {value}", source, flags=re.M)
    future = list(re.finditer(r"^from __future__.*\n", source, re.M))
    at = future[-1].end() if future else 0
    return source[:at] + _PRELUDE + source[at:]


def write(clone: Path, folder: Path) -> int:
    """Put the distinct models of a clone into a folder, as a CPU trains them; how many there are."""
    found = distinct(clone)
    for name, source in found.items():
        (folder / f"{name}.py").write_text(on_a_cpu(source))
    return len(found)


def _git(clone: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(clone), *words], capture_output=True, check=True).stdout
