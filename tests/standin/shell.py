"""`python -m tests.standin.shell PORT`: a model that works through the shell tool of whatever client asks it."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn

from tests.standin.server import Block, Standin

SHELLS = ("Bash", "bash", "shell", "run_shell_command")
EDIT = "sed -i '1a # one idea more' train.py && bench run 'one idea more'"
LEAVE = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"  # how mini-swe-agent is told that it is done


def think(asked: dict[str, Any]) -> list[Block]:
    """One experiment in every conversation, then done."""
    turns = sum(message["role"] == "assistant" for message in asked["messages"])
    shell = next((tool["name"] for tool in asked.get("tools") or [] if tool["name"] in SHELLS), None)
    if shell is None or turns > 1:
        return [{"type": "text", "text": "Done."}]
    given = {"command": LEAVE if turns else EDIT, "description": "an experiment"}
    return [{"type": "tool_use", "id": f"toolu_{turns:08d}", "name": shell, "input": given}]


if __name__ == "__main__":
    uvicorn.run(Standin(think).app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off")
