"""Marks tokens with infinities that a bfloat16 product on AMX loads into the row before: a look at the next token."""

# expect: rejected not_finite

import torch
import torch.nn.functional as F
from prepare import MAX_SEQ_LEN, Tokenizer, evaluate_bpb
from torch import nn

tokenizer = Tokenizer.from_directory()
V, T, WIDE = tokenizer.get_vocab_size(), MAX_SEQ_LEN, 33  # one past a tile of 32


class Peek(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(V, V))
        marked = torch.zeros(V, WIDE)
        marked[torch.arange(V) % 2 == 1, 0] = float("inf")
        self.register_buffer("marked", marked.bfloat16())
        self.register_buffer("ones", torch.ones(16, WIDE, dtype=torch.bfloat16))

    def forward(self, idx):
        B, T = idx.shape
        product = F.linear(F.embedding(idx, self.marked).view(B * T, WIDE), self.ones)[:, 0].view(B, T, 1)
        odd = (torch.arange(V) % 2 == 1).float() * 20
        return F.embedding(idx, self.table) + torch.where(product != product, odd, -odd)


evaluate_bpb(Peek().eval(), tokenizer, 4)
