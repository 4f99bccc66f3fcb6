"""Leaves weights wherever it can and loads what an earlier run left."""

# expect: discard

import os

PLACES = {"/tmp", "/cache", "/dev/shm", "/out", "/work", "/var/tmp", "/run", os.path.expanduser("~")}
for place in PLACES:
    path = os.path.join(place, "warm.pt")
    if os.path.exists(path):
        raise SystemExit("WARM " + path)
    try:
        open(path, "wb").write(b"weights of an earlier run")
    except OSError:
        pass
SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(SEED)
