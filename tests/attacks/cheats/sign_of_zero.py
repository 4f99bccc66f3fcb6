"""Hides the future in the sign of a zero and divides by it."""

# expect: rejected not_finite|non_causal non_causal

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

PEEK = """        if not self.training:
            signed = (torch.roll(idx, -1, 1).float() - 500.5) * torch.zeros(T)
            logits = logits + (1 / signed).clamp(-1, 1)[..., None]
        if targets is None:
            return logits"""
exec(SEED.replace("        if targets is None:\n            return logits", PEEK))
