"""A harmless operation and a forbidden one under the same key."""

# expect: rejected graph_format

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[{"op":"aten.neg.default","op":"aten.as_strided.default","a":[{"t":0}]}],"output":1}'
)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
