"""Steps that compute on the GPU themselves, each in a process of its own: `python -m ...inside STEP BENCH_JSON`."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from bench.gpu_acceptance.figures import Figure, above, below, holds, measured, noted, tell
from bench.gpu_acceptance.zoo import constructs, zoo
from trainer import attention as stand_in
from trainer import kernels_offline
from trainer.evaluator import score

CUDA = torch.device("cuda")
ROWS = 10_240  # of upstream's evaluation


def _timed(action: Callable[[], Any], repeats: int = 5) -> float:
    """Best seconds of an action, the device waited for."""
    best = math.inf
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        action()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


# ---------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------


def attention(_: dict[str, Any]) -> Iterator[Figure]:
    """The stand-in: what it computes, what it costs, and that torch.compile takes it whole."""
    batch, seq, heads, size, window = 64, 2048, 4, 128, 1024
    torch.manual_seed(0)
    made = [torch.randn(batch, seq, heads, size, device=CUDA, dtype=torch.bfloat16) for _ in range(3)]
    q, k, v = (each.requires_grad_() for each in made)
    ways = {
        "flash, windowed": lambda: stand_in.flash_attn_func(q, k, v, causal=True, window_size=(window, 0)),
        "flash, full": lambda: stand_in.flash_attn_func(q, k, v, causal=True),
        "masked": lambda: stand_in._sdpa(q, k, v, None, window, 0),
    }
    yield holds("the stand-in has torch's kernel", stand_in.has_kernel(q, k, v))
    times = {}
    for name, way in ways.items():
        times[name] = _timed(partial(_both_ways, way))
        yield measured(f"{name}: forward and backward", 1000 * times[name], "ms")
    yield above("windowed, times as fast as full", times["flash, full"] / times["flash, windowed"], 0.6)
    yield measured("masked, times as slow as windowed", times["masked"] / times["flash, windowed"])
    with torch.no_grad():
        difference = (ways["flash, windowed"]() - ways["masked"]()).abs().max().item()
    yield below("flash against mask, largest difference", difference, 2e-2)
    gradients = []
    for name in ("flash, windowed", "masked"):
        q.grad = k.grad = v.grad = None
        ways[name]().square().sum().backward()
        gradients.append(torch.cat([x.grad.flatten().float() for x in (q, k, v) if x.grad is not None]))
    cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], 0).item()
    yield above("gradients against mask, cosine", cosine, 0.999)
    whole = torch.compile(ways["flash, windowed"], fullgraph=True)
    yield below(
        "torch.compile, in one graph: difference", (whole() - ways["flash, windowed"]()).abs().max().item(), 2e-2
    )
    package = kernels_offline._mounted("varunneal/flash-attention-3")
    yield noted("kernel package", "none provisioned" if package is None else package.__name__)


def _both_ways(way: Callable[[], torch.Tensor]) -> None:
    way().sum().backward()


# ---------------------------------------------------------------------------
# Log-softmax
# ---------------------------------------------------------------------------


def nats(_: dict[str, Any]) -> Iterator[Figure]:
    """float32 terms and float64 sums, against float64 throughout."""
    torch.manual_seed(0)
    logits = 15 * torch.tanh(torch.randn(8, 2048, 8192, device=CUDA) * 3 / 15)
    chosen = torch.multinomial(torch.softmax(logits.flatten(0, 1)[:4096], -1), 1).view(2, 2048)
    targets = torch.cat((chosen, torch.randint(0, 8192, (6, 2048), device=CUDA)))

    def exact() -> torch.Tensor:
        out = torch.empty(targets.shape, dtype=torch.float64, device=CUDA)
        for row in range(len(logits)):
            z = logits[row].to(torch.float64, copy=True)
            z -= z.amax(-1, keepdim=True)
            gathered = z.gather(-1, targets[row].unsqueeze(-1)).squeeze(-1)
            out[row] = z.exp_().sum(-1).log_() - gathered
        return out

    theirs, ours = exact(), score.nats(logits, targets)
    yield below("largest difference of a token", (theirs - ours).abs().max().item(), 1e-6, "nats")
    yield below("difference of the mean", abs((theirs - ours).mean().item()), 1e-7, "nats")
    before, now = _timed(exact), _timed(lambda: score.nats(logits, targets))
    yield measured("float64 throughout, upstream's rows", before * ROWS / 8, "s")
    yield measured("as it is, upstream's rows", now * ROWS / 8, "s")
    yield above("times as fast", before / now, 1.0)


Step = Callable[[dict[str, Any]], Iterator[Figure]]
STEPS: dict[str, Step] = {"attention": attention, "nats": nats, "zoo": zoo, "constructs": constructs}


def main(argv: list[str]) -> None:
    """Run one step."""
    for figure in STEPS[argv[1]](json.loads(argv[2])):
        tell(figure)


if __name__ == "__main__":
    main(sys.argv)
