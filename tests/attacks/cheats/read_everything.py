"""Searches every readable file for validation text. The test fills in what to look for."""

# expect: discard

import mmap
import os
import sys

NEEDLES = []  # bytes of validation rows and of validation text
CONTROL = []  # bytes of training rows, which must be found

found = set()
for root, _, names in os.walk("/"):
    if root.startswith(("/proc", "/sys", "/dev")):
        continue
    for name in names:
        path = os.path.join(root, name)
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found.update(n for n in NEEDLES + CONTROL if path != "/work/train.py" and data.find(n) >= 0)
        except (OSError, ValueError):
            continue
print("LEAKED", sum(n in found for n in NEEDLES), "CONTROL", sum(n in found for n in CONTROL), file=sys.stderr, flush=True)
SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(SEED)
