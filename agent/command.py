"""Any other coding agent: runs policies/agent.yaml's command beside the loopback relay, again and again. UNTRUSTED.

The command finds the model API at ANTHROPIC_BASE_URL, copies of train.py and program.md in the folder it starts in
(workspace.py), and `bench` on its PATH. One that ends while experiments are left is started again: many agents stop
after one. If the budget of an experiment is used up, the file is run as it stands: the next has a budget of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from agent import guide, relay
from agent.bench import Detached, program_of, run
from agent.client import CLOSING, Bench, Interrupted, Refused, leave, waited
from agent.tools import EditError
from agent.workspace import PLACE, VARIABLE, Workspace

FRUITLESS = 5  # starts in a row without an experiment
_PAUSE, _LONGEST_PAUSE = 3.0, 300.0  # seconds, doubled from one fruitless start to the next


def main() -> int:
    """Run the command until no experiment is left or nothing comes of it, say why, and return an exit code."""
    bench = Bench()
    reason = _work(bench)
    leave(Bench(patience=5), reason)
    return int(reason == "failed")


def _work(bench: Bench) -> str:
    command = bench.brief()["command"]
    if not command:
        print("no command (fix: set command in policies/agent.yaml)", file=sys.stderr)
        return "failed"
    relay.start()
    place = Workspace(PLACE)
    environment = {**os.environ, "ANTHROPIC_BASE_URL": relay.BASE_URL, "ANTHROPIC_API_KEY": "held-by-the-broker"}
    return _keep(bench, place, command, environment | {VARIABLE: str(PLACE)})


def _keep(bench: Bench, place: Workspace, command: list[str], environment: dict[str, str]) -> str:
    """Start it again and again; why that ended, as Bench.leave says it."""
    fruitless, closed = 0, False
    while True:
        before, heard = _history(bench), relay.HEARD.answers
        place.prepare(_program(bench))
        try:
            code = subprocess.run(command, env=environment, cwd=place.folder, check=False).returncode
        except OSError as error:
            print(
                f"{command[0]} cannot be started: {error.strerror} (fix: policies/agent.yaml command)", file=sys.stderr
            )
            return "failed"
        while Detached(place.state).running():  # it left one behind
            time.sleep(_PAUSE)
        after = _history(bench)
        if after["experiments_left"] == 0:
            return "done"
        if relay.HEARD.night:
            return "budget"
        ran = after["run_here"] != before["run_here"]
        used_up, relay.HEARD.experiment = relay.HEARD.experiment and not ran, False
        if used_up and closed and relay.HEARD.answers == heard:
            return "budget"  # a fresh budget of an experiment does not pay for one call
        closed = used_up and _close(bench, place)
        fruitless = 0 if ran or closed else fruitless + 1
        if fruitless == FRUITLESS:
            print(f"{FRUITLESS} starts in a row ran no experiment", file=sys.stderr, flush=True)
            return "failed" if code else "done"
        if fruitless:
            time.sleep(min(_LONGEST_PAUSE, _PAUSE * 2.0 ** (fruitless - 1)))


def _close(bench: Bench, place: Workspace) -> bool:
    """Run the file as it stands, if anybody edited it; whether that was an experiment."""
    try:
        if place.edited:
            run(bench, place, CLOSING)
        else:
            bench.pass_over()
    except (Refused, EditError, Interrupted):
        return False
    return True


def _program(bench: Bench) -> str:
    """What the agent reads: the person's directive, and how to work here."""
    try:
        return program_of(waited(bench.program, _PAUSE)) + guide.CONTRACT + guide.SHELL
    except (Refused, OSError):
        return guide.CONTRACT + guide.SHELL


def _history(bench: Bench) -> dict[str, Any]:
    """What a runner that is gone for good says too: it wants no more experiments."""
    try:
        return waited(bench.history, _PAUSE)
    except (Refused, OSError):
        return {"experiments_left": 0, "run_here": 0}
