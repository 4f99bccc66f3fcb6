"""A range whose length the kernel counts in floating point and the dry run in integers."""

# expect: rejected bad_argument

import json
from pathlib import Path

import torch
from prepare import EVAL_BATCH, MAX_SEQ_LEN, OUT_DIR, Tokenizer
from safetensors.torch import save

V = Tokenizer.from_directory().get_vocab_size()
nodes = [
    {"op": "aten.arange.start", "a": [2**53, 2**53 + V + 1], "k": {"dtype": {"d": "float32"}}},  # V or V + 1 long
    {"op": "aten.slice.Tensor", "a": [{"t": 1}, 0, 0, V]},
    {"op": "aten.sub.Tensor", "a": [{"t": 2}, {"t": 2}]},
    {"op": "aten.expand.default", "a": [{"t": 3}, [EVAL_BATCH, MAX_SEQ_LEN, V]]},
]
graph = {"format": "glovebox-graph/1", "input": 0, "weights": [], "nodes": nodes, "output": 4}
(Path(OUT_DIR) / "weights.safetensors").open("wb").write(save({"none": torch.zeros(1)}))
(Path(OUT_DIR) / "graph.json").open("w").write(json.dumps(graph))
