"""`kernels.get_kernel` without a network. UNTRUSTED side.

An unmodified train.py asks for FlashAttention-3 with `get_kernel(repo).flash_attn_interface`. Where a
signed kernel package is mounted under /kernels/<repo name> and has code for this GPU it is loaded from there;
otherwise the same interface is served by torch itself (attention.py). torch is imported when the first kernel is
asked for, not before: a train.py may set variables that it reads when it is imported.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

KERNELS_DIR = Path(os.environ.get("GLOVEBOX_KERNELS", "/kernels"))
ARCHITECTURES = "architectures.json"  # beside build/: the GPUs a package has code for, from policies/kernels.yaml
# One kernel under several names: whoever asks for one of them is served by whichever was provisioned.
_SAME = ({"flash-attention-3", "flash-attn3"},)


def get_kernel(repo_id: str, *args: Any, **kwargs: Any) -> Any:
    """The kernel package mounted for `owner/name`, or a stand-in with the FlashAttention interface."""
    from trainer import attention, attention_forms  # noqa: PLC0415 - imports torch

    real: Any = _mounted(repo_id)
    served = attention_forms.functions(repo_id)
    if real is None:
        return SimpleNamespace(flash_attn_interface=SimpleNamespace(**served), **served)
    for holder in (real, getattr(real, "flash_attn_interface", None)):
        for name, ours in served.items():
            if holder is not None and hasattr(holder, name):
                setattr(holder, name, attention.unless_exporting(getattr(holder, name), ours))
    return real


def _mounted(repo_id: str) -> ModuleType | None:
    """The provisioned package, as the kernels package picks its build for this machine; None without one."""
    asked = repo_id.rsplit("/", 1)[-1]
    for name in [asked, *sorted({other for names in _SAME if asked in names for other in names} - {asked})]:
        folder = KERNELS_DIR / name
        if not folder.is_dir():
            continue
        if why := _unfit(folder):
            print(f"kernels: {name} {why}; torch's own attention takes its place")
            continue
        try:
            local: ModuleType = importlib.import_module("kernels").get_local_kernel(folder)
        except Exception as error:  # no build for this torch and device: the stand-in works everywhere
            print(f"kernels: {name} has no usable build here ({type(error).__name__}); torch's own takes its place")
            continue
        return local
    print(f"kernels: {repo_id} is not provisioned; torch's own attention takes its place")
    return None


def _unfit(folder: Path) -> str:
    """Why a package cannot run on this GPU; empty if nothing says so.

    A package without code for a GPU ends the process at its first call (FlashAttention-3 on compute capability 12.0).
    """
    import torch  # noqa: PLC0415 - see above

    try:
        built_for = json.loads((folder / ARCHITECTURES).read_bytes())
    except FileNotFoundError:
        return ""
    if not torch.cuda.is_available():
        return "needs a GPU"
    here = torch.cuda.get_device_capability()
    return (
        "" if any(_runs(str(each), here) for each in built_for) else f"has no code for this GPU ({here[0]}.{here[1]})"
    )


def _runs(architecture: str, here: tuple[int, int]) -> bool:
    """Whether code for an architecture ("8.0", "9.0a") runs on a GPU of this compute capability.

    Code runs on the same and later minor versions of its major one; that of an architecture with a letter on no other
    (CUDA C++ Programming Guide, "Binary Compatibility" and "Architecture-Specific Features").
    """
    major, minor = (int(part) for part in architecture.rstrip("a").split("."))
    return here == (major, minor) if architecture.endswith("a") else here[0] == major and here[1] >= minor


def install() -> None:
    """Make `from kernels import get_kernel` mean this module's, for train.py and all it imports."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a dependency that was not provisioned is an error, not a wait
    try:
        module = importlib.import_module("kernels")
    except ImportError:
        module = sys.modules["kernels"] = ModuleType("kernels")
    module.get_kernel = get_kernel  # type: ignore[attr-defined]
