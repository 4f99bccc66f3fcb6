"""A handed-over model: its graph and weights as read from hostile files, and the program that runs them. TRUSTED.

Proof (causality), score, audit and costs stand on this package; it knows none of them.
"""
