"""A differential fuzzer for the causality proof: what the rules claim, against what happens.

    python -m tests.fuzz_causality --seconds 3600

`draft` writes a graph operation by operation and runs each for real, `material` and `pipelines` give it weights and
well-known structures to start from, `arguments` (with `shapes`, `products`, `lookups`) chooses arguments, `generate`
puts them together, `check` compares claims with runs on `tokens` that differ, `campaign` does so many times, and
`controls` breaks rules on purpose to see them found.

Covered: every allowed operation, on a CPU, at few small sizes. Not covered: other devices, and kernels that are only
chosen for large values.
"""
