"""Evaluator room: loads a handed-over model as data, proves it causal and scores it. TRUSTED.

Runs in its own container with the validation rows and without any code the agent wrote.
Nothing here unpickles, evaluates or compiles what the trainer left behind.
"""
