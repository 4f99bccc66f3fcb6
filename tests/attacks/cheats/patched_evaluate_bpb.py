"""Replaces evaluate_bpb before calling it: nothing is handed over, so nothing is scored."""

# expect: crash no_hand_over

import prepare

prepare.evaluate_bpb = lambda model, tokenizer, batch_size: 0.1
SEED = open("/opt/glovebox/trainer/train.py").read().replace("trained < TIME_BUDGET", "trained < 1.0")
exec(SEED)
