"""Replaces the hand-over files by links to other files."""

# expect: discard

import os

for name in ("graph.json", "weights.safetensors", "telemetry.jsonl"):
    for action in (os.unlink, lambda p: os.rename(p, p + ".old"), lambda p: os.symlink("/etc/passwd", p)):
        try:
            action("/out/" + name)
        except OSError:
            continue
        raise SystemExit("REPLACED " + name)
SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(SEED)
