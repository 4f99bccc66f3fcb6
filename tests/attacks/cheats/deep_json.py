"""JSON nested a hundred thousand deep."""

# expect: rejected graph_format

open("/out/graph.json", "w").write("[" * 100_000 + "]" * 100_000)
open("/out/weights.safetensors", "wb").write((2).to_bytes(8, "little") + b"{}")
