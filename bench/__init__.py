"""Side-by-side measurements: ours over what a user would otherwise run, both in one run."""
