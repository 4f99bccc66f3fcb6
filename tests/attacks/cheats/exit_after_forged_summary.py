"""Forges the summary and telemetry, then os._exit(0) so that nothing else runs."""

# expect: crash no_hand_over

import json
import os

print("---\nval_bpb:          0.100000", flush=True)
with open("/out/telemetry.jsonl", "a") as file:
    file.write(json.dumps({"event": "summary", "name": "val_bpb", "value": 0.1}) + "\n")
    file.write(json.dumps({"val_bpb": 0.1, "status": "scored"}) + "\n")
os._exit(0)
