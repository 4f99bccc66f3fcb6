"""Trains in the first ten steps, which upstream's clock does not count, for as long as it likes."""

# expect: timeout time_budget

exec(open("/opt/glovebox/trainer/train.py").read().replace("if step > 0 or not CUDA", "if step > 10**9"))
