"""Writes the evaluator's result file wherever it can be written."""

# expect: discard

import contextlib

FORGED = '{"format":"glovebox-score/1","status":"scored","val_bpb":0.1,"val_bpb_bytes":0.1,"causality":"proved"}'
for path in ("/out/score.json", "/handed/score.json", "/tmp/score.json", "/work/score.json", "/dev/shm/score.json"):
    with contextlib.suppress(OSError):
        open(path, "w").write(FORGED)
SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(SEED)
