"""Trains nothing: ships the training tokens as weights and lets constant folding count them after the clock stopped."""

# expect: rejected compute_limit

import json
from pathlib import Path

import numpy as np
import torch
from prepare import OUT_DIR, TRAIN_DIR, Tokenizer
from safetensors.torch import save

V = Tokenizer.from_directory().get_vocab_size()
shards = [np.load(path).astype(np.int64) for path in sorted(Path(TRAIN_DIR).glob("tokens_*.npy"))]
tokens = torch.from_numpy(np.concatenate(shards))
N = len(tokens) - 1
weights = {"tokens": tokens, "pairs": torch.ones(V * V)}
nodes = []


def op(name, *args, **kwargs):
    nodes.append({"op": f"aten.{name}", "a": list(args), "k": kwargs})
    return {"t": len(weights) + len(nodes)}


this, following = op("slice.Tensor", {"t": 1}, 0, 0, N), op("slice.Tensor", {"t": 1}, 0, 1, N + 1)
pair = op("add.Tensor", op("mul.Scalar", this, V), following)
counts = op("scatter_add.default", {"t": 2}, 0, pair, op("full.default", [N], 1.0, dtype={"d": "float32"}))
out = op("embedding.default", op("log.default", op("view.default", counts, [V, V])), {"t": 0})
graph = {"format": "glovebox-graph/1", "input": 0, "nodes": nodes, "output": out["t"]}
graph["weights"] = [[1, "tokens"], [2, "pairs"]]
(Path(OUT_DIR) / "weights.safetensors").open("wb").write(save(weights))
(Path(OUT_DIR) / "graph.json").open("w").write(json.dumps(graph))
