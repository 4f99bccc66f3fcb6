"""A model's forward pass as a graph of admitted operations: captured, lowered, written. UNTRUSTED side.

Nothing here is a wall: the evaluator reads what comes out as hostile input. It decides what can be scored at all.
"""
