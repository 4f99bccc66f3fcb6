"""A recurrence with four gate columns: the kernel splits them in three and reads past its own list."""

# expect: rejected bad_argument

import json
from pathlib import Path

import torch
from prepare import EVAL_BATCH, MAX_SEQ_LEN, OUT_DIR, Tokenizer
from safetensors.torch import save

V, R, T = Tokenizer.from_directory().get_vocab_size(), EVAL_BATCH, MAX_SEQ_LEN
weights = {"table": torch.randn(V, 1), "state": torch.zeros(1, R, 4), "input": torch.ones(4, 1), "hidden": torch.ones(4, 4)}
weights["bias"] = torch.zeros(4)
params = [{"t": 3}, {"t": 4}, {"t": 5}, {"t": 5}]
nodes = [
    {"op": "aten.embedding.default", "a": [{"t": 1}, {"t": 0}]},
    {"op": "aten.gru.input", "a": [{"t": 6}, {"t": 2}, params, True, 1, 0.0, False, False, True], "n": 2},
    {"op": "aten.select.int", "a": [{"t": 7}, 2, 0]},
    {"op": "aten.unsqueeze.default", "a": [{"t": 9}, -1]},
    {"op": "aten.expand.default", "a": [{"t": 10}, [R, T, V]]},
]
graph = {"format": "glovebox-graph/1", "input": 0, "nodes": nodes, "output": 11}
graph["weights"] = [[i + 1, name] for i, name in enumerate(weights)]
(Path(OUT_DIR) / "weights.safetensors").open("wb").write(save(weights))
(Path(OUT_DIR) / "graph.json").open("w").write(json.dumps(graph))
