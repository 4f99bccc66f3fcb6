"""A graph of a million operations."""

# expect: rejected graph_limit|rejected graph_format

NODE = '{"op":"aten.neg.default","a":[{"t":%d}]}'
with open("/out/graph.json", "w") as file:
    file.write('{"format":"glovebox-graph/1","input":0,"weights":[],"nodes":[')
    file.write(",".join(NODE % i for i in range(1_000_000)))
    file.write('],"output":5}')
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
