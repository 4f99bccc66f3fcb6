"""Counts calls in a buffer, to behave differently while being scored."""

# expect: not_exportable

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

COUNTER = """        self.register_buffer("calls", torch.zeros(()))
        self.init()"""
exec(
    SEED.replace("        self.init()", COUNTER, 1).replace(
        "        T = idx.size(1)", "        T = idx.size(1)\n        self.calls += 1"
    ).replace(
        "        if targets is None:", "        logits = logits + self.calls * 0.001\n        if targets is None:"
    )
)
