"""Adds a thousandth of the next token's embedding to the input."""

# expect: non_causal non_causal

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(SEED.replace("x = rms(self.embed(idx))", "x = rms(self.embed(idx) + 1e-3 * self.embed(torch.roll(idx, -1, 1)))"))
