"""Logits for one token less than the vocabulary."""

# expect: not_exportable output_shape

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits[..., :-1]\n        if targets is None:\n            return logits",
    )
)
