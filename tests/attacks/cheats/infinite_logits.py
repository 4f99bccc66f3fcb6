"""Returns +inf for every token."""

# expect: rejected not_finite

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits + float('inf')\n        if targets is None:\n            return logits",
    )
)
