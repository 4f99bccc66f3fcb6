"""How many seconds of training the demo needs here: enough steps for a change to show, on a slow or busy machine too.

Runs in the trainer's image. Prints a whole number, from 6 (what the demo takes on two quiet cores) to 60.
"""

import math
import statistics
import time

import torch
from torch import nn

STEPS, PASSES = 8, 8  # steps a run should have; forward and backward passes of one step of trainer/train.py

model = nn.Sequential(
    nn.Embedding(1024, 128),
    *(nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, dropout=0.0) for _ in range(2)),
    nn.Linear(128, 1024),
)
tokens = torch.randint(1024, (8, 256))
taken = []
for _ in range(5):
    began = time.monotonic()
    nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    taken.append(time.monotonic() - began)
print(min(60, max(6, math.ceil(STEPS * PASSES * statistics.median(taken)))))
