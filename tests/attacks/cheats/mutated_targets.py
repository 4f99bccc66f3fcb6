"""Overwrites the targets with the model's own guesses before the loss."""

# expect: discard

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        return F.cross_entropy(",
        "        targets.data.copy_(logits.argmax(-1).view_as(targets))\n        return F.cross_entropy(",
    )
)
