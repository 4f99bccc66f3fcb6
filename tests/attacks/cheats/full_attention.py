"""Attention without a causal mask."""

# expect: non_causal non_causal

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(SEED.replace("causal=True, window_size=(self.window, 0)", "causal=False, window_size=(-1, -1)"))
