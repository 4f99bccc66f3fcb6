"""Any other coding agent: runs policies/agent.yaml's command beside the loopback relay. UNTRUSTED.

The command finds the model API at ANTHROPIC_BASE_URL, train.py and program.md in /work, and `bench` on its PATH.
"""

from __future__ import annotations

import os
import subprocess
import sys

from agent import relay
from agent.client import Bench


def main() -> int:
    """Run the command to its end; returns its exit code."""
    command = Bench().brief()["command"]
    if not command:
        print("no command (fix: set command in policies/agent.yaml)", file=sys.stderr)
        return 2
    relay.start()
    environment = {**os.environ, "ANTHROPIC_BASE_URL": relay.BASE_URL, "ANTHROPIC_API_KEY": "held-by-the-broker"}
    code = subprocess.run(command, env=environment, check=False).returncode
    return code if code >= 0 else 1
