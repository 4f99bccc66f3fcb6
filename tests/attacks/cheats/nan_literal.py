"""A NaN literal in the graph."""

# expect: rejected graph_format

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[{"op":"aten.add.Scalar","a":[{"t":0},NaN]}],"output":1}'
)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
