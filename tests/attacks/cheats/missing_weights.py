"""A graph that names weights the file does not hold."""

# expect: rejected weights_format

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[[1,"w0"]],"nodes":[{"op":"aten.neg.default","a":[{"t":1}]}],"output":2}'
)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
