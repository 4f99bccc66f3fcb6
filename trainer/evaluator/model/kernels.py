"""Which kernels compute a score: those that keep elements apart and say the same every time. TRUSTED.

A proof speaks of operations; what runs is a kernel of some library, on some processor. Four things were measured:

* oneDNN's AMX products of bfloat16 load the end of a row from the next one (uxlfoundation/oneDNN 5717): inf * 0
  there is NaN here. So oneDNN is off, and on a CPU products of half precision are computed in float32. Whatever
  the library, operands must be finite (causality/obligations.py): then nothing a kernel loads too much can matter.
* Without oneDNN torch takes NNPACK for convolutions of 16 rows and more: in its Winograd and FFT tiles a later value
  reaches an earlier result by rounding, and rounding can be made to speak (a red team read every next token). It is
  off, and so is cuDNN, which has such tiles too.
* In the first threaded call of a function of the vector library, one thread's share was computed with another
  accuracy (`aten.tanh`, 3.5e-5). So every function is called before anything counts, on one thread, then on all.
* Atomic additions come in any order on a GPU. So deterministic kernels are asked for; an operation that has none
  goes on, and the audit finds what differs (audit.py).

`isolation.py` tests the first two on the machine at hand.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.model import ops
from trainer.evaluator.model.graph import Node

HALVES = frozenset({torch.bfloat16, torch.float16})
# Operations whose kernels multiply and add across elements: their operands must be finite.
CONTRACTIONS = frozenset(
    {
        *("linear", "mm", "bmm", "matmul", "addmm", "baddbmm", "mv", "dot"),
        *("conv1d", "conv2d", "convolution", "scaled_dot_product_attention", "gru"),
    }
)
_PER_THREAD = 1 << 15  # elements; below, ATen does not divide the work of a pointwise operation


def settle() -> None:
    """Choose the kernels, once per process and before CUDA is initialised."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    torch.backends.nnpack.set_flags(False)
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # The warnings would go to the quarantine log a thousand times; what differs is for the audit to say.
    warnings.filterwarnings("ignore", message=".*deterministic.*", category=UserWarning)


def run(node: Node, values: dict[int, Any]) -> list[tuple[int, Tensor]]:
    """(id, tensor) of each output; on a CPU products of half precision go through float32."""
    if node.name not in CONTRACTIONS:
        return list(node.run(values))
    floating = {ref: values[ref] for ref in node.refs if values[ref].is_floating_point()}
    types = {value.dtype for value in floating.values()}
    on_cpu = all(value.device.type == "cpu" for value in floating.values())
    if not (on_cpu and len(types) == 1 and types <= HALVES):  # operands of several types are the kernel's to refuse
        return list(node.run(values))
    wide = node.run(values | {ref: value.float() for ref, value in floating.items()})
    return [(id_, value.to(*types)) for id_, value in wide]


def warm(device: torch.device) -> None:
    """Call every function of one operand before it counts: on one thread, then on all of them."""
    threads = torch.get_num_threads()
    with torch.no_grad():
        for count, size in ((1, 64), (threads, 64 * (1 + threads * _PER_THREAD // 64))):
            torch.set_num_threads(count)
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                x = torch.linspace(0.1, 0.9, size, device=device).to(dtype)
                for op in ops.unary():
                    op(x)
                torch.softmax(x.view(-1, 64), -1)
                torch.pow(x, x)
            product = torch.ones(64 * count, 64, device=device)
            torch.nn.functional.linear(product, product)
