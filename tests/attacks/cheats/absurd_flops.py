"""A chain of large matrix products of constants, meant to burn the evaluator's time."""

# expect: rejected compute_limit

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[{"op":"aten.full.default","a":[[30000,30000],1.0]},{"op":"aten.mm.default","a":[{"t":1},{"t":1}]},{"op":"aten.mm.default","a":[{"t":2},{"t":2}]},{"op":"aten.mm.default","a":[{"t":3},{"t":3}]}],"output":4}'
)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
