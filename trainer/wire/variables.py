"""What a launcher tells a room through its environment. The names both sides agree on; imports nothing."""

DEVICE = "GLOVEBOX_DEVICE"  # what the bench promises: CUDA or CPU (device.py)
CUDA, CPU = "cuda", "cpu"
LIMITS = "GLOVEBOX_LIMITS"  # JSON, policies/evaluator.yaml limits: what can be scored at all
