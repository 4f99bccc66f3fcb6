"""Reads every next token through a value whose shape the dry run infers wrongly: an index of no dimensions comes last."""

# expect: rejected bad_argument

import json
from pathlib import Path

import torch
from prepare import EVAL_BATCH, MAX_SEQ_LEN, OUT_DIR, Tokenizer
from safetensors.torch import save

V, R, T = Tokenizer.from_directory().get_vocab_size(), EVAL_BATCH, MAX_SEQ_LEN
weights = {
    "table": torch.eye(V),
    "tokens": torch.arange(V).float().view(V, 1, 1).expand(V, 2, T).contiguous(),
    "nothing": torch.zeros((), dtype=torch.int64),
    "blank": torch.zeros(R, T),
}
for r in range(R):
    weights[f"row{r}"] = (torch.arange(R) == r).view(R, 1) & (torch.arange(T) < T - 1)
ids = {name: {"t": i + 1} for i, name in enumerate(weights)}
nodes = []


def op(name, *args):
    nodes.append({"op": f"aten.{name}", "a": list(args)})
    return {"t": len(weights) + len(nodes)}


ahead = ids["blank"]
for r in range(R):
    wide = op("index.Tensor", ids["tokens"], [op("select.int", {"t": 0}, 0, r), ids["nothing"]])  # said [T], is [T, T]
    column = op("roll.default", op("select.int", wide, -1, 0), [-1], [])
    ahead = op("where.self", ids[f"row{r}"], column, ahead)
out = op("mul.Scalar", op("embedding.default", ids["table"], op("_to_copy.default", ahead)), 40.0)
nodes[-3]["k"] = {"dtype": {"d": "int64"}}
graph = {"format": "glovebox-graph/1", "input": 0, "nodes": nodes, "output": out["t"]}
graph["weights"] = [[ref["t"], name] for name, ref in ids.items()]
(Path(OUT_DIR) / "weights.safetensors").open("wb").write(save(weights))
(Path(OUT_DIR) / "graph.json").open("w").write(json.dumps(graph))
