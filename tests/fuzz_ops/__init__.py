"""The operation conformance campaign: does the dry run see the shapes that the real operations make?

    python -m tests.fuzz_ops --calls 1000000

The evaluator decides on a graph by the shapes and dtypes of fake tensors and then runs the real kernels. Wherever the
two differ, everything proved of the graph is about another graph. For every operation of the allow-list this makes
random arguments that the parser would accept, runs both and compares the outputs.

    tensors   inputs of every dtype, rank and memory layout
    draw      one argument of any kind of the schema
    movement, contraction, reduction, indexing    arguments that an operation is likely to take
    rules     what the evaluator's own rules say of a call
    compare   one call on real and on fake tensors
    campaign  calls by seed, and what came of them
    workers   processes that may die of it
"""
