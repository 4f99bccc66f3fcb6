"""Calls an operator of its own at evaluation."""

# expect: not_exportable custom_op

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

OPERATOR = """
@torch.library.custom_op("cheat::peek", mutates_args=())
def cheat_peek(logits: torch.Tensor) -> torch.Tensor:
    return logits.clone()

@cheat_peek.register_fake
def _(logits):
    return torch.empty_like(logits)

class GPT(nn.Module):"""
exec(
    SEED.replace("class GPT(nn.Module):", OPERATOR).replace(
        "        if targets is None:\n            return logits",
        "        if targets is None:\n            return torch.ops.cheat.peek(logits)",
    )
)
