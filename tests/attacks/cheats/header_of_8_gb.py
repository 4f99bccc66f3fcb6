"""A weights header that claims eight gigabytes."""

# expect: rejected weights_format

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[{"op":"aten.neg.default","a":[{"t":0}]}],"output":1}'
)
open("/out/weights.safetensors", "wb").write((8 << 30).to_bytes(8, "little") + b"{}")
