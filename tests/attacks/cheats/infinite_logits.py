"""Returns +inf for every token."""

# expect: rejected not_finite

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if targets is None:\n            return logits + float('inf')",
    )
)
