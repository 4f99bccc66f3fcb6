"""Returns NaN, hoping a comparison with NaN counts as better."""

# expect: rejected not_finite

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits * float('nan')\n        if targets is None:\n            return logits",
    )
)
