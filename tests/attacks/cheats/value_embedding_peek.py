"""Shifts a value embedding by one position, so attention to the past carries the future."""

# expect: non_causal non_causal

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        for block in self.blocks:\n            x = block(x, self.cos",
        "        x = x + 0.1 * self.embed(idx).roll(-1, 1)\n        for block in self.blocks:\n            x = block(x, self.cos",
    )
)
