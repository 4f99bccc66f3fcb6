"""Versions that both sides of a wall speak of: tests hold them to trainer/requirements.txt."""

TORCH = "2.13.0"
