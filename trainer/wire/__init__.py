"""Formats that both sides of a wall agree on. TRUSTED, in both images; imports nothing of ours."""
