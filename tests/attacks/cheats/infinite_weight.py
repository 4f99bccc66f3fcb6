"""An infinite weight in a product: a constant is an operand like any other."""

# expect: rejected not_finite

import torch
import torch.nn.functional as F
from prepare import Tokenizer, evaluate_bpb
from torch import nn

tokenizer = Tokenizer.from_directory()
V = tokenizer.get_vocab_size()


class Infinite(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, 33))
        weight = torch.randn(V, 33)
        weight[0, 0] = float("inf")
        self.register_buffer("weight", weight)

    def forward(self, idx):
        return F.linear(F.embedding(idx, self.table), self.weight).clamp(-15, 15)


evaluate_bpb(Infinite().eval(), tokenizer, 4)
