"""The model-driven agent: a fresh conversation for every experiment, until it is told to stop. UNTRUSTED.

It never asks a person and never stops by itself. It ends when the runner wants no more experiments, when the
night's model budget is used up, or when the API refuses for good; a bench or an API that is away is waited for.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from agent import context, conversation
from agent.client import Bench, Interrupted, Refused
from agent.conversation import Ended
from agent.model import BudgetUsed, Model, Permanent, Unacceptable
from agent.toolbox import Toolbox
from agent.tools import EditError, Editor

PROGRAM = Path("/work/program.md")
MAX_UNACCEPTABLE = 3  # conversations in a row that the API would not take
_IDLE_PAUSE = 2.0  # seconds, doubled while nothing comes of it
_LONGEST_IDLE = 300.0
CLOSING = "train.py as it stood when this experiment's model budget was used up"


def main() -> int:
    """Work until there is nothing more to do; returns the exit code."""
    bench, editor = Bench(), Editor()
    brief = _brief(bench)
    model = Model(brief["model"], brief["max_tokens"])
    try:
        _work(bench, editor, model, brief, context.system(PROGRAM.read_text(encoding="utf-8")))
    except BudgetUsed as error:
        _say(str(error))
        bench.leave("budget")
    except Permanent as error:
        _say(f"the model API refused for good: {error}")
        bench.leave("api_refused")
        return 1
    return 0


def _work(bench: Bench, editor: Editor, model: Model, brief: dict[str, Any], system: str) -> None:
    idle = unacceptable = 0
    while True:
        try:
            ended = _experiment(bench, editor, model, brief, system)
        except Interrupted as error:
            _say(f"{error}; starting afresh")
            time.sleep(_IDLE_PAUSE)
            continue
        except Unacceptable as error:
            unacceptable += 1
            _say(f"the API would not take this conversation: {error}")
            if unacceptable == MAX_UNACCEPTABLE:
                raise Permanent(str(error)) from None
            continue
        unacceptable = 0
        if ended is Ended.DONE:
            return
        idle = idle + 1 if ended is Ended.GAVE_UP else 0
        if idle:
            _say(ended.value)
            time.sleep(min(_LONGEST_IDLE, _IDLE_PAUSE * 2.0**idle))


def _experiment(bench: Bench, editor: Editor, model: Model, brief: dict[str, Any], system: str) -> Ended:
    """One conversation, from the best version so far; raises what it cannot handle."""
    try:
        bench.restore()
    except Refused as error:
        if str(error) == "no_experiments_left":
            return Ended.DONE
        raise Interrupted(f"the runner refused to restore: {error}") from None
    opening = context.opening(brief, bench.history(), editor.text())
    toolbox = Toolbox(editor, bench, brief["repairs"])
    bounds = {"turns": brief["turns"], "context_chars": brief["context_chars"]}
    try:
        return conversation.hold(model, toolbox, system, opening, **bounds)
    except BudgetUsed as error:
        if error.scope == "night":
            raise
        _say(str(error))  # the next experiment has a budget of its own, and begins when this one is recorded
        return _close(bench)


def _close(bench: Bench) -> Ended:
    try:
        return Ended.DONE if bench.run_experiment(CLOSING)["done"] else Ended.EXPERIMENT
    except (Refused, EditError) as error:
        return Ended.DONE if str(error) == "no_experiments_left" else Ended.GAVE_UP


def _brief(bench: Bench) -> dict[str, Any]:
    while True:
        try:
            return bench.brief()
        except Interrupted:
            time.sleep(_IDLE_PAUSE)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
