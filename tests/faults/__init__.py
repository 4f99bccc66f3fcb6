"""Killed, filled up, cut off: what a bench survives."""
