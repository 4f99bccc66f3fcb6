"""Asks evaluate_bpb for a batch that would drop validation rows in upstream."""

# expect: discard

SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")

exec(SEED.replace("evaluate_bpb(model, tokenizer, DEVICE_BATCH)", "evaluate_bpb(model, tokenizer, 10**9)"))
