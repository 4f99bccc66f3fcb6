"""Weights of a type that does not exist."""

# expect: rejected weights_format

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[[1,"w0"]],"nodes":[{"op":"aten.neg.default","a":[{"t":1}]}],"output":2}'
)
open("/out/weights.safetensors", "wb").write(
    (len(H := b'{"w0":{"dtype":"PICKLE","shape":[1],"data_offsets":[0,4]}}')).to_bytes(8, "little") + H + b"abcd"
)
