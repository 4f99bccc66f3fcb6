"""Write graphs by hand: what an attacker does who does not go through torch.export."""

from __future__ import annotations

import json
from typing import Any

import torch

from trainer.evaluator.model import graph, program

CPU = torch.device("cpu")


class Build:
    """Weights first, then operations; every call returns the reference of its first output."""

    def __init__(self, seq_len: int = 8, vocab: int = 16, rows: int = 1, **weights: torch.Tensor) -> None:
        self.seq_len, self.vocab, self.rows, self.weights = seq_len, vocab, rows, weights
        self.ids = {name: {"t": i + 1} for i, name in enumerate(weights)}
        self.idx = {"t": 0}
        self.nodes: list[dict[str, Any]] = []
        self.next = len(weights) + 1

    def op(self, name: str, *args: Any, n: int = 1, **kwargs: Any) -> dict[str, int]:
        """Append `aten.<name>`."""
        entry: dict[str, Any] = {"op": f"aten.{name}", "a": list(args)}
        if kwargs:
            entry["k"] = kwargs
        if n > 1:
            entry["n"] = n
        self.nodes.append(entry)
        first, self.next = self.next, self.next + n
        return {"t": first}

    def logits(self, per_position: dict[str, int]) -> dict[str, int]:
        """[rows, seq_len] to [rows, seq_len, vocab]."""
        wide = self.op("unsqueeze.default", per_position, -1)
        return self.op("expand.default", wide, [self.rows, self.seq_len, self.vocab])

    def data(self, output: dict[str, int]) -> bytes:
        weights = [[ref["t"], name] for name, ref in self.ids.items()]
        document = {"format": graph.FORMAT, "input": 0, "weights": weights, "nodes": self.nodes, "output": output["t"]}
        return json.dumps(document).encode()

    def program(self, output: dict[str, int], limits: program.Limits | None = None) -> program.Program:
        """Parse and prepare, as the evaluator does."""
        return program.prepare(
            graph.parse(self.data(output), CPU),
            self.weights,
            rows=self.rows,
            seq_len=self.seq_len,
            vocab=self.vocab,
            device=CPU,
            limits=limits or program.Limits(),
        )
