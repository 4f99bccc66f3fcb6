"""A tensor of 2**40 elements by expand and an addition."""

# expect: rejected graph_limit|rejected bad_argument|rejected compute_limit

open("/out/graph.json", "w").write(
    '{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[{"op":"aten.expand.default","a":[{"t":0},[1048576,4,256]]},{"op":"aten.unsqueeze.default","a":[{"t":1},0]},{"op":"aten.expand.default","a":[{"t":2},[1024,1048576,4,256]]},{"op":"aten.add.Scalar","a":[{"t":3},1]}],"output":4}'
)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
