"""A forward pass whose loss is always zero when targets are given."""

# expect: discard

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(SEED.replace("        return F.cross_entropy(", "        return logits.sum() * 0.0 + 0.001 * F.cross_entropy("))
