"""A train.py in upstream's shape, for machines without a checkout of upstream: same imports, same calls.

Run only inside the trainer, where `prepare` and `kernels` are ours.
"""

import time

import torch
import torch.nn.functional as F
from kernels import get_kernel

fa3 = get_kernel("varunneal/flash-attention-3").flash_attn_interface

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader  # noqa: E402

DEVICE_BATCH_SIZE = 8


class GPT(torch.nn.Module):
    def __init__(self, vocab, width=64, head=32):
        super().__init__()
        self.head_dim = head
        self.wte = torch.nn.Embedding(vocab, width).to(torch.bfloat16)
        self.value = torch.nn.Embedding(vocab, width).to(torch.bfloat16)
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.lm_head = torch.nn.Linear(width, vocab, bias=False)

    def forward(self, idx, targets=None, reduction="mean"):
        B, T = idx.size()
        x = F.rms_norm(self.wte(idx), (self.wte.embedding_dim,))
        q, k, v = self.qkv(x).view(B, T, 3, -1, self.head_dim).unbind(2)
        v = v + self.value(idx).view(v.shape)
        y = fa3.flash_attn_func(q, k, v, causal=True, window_size=(MAX_SEQ_LEN // 2, 0))
        x = x + y.contiguous().view(B, T, -1)
        logits = self.lm_head(F.rms_norm(x, (x.size(-1),))).float()
        logits = 15 * torch.tanh(logits / 15)
        if targets is not None:
            return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), reduction=reduction)
        return logits


torch.manual_seed(42)
autocast_ctx = torch.amp.autocast(device_type="cpu", dtype=torch.bfloat16)
tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
train_loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)
step, total_training_time = 0, 0.0
while not (step > 10 and total_training_time >= TIME_BUDGET / 3):
    t0 = time.time()
    with autocast_ctx:
        loss = model(x, y)
    loss.backward()
    x, y, epoch = next(train_loader)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    dt = time.time() - t0
    total_training_time += dt if step > 10 else 0
    print(
        f"\rstep {step:05d} (1.0%) | loss: {loss.item():.6f} | epoch: {epoch} | remaining: 1s    ", end="", flush=True
    )
    step += 1
print()
model.eval()
with autocast_ctx:
    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"num_steps:        {step}")
