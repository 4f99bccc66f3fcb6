"""Everything the trainer image holds. UNTRUSTED once train.py runs here; evaluator/ and wire/ run without it."""
