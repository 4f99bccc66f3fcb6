"""The model-driven agent: a fresh conversation for every experiment, until it is told to stop. UNTRUSTED.

It never asks a person and never stops by itself. It ends when the runner wants no more experiments, when the
night's model budget is used up, or when the API refuses for good; a bench or an API that is away is waited for.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from agent import context, conversation
from agent.client import CLOSING, Bench, Interrupted, Refused, closed, leave, waited
from agent.conversation import Ended
from agent.model import BudgetUsed, Model, Permanent, Unacceptable
from agent.toolbox import Toolbox
from agent.tools import EditError, Editor

MAX_UNACCEPTABLE = 30  # conversations in a row that the API would not take: about six hours of trying
_IDLE_PAUSE = 2.0  # seconds, doubled while nothing comes of it
_LONGEST_IDLE = 300.0
_LONGEST_UNACCEPTABLE = 900.0


def main() -> int:
    """Work until there is nothing more to do; returns the exit code."""
    bench, editor = Bench(), Editor()
    brief = waited(bench.brief, _IDLE_PAUSE)
    try:
        _work(bench, editor, Model(brief), brief)
    except BudgetUsed as error:
        _say(str(error))
        leave(bench, "budget")
    except Permanent as error:
        _say(f"the model API refused for good: {error}")
        leave(bench, "api_refused")
    return 0


def _work(bench: Bench, editor: Editor, model: Model, brief: dict[str, Any]) -> None:
    idle = unacceptable = 0
    while True:
        try:
            ended = _experiment(bench, editor, model, brief)
        except Interrupted as error:
            _say(f"{error}; starting afresh")
            time.sleep(_IDLE_PAUSE)
            continue
        except Unacceptable as error:
            unacceptable += 1
            _say(f"the API would not take this conversation: {error}")
            if unacceptable == MAX_UNACCEPTABLE:
                raise Permanent(str(error)) from None
            time.sleep(_pause(unacceptable, _LONGEST_UNACCEPTABLE))  # a spending limit is told as a bad request too
            continue
        unacceptable = 0
        if ended is Ended.DONE:
            return
        idle = idle + 1 if ended is Ended.GAVE_UP else 0
        if idle:
            _say(ended.value)
            time.sleep(_pause(idle, _LONGEST_IDLE))


def _experiment(bench: Bench, editor: Editor, model: Model, brief: dict[str, Any]) -> Ended:
    """One conversation, from the best version so far; raises what it cannot handle."""
    try:
        bench.restore()
        program, notebook = bench.program(), bench.notebook()
    except Refused as error:
        if str(error) == "no_experiments_left":
            return Ended.DONE
        raise Interrupted(f"the runner refused: {error}") from None
    history, admitted, before = bench.history(), model.admitted, editor.text()
    opening = context.opening(brief, history, notebook, program["hints"], before)
    system = context.system(program["program"])
    toolbox = Toolbox(editor, bench, brief["repairs"])
    bounds = {"turns": brief["turns"], "context_chars": brief["context_chars"]}
    try:
        return conversation.hold(model, toolbox, system, opening, **bounds)
    except BudgetUsed as error:
        if error.scope == "night" or (closed(history["rows"]) and model.admitted == admitted):
            raise  # or a fresh budget of an experiment does not pay for one call
        _say(str(error))  # the next experiment has a budget of its own, and begins when this one is recorded
        return _close(bench, edited=editor.text() != before)


def _close(bench: Bench, *, edited: bool) -> Ended:
    """Run the file as it stands; one that nobody changed is not run again."""
    try:
        answer = bench.run_experiment(CLOSING) if edited else bench.pass_over()
        return Ended.DONE if answer["done"] else Ended.EXPERIMENT
    except (Refused, EditError) as error:
        return Ended.DONE if str(error) == "no_experiments_left" else Ended.GAVE_UP


def _pause(times: int, longest: float) -> float:
    return float(min(longest, _IDLE_PAUSE * 2.0 ** min(times, 20)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
