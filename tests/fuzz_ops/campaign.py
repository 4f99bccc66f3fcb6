"""Calls by seed: which operation a seed belongs to, what came of its call, and the sums."""

from __future__ import annotations

import logging
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.fuzz_ops import calls, rules
from tests.fuzz_ops.compare import Dry, Outcome, difference, real, shown
from tests.fuzz_ops.tensors import Tensors
from trainer.evaluator.model import ops

Rule = Callable[[torch._ops.OpOverload, list[Any], dict[str, Any]], bool]
_CHECK_CACHE = 32  # every so many calls, once more in a new mode without the dry run's cache


@dataclass
class Tally:
    """Counts per operation, and one example (the shortest) of every kind of mismatch."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    mismatches: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        """One more call of `name` that ended as `what`."""
        self.counts.setdefault(what, Counter())[name] += 1

    def total(self, what: str) -> int:
        """How many calls ended so."""
        return sum(self.counts.get(what, Counter()).values())

    def mismatch(self, record: dict[str, Any]) -> None:
        """Keep the shortest example."""
        self.add("mismatched", record["op"])
        key = record["op"], record["kind"]
        if key not in self.mismatches or len(record["args"]) < len(self.mismatches[key]["args"]):
            self.mismatches[key] = record

    def merge(self, other: Tally) -> None:
        """Add another's counts and examples."""
        for what, counter in other.counts.items():
            self.counts.setdefault(what, Counter()).update(counter)
        for key, record in other.mismatches.items():
            if key not in self.mismatches or len(record["args"]) < len(self.mismatches[key]["args"]):
                self.mismatches[key] = record

    @property
    def calls(self) -> int:
        """Calls that were run both ways."""
        return sum(self.total(what) for what in ("compared", "fake_raises", "real_raises", "both_raise"))


class Campaign:
    """Runs seeds; `rule` says which calls a rule forbids for a known difference."""

    def __init__(self, names: list[str] | None = None, rule: Rule | None = None) -> None:
        self.names = names or sorted(ops.allowed())
        self.rule = rule or rules.forbidden
        self.tally = Tally()
        self._tensors, self._dry = Tensors(), Dry()

    def seed(self, seed: int) -> None:
        """Make and judge the call of one seed."""
        name = self.names[seed % len(self.names)]
        op = ops.allowed()[name]
        call = calls.make(op, seed, self._tensors)
        if not rules.parses(op, call.args, call.kwargs):
            self.tally.add("unparsed", name)
        elif self.rule(op, call.args, call.kwargs):
            self.tally.add("forbidden", name)
        else:
            self._judge(name, seed, call)

    def _judge(self, name: str, seed: int, call: calls.Call) -> None:
        op, args, kwargs = ops.allowed()[name], call.args, call.kwargs
        if call.before is not None and rules.parses(op, *call.before):
            self._dry.run(op, *call.before)
        fake = self._dry.run(op, args, kwargs)
        if random.Random(~seed).randrange(_CHECK_CACHE) == 0:
            again = Dry(cache=False).run(op, args, kwargs)
            if bool(again.error) != bool(fake.error) or difference(again, fake):
                self._mismatch(name, seed, call, again, fake, "cache")
        if fake.refused():
            self.tally.add("refused", name)
        elif fake.large():
            self.tally.add("large", name)
        else:
            self._against(name, seed, call, fake)

    def _against(self, name: str, seed: int, call: calls.Call, fake: Outcome) -> None:
        made = real(ops.allowed()[name], call.args, call.kwargs)
        if made.error and fake.error:
            self.tally.add("both_raise", name)
        elif fake.error:
            self.tally.add("fake_raises", name)
        elif made.error:
            self.tally.add("real_raises", name)
        else:
            self.tally.add("compared", name)
            if kind := difference(made, fake):
                self._mismatch(name, seed, call, made, fake, kind)

    def _mismatch(self, name: str, seed: int, call: calls.Call, real: Outcome, fake: Outcome, kind: str) -> None:
        given = [shown(x) for x in call.args] + [f"{key}={shown(value)}" for key, value in call.kwargs.items()]
        record = {
            "op": name,
            "kind": kind,
            "seed": seed,
            "real": str(real),
            "fake": str(fake),
            "args": ", ".join(given),
        }
        self.tally.mismatch(record)


@contextmanager
def settled() -> Iterator[None]:
    """The evaluator's kernels, on one thread, and no word of odd arguments: they are what is asked for."""
    threads, log = torch.get_num_threads(), logging.getLogger("torch._subclasses.fake_tensor")
    silent, strict = log.disabled, torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    log.disabled = True
    try:
        with warnings.catch_warnings(), torch.backends.mkldnn.flags(enabled=False):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        log.disabled = silent
