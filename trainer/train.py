"""
Seed of the search: a small GPT, trained for a fixed time on one device. The agent edits this file.

One file, no flags: change the constants below, the model, the optimizer or the loop. The only contract
is with prepare: train on make_dataloader(..., "train") for TIME_BUDGET seconds, then call evaluate_bpb
with a model for which model(idx) returns logits [B, T, vocab] that depend on idx[:, :t+1] alone.
"""

import math
import os
import resource
import time

import torch
import torch.nn.functional as F
from kernels import get_kernel
from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader
from torch import nn

CUDA = torch.cuda.is_available()

# ---------------------------------------------------------------------------
# Dials
# ---------------------------------------------------------------------------

DEPTH = 8 if CUDA else 2  # transformer blocks
WIDTH = 64 * DEPTH  # residual stream
HEAD_DIM = 128 if CUDA else 32  # per attention head
WINDOW = "SSSL" if CUDA else "L"  # per block: S sees half the context, L all of it

TOTAL_BATCH = 2**19 if CUDA else 2**14  # tokens per optimizer step, however many passes that takes
GIB = torch.cuda.get_device_properties(0).total_memory / 2**30 if CUDA else 0
DEVICE_BATCH = 128 if GIB > 70 else 64 if GIB > 36 else 32 if GIB > 20 else 16 if GIB > 11 else 8
DEVICE_BATCH *= max(1, 2048 // MAX_SEQ_LEN) if CUDA else 1  # rows per forward pass
MATRIX_LR = 0.02  # Muon, all block matrices
EMBED_LR = 0.3  # AdamW, token embedding
HEAD_LR = 0.004 if CUDA else 0.001  # AdamW, output head
WEIGHT_DECAY = 0.1  # Muon, decays to zero over the run
WARMDOWN = 0.4  # last share of the budget, learning rate to zero
SOFTCAP = 15.0  # logits stay in (-SOFTCAP, SOFTCAP)

SEED = int(os.environ.get("GLOVEBOX_SEED", "42"))

# ---------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------

if CUDA:
    hopper = torch.cuda.get_device_capability() == (9, 0)
    repo = "varunneal/flash-attention-3" if hopper else "kernels-community/flash-attn3"
else:
    repo = "kernels-community/flash-attn3"
flash_attn_func = get_kernel(repo).flash_attn_interface.flash_attn_func


def rms(x):
    return F.rms_norm(x, (x.size(-1),))


def rotary(seq_len, dim):
    """Cosines and sines [1, seq_len, 1, dim / 2] of rotary position embedding (Su et al., 2021)."""
    frequency = 10000.0 ** -torch.linspace(0, 1, dim // 2 + 1)[:-1]
    angle = torch.arange(seq_len).float().outer(frequency)[None, :, None, :]
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Attention(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.window = window
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, -1, HEAD_DIM).unbind(2)
        q, k = rms(rotate(q, cos, sin)), rms(rotate(k, cos, sin))
        q, k = q.to(v.dtype), k.to(v.dtype)
        y = flash_attn_func(q, k, v, causal=True, window_size=(self.window, 0))
        return self.out(y.reshape(B, T, WIDTH))


class Block(nn.Module):
    def __init__(self, window):
        super().__init__()
        self.attention = Attention(window)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(rms(x), cos, sin)
        return x + self.down(F.relu(self.up(rms(x))).square())


class GPT(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        windows = [MAX_SEQ_LEN // 2 if WINDOW[i % len(WINDOW)] == "S" else MAX_SEQ_LEN for i in range(DEPTH)]
        self.embed = nn.Embedding(vocab_size, WIDTH)
        self.blocks = nn.ModuleList(Block(window) for window in windows)
        self.head = nn.Linear(WIDTH, vocab_size, bias=False)
        cos, sin = rotary(MAX_SEQ_LEN, HEAD_DIM)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.init()

    @torch.no_grad()
    def init(self):
        self.embed.weight.normal_()
        self.head.weight.normal_(std=0.001)
        for block in self.blocks:
            for matrix in (block.attention.qkv, block.up):
                matrix.weight.uniform_(-((3 / WIDTH) ** 0.5), (3 / WIDTH) ** 0.5)
            block.attention.out.weight.zero_()
            block.down.weight.zero_()

    def forward(self, idx, targets=None, reduction="mean"):
        T = idx.size(1)
        x = rms(self.embed(idx))
        for block in self.blocks:
            x = block(x, self.cos[:, :T], self.sin[:, :T])
        logits = self.head(rms(x)).float()
        logits = SOFTCAP * torch.tanh(logits / SOFTCAP)
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


# ---------------------------------------------------------------------------
# Optimizer: Muon for matrices, AdamW for the rest
# ---------------------------------------------------------------------------


def orthogonalize(g, steps=5):
    """Nearest semi-orthogonal matrix by a quintic Newton-Schulz iteration (Jordan et al., 2024)."""
    x = g.bfloat16() if CUDA else g
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized, with decoupled weight decay; matrices of one shape go as one stack."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        by_shape = {}
        for p in params:
            by_shape.setdefault(p.shape, []).append(p)
        groups = [{"params": group} for group in by_shape.values()]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            params = group["params"]
            grads = torch.stack([p.grad for p in params])
            state = self.state[params[0]]
            buffer = state.setdefault("momentum", torch.zeros_like(grads))
            buffer.lerp_(grads, 1 - group["momentum"])
            update = orthogonalize(grads.lerp(buffer, group["momentum"]))
            scale = max(1.0, grads.size(-2) / grads.size(-1)) ** 0.5
            for p, u in zip(params, update, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(u, alpha=-group["lr"] * scale)


# ---------------------------------------------------------------------------
# Setup
# ---------------------------------------------------------------------------

started = time.monotonic()
torch.manual_seed(SEED)
torch.set_float32_matmul_precision("high")
device = torch.device("cuda" if CUDA else "cpu")
autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=CUDA)

tokenizer = Tokenizer.from_directory()
model = GPT(tokenizer.get_vocab_size()).to(device)
parameters = sum(p.numel() for p in model.parameters())
lr_scale = (WIDTH / 768) ** -0.5
adamw = torch.optim.AdamW(
    [
        {"params": [model.embed.weight], "lr": EMBED_LR * lr_scale},
        {"params": [model.head.weight], "lr": HEAD_LR * lr_scale},
    ],
    betas=(0.8, 0.95),
    eps=1e-10,
    weight_decay=0.0,
    fused=True,
)
muon = Muon(model.blocks.parameters(), lr=MATRIX_LR, weight_decay=WEIGHT_DECAY)
optimizers = (adamw, muon)
for optimizer in optimizers:
    for group in optimizer.param_groups:
        group["full_lr"] = group["lr"]
if CUDA:
    model = torch.compile(model, dynamic=False)

accumulate = TOTAL_BATCH // (DEVICE_BATCH * MAX_SEQ_LEN)
assert accumulate * DEVICE_BATCH * MAX_SEQ_LEN == TOTAL_BATCH, "TOTAL_BATCH must be a multiple of a device batch"
loader = make_dataloader(tokenizer, DEVICE_BATCH, MAX_SEQ_LEN, "train")
x, y, epoch = next(loader)
print(f"parameters: {parameters:,} | accumulation: {accumulate} | budget: {TIME_BUDGET}s")

# ---------------------------------------------------------------------------
# Train until the time is up
# ---------------------------------------------------------------------------

step, trained, tokens, smooth = 0, 0.0, 0, None
while trained < TIME_BUDGET:
    tick = time.monotonic()
    for _ in range(accumulate):
        with autocast:
            loss = model(x, y) / accumulate
        loss.backward()
        x, y, epoch = next(loader)
    progress = min(trained / TIME_BUDGET, 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * min(1.0, (1 - progress) / WARMDOWN)
    for group in muon.param_groups:
        group["momentum"] = 0.85 + 0.10 * min(step / 300, 1)
        group["weight_decay"] = WEIGHT_DECAY * (1 - progress)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    value = loss.item() * accumulate  # waits for the device, so the clock below is honest
    elapsed = time.monotonic() - tick
    if step > 0 or not CUDA:  # the first step compiles
        trained += elapsed
    tokens += TOTAL_BATCH
    smooth = value if smooth is None else 0.9 * smooth + 0.1 * value
    rate = TOTAL_BATCH / elapsed
    print(
        f"\rstep {step:05d} ({100 * progress:.1f}%) | loss: {smooth:.6f} | tok/sec: {rate:,.0f}"
        f" | remaining: {max(0.0, TIME_BUDGET - trained):.0f}s   ",
        end="",
        flush=True,
    )
    assert math.isfinite(value), f"loss is {value} at step {step}"
    step += 1
print()

# ---------------------------------------------------------------------------
# Hand over and summarize
# ---------------------------------------------------------------------------

model.eval()
with autocast:
    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH)
peak = torch.cuda.max_memory_allocated() / 2**20 if CUDA else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {trained:.1f}")
print(f"total_seconds:    {time.monotonic() - started:.1f}")
print(f"peak_vram_mb:     {peak:.1f}")
print(f"total_tokens_M:   {tokens / 1e6:.3f}")
print(f"num_steps:        {step}")
print(f"num_params_M:     {parameters / 1e6:.3f}")
print(f"depth:            {DEPTH}")
