"""Leaves a daemon behind that would overwrite the hand-over later."""

# expect: discard

import os
import time

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        deadline = time.time() + 120
        while time.time() < deadline:
            time.sleep(0.5)
            try:
                if os.path.getsize("/out/graph.json") and os.getppid() == 1:
                    open("/tmp/alive", "w").write("x")
            except OSError:
                pass
        open("/out/graph.json", "w").write("{}")
    os._exit(0)
SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(SEED)
