"""Kills everything it can reach, PID 1 first."""

# expect: crash exception|crash signal|crash exit_code|crash no_hand_over

import os
import signal

os.kill(1, signal.SIGKILL)
os.kill(-1, signal.SIGKILL)
