"""Signed tokenizer and data artifacts: making, signing, verifying. TRUSTED."""
