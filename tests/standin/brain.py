"""The stand-in's model: ten real edits of the seed train.py, in the way a model makes them.

It reads the records it is told, picks its next idea by the number of experiments so far, edits, runs, and
repairs what crashed. Like a model it knows nothing but the conversation.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

Block = dict[str, Any]


class Idea(NamedTuple):
    """What it says, and a substitution in train.py (pattern, replacement); None runs the file as it is."""

    description: str
    edit: tuple[str, str] | None


IDEAS = (
    Idea("baseline", None),
    Idea("raise the head's learning rate on CPU to 0.004", (r"else 0\.001 ", "else 0.004 ")),
    Idea("an eighth of the batch on CPU: more optimizer steps", (r"else 2\*\*14 ", "else 2**11 ")),
    Idea("no warmdown", (r"WARMDOWN = 0\.4 ", "WARMDOWN = 1e-9 ")),
    Idea("longer warmdown", (r"WARMDOWN = 0\.4 ", "WARMDOWN = 0.7 ")),
    Idea("two views too few: a crash to repair", (r"view\(B, T, 3, -1, HEAD_DIM\)", "view(B, T, 2, -1, HEAD_DIM)")),
    Idea("higher embedding rate", (r"EMBED_LR = 0\.3 ", "EMBED_LR = 0.6 ")),
    Idea("higher matrix rate", (r"MATRIX_LR = 0\.02 ", "MATRIX_LR = 0.04 ")),
    Idea("no weight decay", (r"WEIGHT_DECAY = 0\.1 ", "WEIGHT_DECAY = 0.0 ")),
    Idea("tighter softcap", (r"SOFTCAP = 15\.0 ", "SOFTCAP = 10.0 ")),
)
REPAIR = ("view(B, T, 2, -1, HEAD_DIM)", "view(B, T, 3, -1, HEAD_DIM)")


def think(asked: dict[str, Any]) -> list[Block]:
    """The next message of a conversation."""
    opening = "\n\n".join(part["text"] for part in asked["messages"][0]["content"])
    match = re.search(r"^experiments so far: (\d+)$", opening, re.MULTILINE)
    idea = IDEAS[int(match[1] if match else 0) % len(IDEAS)]
    turns = [message for message in asked["messages"] if message["role"] == "assistant"]
    last = asked["messages"][-1]["content"]
    told = " ".join(str(block.get("content", "")) for block in last)
    if "holds your failed version" in told:
        return [_text("The last view had two parts."), _use(asked, "str_replace", old=REPAIR[0], new=REPAIR[1])]
    source = asked["messages"][0]["content"][0]["text"].split("```python\n", 1)[1].rsplit("\n```", 1)[0]
    found = re.search(idea.edit[0], source) if idea.edit else None
    if found and not turns:
        new = re.sub(idea.edit[0], idea.edit[1], found[0]) if idea.edit else ""
        whole = next(line for line in source.splitlines() if found[0] in line + " ")
        return [
            _text(f"Next: {idea.description}."),
            _use(asked, "str_replace", old=whole, new=whole.replace(found[0], new)),
        ]
    return [_use(asked, "run_experiment", description=idea.description)]


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _use(asked: dict[str, Any], name: str, **given: Any) -> Block:
    return {"type": "tool_use", "id": f"toolu_{len(asked['messages']):04d}", "name": name, "input": given}
