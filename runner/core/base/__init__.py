"""Errors, values, doors, paths, locks and files. TRUSTED; knows of nothing above it."""
