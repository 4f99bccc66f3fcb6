"""The tools the model may call, and what they answer. UNTRUSTED.

Answers are the agent's own file, the runner's typed values, or a sentence from this module.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from agent.client import Bench, Refused
from agent.tools import EditError, Editor

_WHAT_NOW = {
    "vetoed": " (a person took back the file that this is built on: restore() gives the best version to start from)",
}
_REPAIRABLE = ("crash", "not_exportable", "non_causal", "rejected", "timeout")
_TEXT = {"type": "string"}
_LINE = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "integer", "minimum": 1}
_GAIN = {"type": "number", "minimum": -1, "maximum": 1}
_KIND = {
    "type": "string",
    "enum": [
        "learning_rate", "schedule", "batch", "size", "optimizer", "regularization", "attention", "initialization",
        "architecture", "training_loop", "nothing", "other",
    ],
}  # fmt: skip


def _tool(name: str, says: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"name": name, "description": says, "input_schema": schema}


TOOLS: list[dict[str, Any]] = [
    _tool("view", "Show train.py with line numbers, all of it or lines first..last.", first=_LINE, last=_LINE),
    _tool("str_replace", "Replace text that occurs exactly once in train.py.", ("old", "new"), old=_TEXT, new=_TEXT),
    _tool("insert", "Insert text after a line of train.py (0: at the top).", ("line", "text"), line=_LINE, text=_TEXT),
    _tool("write", "Replace the whole of train.py.", ("text",), text=_TEXT),
    _tool(
        "run_experiment",
        "Train and score train.py as it is now. The description is one line for the record: what changed, and why. "
        "Say beforehand why it should help, the gain in val_bpb you expect (positive is better), and its kind.",
        ("description",),
        description=_TEXT,
        hypothesis=_TEXT,
        expected=_GAIN,
        kind=_KIND,
    ),
    _tool("source", "The whole train.py of an earlier experiment.", ("experiment",), experiment=_NUMBER),
    _tool(
        "diff",
        "What an experiment changed in the file it was made from; with against, how it differs from that one's.",
        ("experiment",),
        experiment=_NUMBER,
        against=_NUMBER,
    ),
    _tool(
        "restore",
        "Put the best version into train.py, or that of an earlier experiment: what you run then was made from it.",
        experiment=_NUMBER,
    ),
    _tool(
        "history",
        "All experiments, oldest first; how kinds of edits fared, near misses, plateau, noise.",
    ),
    _tool(
        "telemetry",
        "Of one experiment: loss curve, summary, kinds of things changed, and how it compares with the best then.",
        ("experiment",),
        experiment=_LINE,
    ),
    _tool("notes_write", "Replace the notes that every conversation begins with (16 KiB).", ("text",), text=_TEXT),
    _tool("notes_replace", "Replace text that occurs exactly once in the notes.", ("old", "new"), old=_TEXT, new=_TEXT),
    _tool("idea_add", "Put an idea for later on the list: one line.", ("text",), text=_TEXT),
    _tool(
        "idea_close",
        "Take an idea off the list: it was tried, or is not worth it.",
        ("idea", "outcome"),
        idea=_NUMBER,
        outcome={"type": "string", "enum": ["done", "drop"]},
    ),
]


class Answer(NamedTuple):
    """What the model is told."""

    text: str
    is_error: bool = False


class Toolbox:
    """Carries out tool calls within one conversation; `ended` once its experiment is over."""

    def __init__(self, editor: Editor, bench: Bench, repairs: int) -> None:
        self.editor, self.bench = editor, bench
        self.repairs = repairs
        self.ended = False
        self.done = False  # the runner wants no more experiments
        self._from: int | None = None  # the experiment that was restored; None: the best

    def use(self, name: str, given: Any) -> Answer:
        """Carry out one call; what the model got wrong is an error it can read. Raises Interrupted."""
        tool = next((tool for tool in TOOLS if tool["name"] == name), None)
        if tool is None:
            return Answer(f"there is no tool {name[:40]}", is_error=True)
        problem = _mismatch(tool["input_schema"], given)
        if problem:
            return Answer(problem, is_error=True)
        try:
            return Answer(getattr(self, f"_{name}")(**given))
        except EditError as error:
            return Answer(str(error), is_error=True)
        except Refused as error:
            self.done = self.ended = str(error) == "no_experiments_left"
            return Answer(f"refused: {error}{_WHAT_NOW.get(str(error), '')}", is_error=True)

    def _view(self, first: int = 1, last: int | None = None) -> str:
        return self.editor.view(max(1, first), last)

    def _str_replace(self, old: str, new: str) -> str:
        self.editor.str_replace(old, new)
        return "replaced"

    def _insert(self, line: int, text: str) -> str:
        self.editor.insert(line, text)
        return "inserted"

    def _write(self, text: str) -> str:
        self.editor.write(text)
        return "written"

    def _history(self) -> str:
        told = self.bench.history()
        return _json({"rows": told["rows"], "analysis": told["analysis"]})

    def _telemetry(self, experiment: int) -> str:
        return _json({name: value for name, value in self.bench.telemetry(experiment).items() if name != "ok"})

    def _source(self, experiment: int) -> str:
        return self.bench.source(experiment)

    def _diff(self, experiment: int, against: int | None = None) -> str:
        told = self.bench.diff(experiment, against)
        cut = "\n(cut: source shows the rest)" if told["cut"] else ""
        return (told["diff"] or f"no difference from experiment {told['against']}") + cut

    def _restore(self, experiment: int | None = None) -> str:
        self.bench.restore(experiment)
        self._from = experiment
        return "train.py is the best version" if experiment is None else f"train.py is that of experiment {experiment}"

    def _notes_write(self, text: str) -> str:
        return _written(self.bench.write_notes(text))

    def _notes_replace(self, old: str, new: str) -> str:
        return _written(self.bench.edit_notes(old, new))

    def _idea_add(self, text: str) -> str:
        return _written(self.bench.add_idea(text))

    def _idea_close(self, idea: int, outcome: Literal["done", "drop"]) -> str:
        return _written(self.bench.close_idea(idea, outcome))

    def _run_experiment(self, description: str, **said: Any) -> str:
        candidate = self.editor.text()
        answer = self.bench.run_experiment(description, **said)
        self.done = bool(answer["done"])
        told = _json(answer["feedback"])
        if self.done or answer["feedback"]["status"] not in _REPAIRABLE or self.repairs == 0:
            self.ended = True
            return told
        # The runner has put the best version back; a repair starts from what failed.
        self.repairs -= 1
        if self._from is not None:
            self.bench.restore(self._from)  # the failed version was made from that one
        self.editor.write(candidate)
        return (
            f"{told}\ntrain.py holds your failed version again. Repair it and run it, or try something else. "
            f"Attempts left after the next: {self.repairs}"
        )


def _mismatch(schema: dict[str, Any], given: Any) -> str:
    """Why `given` does not fit; empty if it does. The schemas above are flat."""
    if not isinstance(given, dict):
        return "the input must be an object"
    for name in schema["required"]:
        if name not in given:
            return f"{name} is missing"
    for name, value in given.items():
        kind = schema["properties"].get(name)
        if kind is None:
            return f"no such argument: {name[:40]}"
        if kind["type"] == "string" and not isinstance(value, str):
            return f"{name} must be a string"
        if kind["type"] == "integer" and (type(value) is not int or value < kind["minimum"]):
            return f"{name} must be a whole number from {kind['minimum']}"
        if kind["type"] == "number" and (type(value) not in (int, float) or not kind["minimum"] <= value <= 1):
            return f"{name} must be a number from {kind['minimum']} to {kind['maximum']}"
        if value not in kind.get("enum", (value,)):
            return f"{name} must be one of {', '.join(kind['enum'])}"
    return ""


def _written(notebook: dict[str, Any]) -> str:
    return f"written; {len(notebook['ideas'])} ideas are open"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
