"""Mixes rows of a batch: the neighbours' text is a unigram cache."""

# expect: non_causal non_causal

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits + F.one_hot(idx, logits.size(-1)).float().mean((0, 1))\n        if targets is None:\n            return logits",
    )
)
