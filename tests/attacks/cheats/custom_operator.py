"""Calls an operator of its own at evaluation."""

# expect: not_exportable custom_op

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

OPERATOR = """
torch.library.define("cheat::peek", "(Tensor x) -> Tensor")

@torch.library.impl("cheat::peek", "cpu")
def cheat_peek(logits):
    return logits.clone()

@torch.library.register_fake("cheat::peek")
def _(logits):
    return torch.empty_like(logits)

class GPT(nn.Module):"""
exec(
    SEED.replace("class GPT(nn.Module):", OPERATOR).replace(
        "        if targets is None:\n            return logits",
        "        if not self.training:\n            logits = torch.ops.cheat.peek(logits)\n        if targets is None:\n            return logits",
    )
)
