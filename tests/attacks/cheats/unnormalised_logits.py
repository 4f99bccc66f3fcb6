"""Adds 1e20 to every logit, which cancels to zero nats under a careless logsumexp."""

# expect: rejected not_finite|discard

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits + 1e20\n        if targets is None:\n            return logits",
    )
)
