"""What an experiment of the model-driven agent costs in tokens and dollars, and what the prompt cache saves of it.

    python -m bench.agent [--source-kib 30] [--rows 100] [--experiments 12] [--keeps 2] [--json]

The agent's own code makes every request (opening, tools, cache breakpoints); a stand-in answers with edits, and thinks
`--thinking` tokens before each. Tokens are bytes of the request divided by `--bytes-per-token`. What is read from cache
is counted as the API does: the longest beginning that ended at a breakpoint of an earlier request of the last five
minutes is read, what is up to the last breakpoint behind it is written, the rest is plain input (the API's docs, prompt
caching). Two nights are counted: experiments that take five minutes, after which nothing is cached any more,
and short ones. Prices are those of policies/broker.yaml.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

from agent import context, conversation
from agent.model import marked
from agent.toolbox import TOOLS, Toolbox
from runner.core.base.mountable import SOURCE
from runner.core.policy import policy_files
from runner.core.policy.broker import Price

_CACHE_SECONDS = 300.0
_LEAST = 1024  # tokens of a beginning that is cached at all


@dataclass
class Meter:
    """Counts requests as the API would bill them."""

    bytes_per_token: float
    clock: float = 0.0
    written: dict[str, float] = field(default_factory=dict)  # beginnings up to a breakpoint, and when they were used
    tokens: dict[str, float] = field(default_factory=lambda: {"input": 0.0, "cache_write": 0.0, "cache_read": 0.0})
    output: float = 0.0

    def take(self, system: str, messages: list[dict[str, Any]]) -> None:
        """One request."""
        parts = [(json.dumps(TOOLS), False), (system, True)]
        parts += [
            (json.dumps({k: v for k, v in block.items() if k != "cache_control"}), "cache_control" in block)
            for message in marked(messages)
            for block in message["content"]
        ]
        text, beginnings = "", []
        for part, mark in parts:
            text += part
            if mark and len(text) / self.bytes_per_token >= _LEAST:
                beginnings.append(text)
        fresh = {one for one, used in self.written.items() if self.clock - used <= _CACHE_SECONDS}
        read = max((len(one) for one in fresh if text.startswith(one)), default=0)
        write = max([len(one) for one in beginnings] + [read]) - read
        for name, size in (("cache_read", read), ("cache_write", write), ("input", len(text) - read - write)):
            self.tokens[name] += size / self.bytes_per_token
        self.written.update(dict.fromkeys((*beginnings, *(o for o in fresh if text.startswith(o))), self.clock))

    def dollars(self, price: Price) -> float:
        """What all that costs at a price."""
        found = sum(count * price.of(name) for name, count in self.tokens.items())
        return (found + self.output * price.output) / 1e6


@dataclass
class Desk:
    """Answers a toolbox as the runner does."""

    source: str

    def edit_notes(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Changed."""
        return {"ideas": []}

    def write_notes(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Written."""
        return {"ideas": []}

    def telemetry(self, *_: Any, **__: Any) -> dict[str, Any]:
        """A loss curve of the usual length."""
        return {"curve": [[n * 100, 5.0 - n / 10] for n in range(24)], "summary": {"num_steps": 2400.0}}

    def diff(self, *_: Any, **__: Any) -> dict[str, Any]:
        """A small one."""
        return {"diff": "-LR = 0.1\n+LR = 0.2", "cut": False, "against": 1}

    def run_experiment(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Discarded."""
        return {"feedback": {"experiment": 2, "status": "discard"}, "done": False}


class Editor:
    """A train.py in memory."""

    def __init__(self, source: str) -> None:
        self._text = source

    def text(self) -> str:
        """The whole of it."""
        return self._text

    def str_replace(self, old: str, new: str) -> None:
        """One edit."""
        self._text = self._text.replace(old, new, 1)


class Answer:
    """A block of the stand-in's."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Model:
    """Thinks, looks at one experiment, edits twice, notes what it learned and runs."""

    def __init__(self, meter: Meter, thinking: int) -> None:
        self._meter, self._thinking, self._turn = meter, thinking, 0
        self.calls: list[dict[str, Any]] = [
            {"name": "telemetry", "input": {"experiment": 90}},
            {"name": "diff", "input": {"experiment": 90}},
            {"name": "str_replace", "input": {"old": "a = 1", "new": "a = 2" * 40}},
            {"name": "str_replace", "input": {"old": "b = 1", "new": "b = 2" * 40}},
            {"name": "notes_write", "input": {"text": "x" * 600}},
            {"name": "run_experiment", "input": {"description": "d" * 150, "expected": 0.001}},
        ]

    def answer(self, system: str, _: Any, messages: list[dict[str, Any]]) -> Any:
        """The next call."""
        self._meter.take(system, messages)
        call = self.calls[self._turn % len(self.calls)]
        self._turn += 1
        thought = "t" * int(self._thinking * self._meter.bytes_per_token)
        self._meter.output += self._thinking + len(json.dumps(call)) / self._meter.bytes_per_token
        content = [
            Answer(type="thinking", thinking=thought, signature="s" * 400),
            Answer(type="tool_use", id=f"toolu_{self._turn:020d}", **call),
        ]
        return Answer(content=content, stop_reason="tool_use")


def records(rows: int) -> dict[str, Any]:
    """A history of so many experiments."""
    found = [
        {
            "id": n, "status": "keep" if n % 9 == 1 else "discard", "reason": None, "crash": None, "val_bpb": 1.0,
            "claimed": -0.001, "gain": -0.001, "probability": 0.1, "description": "d" * 150, "snapshot_size": 30_000,
            "confirmed": None, "proposal": {"hypothesis": "", "expected": 0.001, "kind": None},
        }
        for n in range(1, rows + 1)
    ]  # fmt: skip
    kept = [row for row in found if row["status"] == "keep"]
    facts = {"device": "NVIDIA H100 80GB HBM3", "train_seconds": 300.0, "sequence_length": 2048, "vocabulary": 8192}
    return {"rows": found, "line": kept[:1] + kept[1:][-12:], "experiments": rows, "facts": facts}


def night(asked: argparse.Namespace, seconds: float) -> Meter:
    """So many experiments, each so long; the best changes `keeps` times."""
    policies = policy_files.load(SOURCE / "policies")
    brief = {"tag": "night", **policies.agent.model_dump(mode="json")}
    meter = Meter(asked.bytes_per_token)
    system = context.system((SOURCE / "program.md").read_text())
    told = records(asked.rows)
    every = max(1, asked.experiments // max(1, asked.keeps))
    for number in range(asked.experiments):
        source = f"# {number // every}\na = 1\nb = 1\n" + "x = 1  # a line of train.py\n" * (
            asked.source_kib * 1024 // 27
        )
        notebook = {"notes": "n" * 2000, "ideas": [], "done": 0, "dropped": 0}
        history = told | {"experiments": asked.rows + number}
        opening = context.opening(brief, history, notebook, [], source)
        box: Any = Toolbox(Editor(source), Desk(source), 0)  # type: ignore[arg-type] # stand-ins
        model: Any = Model(meter, asked.thinking)
        conversation.hold(model, box, system, opening, turns=brief["turns"], context_chars=brief["context_chars"])
        meter.clock += seconds
    return meter


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source-kib", type=int, default=30)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--experiments", type=int, default=12)
    parser.add_argument("--keeps", type=int, default=2)
    parser.add_argument("--thinking", type=int, default=1500)
    parser.add_argument("--bytes-per-token", type=float, default=3.5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    models = policy_files.load(SOURCE / "policies").broker.models
    out: dict[str, Any] = {}
    for name, seconds in (("five-minute experiments", 330.0), ("half-minute experiments", 30.0)):
        meter = night(asked, seconds)
        each = {key: round(count / asked.experiments) for key, count in meter.tokens.items()}
        each["output"] = round(meter.output / asked.experiments)
        plain = Meter(asked.bytes_per_token, tokens={"input": sum(meter.tokens.values())}, output=meter.output)
        dollars = {model: round(meter.dollars(price) / asked.experiments, 4) for model, price in models.items()}
        without = {model: round(plain.dollars(price) / asked.experiments, 4) for model, price in models.items()}
        out[name] = {"tokens": each, "dollars": dollars, "dollars_without_cache": without}
        if not asked.json:
            print(f"{name}: tokens of one {json.dumps(each)}")
            for model, cost in dollars.items():
                print(f"  {model:<20} ${cost:.4f}  (without a cache ${without[model]:.4f})")
    if asked.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()
