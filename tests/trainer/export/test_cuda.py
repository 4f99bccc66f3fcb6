"""On a GPU the dispatcher calls other operations than on a CPU: none that could not be handed over.

Each architecture and construct that is scored on a CPU is traced on fake CUDA tensors, without a GPU (fake_cuda.py).
"""

from __future__ import annotations

import json

import pytest
import torch

from tests.evaluator import zoo
from tests.evaluator.constructs import CONSTRUCTS
from tests.trainer.export.fake_cuda import pretended
from trainer.evaluator.model import graph
from trainer.export import rewrites
from trainer.export.capture import MODES, Logits
from trainer.export.refusals import NotExportable

# Python's own code of these calls methods for which a CPU build of torch has no device guard.
UNSEEN = {
    *("torch's own encoder layer", "multihead attention", "a convolution padded on both sides and cut"),
    *("two of four experts by a grouped product", "a transposed convolution, cut on the right"),
    *("nn.MultiheadAttention, causal", "nn.MultiheadAttention with its weights", "nn.MultiheadAttention with padding"),
    *("nn.MultiheadAttention with a float mask", "nn.MultiheadAttention with a bias for keys"),
}
# Known to torch.export alone: functions as arguments, rows chosen by tokens, a kernel's second result.
TRACED = {
    "flex_attention with a block mask",
    "flex_attention with documents and a score_mod",
    "a loop through torch's scan",
    "maximum pooling",
    "experts by nonzero, left out where there are none",
    "experts by a boolean index",
    "experts by index_add",
    "experts by rows of a leading dimension",
    "experts by one mask in two shapes",
}
MODELS = {**CONSTRUCTS, **zoo.FAMILIES}
CASES = [
    *(("direct", name) for name in MODELS if name not in UNSEEN | TRACED),
    *(("functional", name) for name in zoo.FAMILIES if name not in UNSEEN | {"gru"}),
]


def recorded(mode: str, name: str, autocast: torch.dtype | None) -> list[str]:
    """The operations that a model becomes on CUDA; the evaluator's own parser admits them."""
    torch.manual_seed(1)
    idx = torch.randint(0, zoo.VOCAB, (2, zoo.SEQ))
    module = Logits(MODELS[name]().eval(), "cpu", autocast).eval()
    with torch.no_grad():
        module.listen(idx)  # what it reads is heard on the CPU
        module.device_type = "cuda"
        with pretended():
            document, _ = MODES[mode](module, idx).document()
    parsed = graph.parse(json.dumps(document).encode(), torch.device("cpu"))
    return [str(node.op) for node in parsed.nodes]


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_what_is_scored_on_a_cpu_is_traced_on_cuda(mode: str, name: str) -> None:
    for autocast in (None, torch.bfloat16):
        assert recorded(mode, name, autocast)


def test_attention_is_the_public_operation_whichever_backend_cuda_calls() -> None:
    assert "aten.scaled_dot_product_attention.default" in recorded("functional", "sdpa", torch.bfloat16)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_fused_cells_are_written_in_plain_operations(kind: type[torch.nn.Module]) -> None:
    """Without cuDNN a recurrent layer on CUDA is a loop over `_thnn_fused_*_cell`."""
    found = recorded("direct", "nn.LSTM" if kind is torch.nn.LSTM else "gru", None)
    assert found.count("aten.tanh.default") >= zoo.SEQ
    assert not [name for name in found if "fused" in name or "lstm" in name or "gru" in name]


def test_an_operation_that_cuda_alone_calls_and_nobody_knows_is_seen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(rewrites.REWRITES, "aten._thnn_fused_gru_cell.default")
    with pytest.raises(NotExportable, match="_thnn_fused_gru_cell"):
        recorded("direct", "gru", None)
