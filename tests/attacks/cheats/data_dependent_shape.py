"""Selects tokens by their value, so shapes depend on data."""

# expect: not_exportable

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(
    SEED.replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = logits + idx[idx > 3].sum()\n        if targets is None:\n            return logits",
    )
)
