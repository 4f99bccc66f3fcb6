"""One experiment as one conversation with the model: bounded in turns and in size. UNTRUSTED."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from anthropic.types import Message

from agent.model import Model, Unacceptable
from agent.toolbox import TOOLS, Answer, Toolbox

NUDGE = "Nobody is reading this. Go on: edit train.py and call run_experiment."
NOTHING = {"type": "text", "text": "(nothing)"}
MAX_NUDGES = 3
CUT = "your message was cut at its token limit, so this call was not carried out: make it shorter"


class Ended(Enum):
    """How a conversation ended."""

    EXPERIMENT = "an experiment was run"
    DONE = "the runner wants no more experiments"
    GAVE_UP = "no experiment came of it"


def hold(model: Model, toolbox: Toolbox, system: str, opening: list[str], *, turns: int, context_chars: int) -> Ended:
    """Talk until an experiment is over or the bounds are reached; raises what Model and Toolbox raise."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": part} for part in opening]}]
    nudges = 0
    for _ in range(turns):
        if len(json.dumps(messages)) > context_chars:
            return Ended.GAVE_UP
        answer = _answer(model, system, messages)
        content = spoken(answer.content)
        messages.append({"role": "assistant", "content": content})
        uses = [block for block in content if block["type"] == "tool_use"]
        if answer.stop_reason == "refusal":
            return Ended.GAVE_UP
        if uses:
            cut = answer.stop_reason in ("max_tokens", "model_context_window_exceeded")
            messages.append({"role": "user", "content": [_result(toolbox, use, cut) for use in uses]})
        else:
            nudges += 1
            messages.append({"role": "user", "content": [{"type": "text", "text": NUDGE}]})
        if toolbox.ended:
            return Ended.DONE if toolbox.done else Ended.EXPERIMENT
        if nudges > MAX_NUDGES:
            return Ended.GAVE_UP
    return Ended.GAVE_UP


def _answer(model: Model, system: str, messages: list[dict[str, Any]]) -> Message:
    """The next message. An API that takes no blank text back is asked once more, without."""
    try:
        return model.answer(system, TOOLS, messages)
    except Unacceptable:
        plain = [{**one, "content": _without_blanks(one["content"])} for one in messages]
        if plain == messages:
            raise
        messages[:] = plain
        return model.answer(system, TOOLS, messages)


def _without_blanks(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()] or [NOTHING]


def _result(toolbox: Toolbox, use: dict[str, Any], cut: bool) -> dict[str, Any]:
    if cut:
        answer = Answer(CUT, is_error=True)
    elif toolbox.ended:  # a second experiment in one message: the first ended the conversation
        answer = Answer("not carried out: the experiment is over", is_error=True)
    else:
        answer = toolbox.use(use["name"], use["input"])
    return {"type": "tool_result", "tool_use_id": use["id"], "content": answer.text, "is_error": answer.is_error}


def spoken(blocks: list[Any]) -> list[dict[str, Any]]:
    """The model's content as it is sent back: every block as it came, in its place, with the fields the API asks for.

    Blank text between two blocks of thinking stays: without it the API takes them for altered.
    """
    fields = {
        "text": ("text",),
        "thinking": ("thinking", "signature"),
        "redacted_thinking": ("data",),
        "tool_use": ("id", "name", "input"),
    }
    out = []
    for block in blocks:
        if block.type == "text" and not block.text:
            continue  # nothing was said
        if block.type in fields:
            out.append({"type": block.type} | {name: getattr(block, name) for name in fields[block.type]})
    return out or [NOTHING]
