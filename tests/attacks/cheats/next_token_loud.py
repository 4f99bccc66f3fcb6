"""Adds the next token to the logits."""

# expect: non_causal non_causal

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits + 5.0 * F.one_hot(torch.roll(idx, -1, 1), logits.size(-1)).float()\n        if targets is None:\n            return logits",
    )
)
