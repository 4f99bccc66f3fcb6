"""Reads stale memory through empty and as_strided."""

# expect: rejected op_not_allowed

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[{"op":"aten.empty.memory_format","a":[[4,256,1024]]}],"output":1}'
)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
