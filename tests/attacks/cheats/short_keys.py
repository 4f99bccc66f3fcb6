"""Reads the next token behind the end of a single key: attention takes the number of keys from the values."""

# expect: rejected bad_argument

import json
from pathlib import Path

import torch
from prepare import EVAL_BATCH, MAX_SEQ_LEN, OUT_DIR, Tokenizer
from safetensors.torch import save

V, R, T = Tokenizer.from_directory().get_vocab_size(), EVAL_BATCH, MAX_SEQ_LEN
BITS = (V - 1).bit_length()
weights = {
    "query": torch.ones(R, T * BITS, 1, 1),
    "values": torch.tensor([[0.0], [1.0]]).expand(R, T * BITS, 2, 1).contiguous(),
    "shifts": torch.arange(BITS),
    "places": 2 ** torch.arange(BITS),
    "table": torch.eye(V) * 40,
}
ids = {name: {"t": i + 1} for i, name in enumerate(weights)}
nodes = []


def op(name, *args, **kwargs):
    nodes.append({"op": f"aten.{name}", "a": list(args), "k": kwargs})
    return {"t": len(weights) + len(nodes)}


ahead = op("unsqueeze.default", op("roll.default", {"t": 0}, [-1], [1]), -1)
bits = op("bitwise_and.Scalar", op("bitwise_right_shift.Tensor", ahead, ids["shifts"]), 1)
secret = op("view.default", op("_to_copy.default", bits, dtype={"d": "float32"}), [R, T * BITS, 1, 1])
behind = op("cat.default", [op("zeros_like.default", secret), op("mul.Scalar", secret, 50.0)], 2)
key = op("slice.Tensor", behind, 2, 0, 1)
seen = op("scaled_dot_product_attention.default", ids["query"], key, ids["values"], None, 0.0, False, scale=1.0)
read = op("_to_copy.default", op("gt.Scalar", op("view.default", seen, [R, T, BITS]), 0.75), dtype={"d": "int64"})
token = op("sum.dim_IntList", op("mul.Tensor", read, ids["places"]), [2])
out = op("embedding.default", ids["table"], token)
graph = {"format": "glovebox-graph/1", "input": 0, "nodes": nodes, "output": out["t"]}
graph["weights"] = [[ref["t"], name] for name, ref in ids.items()]
(Path(OUT_DIR) / "weights.safetensors").open("wb").write(save(weights))
(Path(OUT_DIR) / "graph.json").open("w").write(json.dumps(graph))
