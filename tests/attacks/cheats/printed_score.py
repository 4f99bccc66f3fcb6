"""Prints upstream's summary with a score of its own choosing and leaves."""

# expect: crash no_hand_over

print("---")
print("val_bpb:          0.100000")
print("training_seconds: 300.0")
print("num_steps:        10000")
