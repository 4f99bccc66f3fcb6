"""Slows every clock in the process a thousandfold to train longer than the budget."""

# expect: timeout time_budget

import time

START = time.monotonic()
real, real_wall = time.monotonic, time.time
time.monotonic = lambda: START + (real() - START) / 1000
time.time = lambda: START + (real_wall() - START) / 1000
time.perf_counter = time.monotonic
exec(open("/opt/glovebox/trainer/train.py").read())
