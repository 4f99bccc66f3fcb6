"""A fuzzer for the filter: hostile telemetry by the million, and an oracle that finds any character of it outside.

    python -m tests.fuzz_filter --inputs 1000000

Every string the generator writes of its own holds a letter of an alphabet that none of our words use; whatever leaves
the filter must be made of our words and bounded numbers. Ends with one JSON line; exit code 1 if anything crossed.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.core.airlock import telemetry_file
from runner.core.airlock.telemetry_file import ATTENTIONS, NOT_EXPORTABLE, Filtered
from runner.core.policy import policy_files
from runner.core.policy.error_templates import OPERATIONS
from runner.core.policy.policy_files import Policies

CANARY = "\u017d\u00df\u4e16\u202eQ"  # not one of these is in any sentence of ours
NUMBER = re.compile(r"-?\d+(?:\.\d\d)?")
_KINDS = ("phase", "step", "step", "summary", "crash", "not_exportable", "diverged", "attention")
_NEEDED = {
    "phase": ["phase"],
    "step": ["step", "loss"],
    "summary": ["name", "value"],
    "crash": ["error", "line", "message"],
    "not_exportable": ["reason"],
    "diverged": ["step"],
    "attention": ["kind"],
}
_KEYS = ("event", "phase", "step", "loss", "name", "value", "error", "line", "message", "reason", "kind", "seconds")


def foreign(rng: random.Random) -> str:
    """A string with a canary in it."""
    text = "".join(rng.choice("abc {}[]\",\\\n:0195'" + CANARY) for _ in range(rng.randrange(1, 40)))
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(CANARY) + text[at:]


class Generator:
    """Telemetry as an adversary would write it: near the schema, off by a little, or plain noise."""

    def __init__(self, policies: Policies, seed: int) -> None:
        self.rng = random.Random(seed)
        self.errors = policies.errors
        self.summaries = list(policies.metrics.summaries)

    def data(self) -> bytes:
        """One telemetry file."""
        return b"\n".join(self._line() for _ in range(self.rng.randrange(1, 6)))

    def _line(self) -> bytes:
        raw = json.dumps(self._event(), ensure_ascii=self.rng.random() < 0.5).encode("utf-8", "replace")
        if self.rng.random() < 0.3:
            raw = self._mutated(raw)
        return raw if self.rng.random() > 0.05 else self.rng.randbytes(self.rng.randrange(60))

    def _event(self) -> Any:
        event: dict[str, Any] = {"event": self.rng.choice(_KINDS)}
        wanted = set(_NEEDED[event["event"]]) if self.rng.random() < 0.8 else set[str]()
        for key in sorted(wanted | set(self.rng.sample(_KEYS[1:], self.rng.randrange(3)))):
            event[key] = self._value(key)
        if self.rng.random() < 0.1:
            event[foreign(self.rng)] = foreign(self.rng)
        return event if self.rng.random() > 0.03 else [event]

    def _value(self, key: str) -> Any:
        known: dict[str, Callable[[], Any]] = {
            "phase": lambda: self.rng.choice(telemetry_file.PHASES),
            "name": lambda: self.rng.choice(self.summaries),
            "error": lambda: self.rng.choice(self.errors.classes),
            "reason": lambda: self.rng.choice(NOT_EXPORTABLE),
            "kind": lambda: self.rng.choice(ATTENTIONS),
            "message": self._message,
        }
        if key in known and self.rng.random() < 0.8:
            return known[key]()
        if key in ("step", "loss", "value", "line") and self.rng.random() < 0.7:
            return self.rng.choice((self.rng.randrange(1000), self.rng.random() * 50))
        return self.rng.choice((self._number, lambda: foreign(self.rng), self._odd))()

    def _number(self) -> Any:
        return self.rng.choice(
            (self.rng.randrange(10**6), self.rng.random() * 100, -1, 2**63, 1e308, -0.0, math.nan, math.inf, 10**40)
        )

    def _odd(self) -> Any:
        return self.rng.choice((None, True, [], {}, [foreign(self.rng)], {foreign(self.rng): 1}))

    def _message(self) -> str:
        """A known message with hostile blanks and surroundings."""
        template = self.rng.choice(self.errors.templates)
        text = re.sub(r"\{(\w+)\}", lambda blank: self._blank(blank[1]), template.match)
        around = [foreign(self.rng) if self.rng.random() < 0.4 else "" for _ in range(2)]
        return around[0] + text + around[1]

    def _blank(self, kind: str) -> str:
        if self.rng.random() < 0.15:
            return foreign(self.rng)
        return {
            "int": lambda: str(self.rng.randrange(-(10**9), 10**9)),
            "shape": lambda: str([self.rng.randrange(10**6) for _ in range(self.rng.randrange(8))]),
            "bytes": lambda: f"{self.rng.random() * 1000:.2f} GiB",
            "dtype": lambda: self.rng.choice(("float", "c10::BFloat16", "Long", "quantum")),
            "operation": lambda: self.rng.choice(("bucketize", "linalg_svd", "add", "no_such_operation")),
            "any": lambda: foreign(self.rng) * self.rng.randrange(4),
        }[kind]()

    def _mutated(self, raw: bytes) -> bytes:
        at = self.rng.randrange(len(raw) + 1)
        cut = self.rng.randrange(4)
        insert = self.rng.choice((b"", b'"', b"{", b"\\u0000", b"\xff", b',"event":"crash"', CANARY.encode(), b"NaN"))
        return raw[:at] + insert + raw[at + cut :]


class Oracle:
    """Says what of a Filtered is not ours; empty if nothing is."""

    def __init__(self, policies: Policies) -> None:
        self.metrics = policies.metrics
        self.classes = {*policies.errors.classes, "Exception"}
        sentences = (
            re.escape(template.say).replace(r"\{", "{").replace(r"\}", "}") for template in policies.errors.templates
        )
        blank = r"(?:-?\d{1,9}|\[(?:-?\d{1,7}(?:, -?\d{1,7}){0,5})?\]|\d{1,5}\.\d\d (?:bytes|KiB|MiB|GiB)|[a-z]{3,8}\d{0,2})"
        blank = f"(?:{blank}|{'|'.join(OPERATIONS)})"
        self.sentences = {
            t.id: re.compile(re.sub(r"\{\d\}", lambda _: blank, s))
            for t, s in zip(policies.errors.templates, sentences, strict=True)
        }

    def foreign(self, out: Filtered) -> list[str]:
        """What crossed that may not."""
        found = []
        text = out.telemetry.model_dump_json() + (out.crash.model_dump_json() if out.crash else "")
        found += [f"canary {c!r}" for c in CANARY if c in json.loads(json.dumps(text))]
        if not set(out.telemetry.summary) <= set(self.metrics.summaries):
            found.append("summary name")
        steps = [step for step, _ in out.telemetry.curve]
        if steps != sorted(set(steps)) or len(steps) > self.metrics.curve_points:
            found.append("curve")
        numbers = [*steps, *(loss for _, loss in out.telemetry.curve), *out.telemetry.summary.values()]
        found += [f"number {n!r}" for n in numbers if not (math.isfinite(n) and abs(n) <= 1e9)]
        if out.not_exportable not in (None, *NOT_EXPORTABLE):
            found.append("reason")
        if not isinstance(out.diverged, bool):
            found.append("diverged")
        if out.attention != tuple(kind for kind in ATTENTIONS if kind in out.attention):
            found.append("attention")
        if out.crash is not None:
            found += self._crash(out.crash)
        return found

    def _crash(self, crash: Any) -> list[str]:
        found = [] if crash.error in self.classes and 0 <= crash.line <= telemetry_file.MAX_LINE_NUMBER else ["crash"]
        if (crash.template is None) != (crash.message is None):
            return [*found, "half a message"]
        if crash.message is not None and not self.sentences[crash.template].fullmatch(crash.message):
            found.append(f"message {crash.message!r}")
        return found


def fuzz(inputs: int, seed: int) -> Counter[str]:
    """Counts of what left the filter, by kind; `crossed` counts findings of the oracle."""
    policies = policy_files.load(Path(__file__).parents[1] / "policies")
    generator, oracle, counts = Generator(policies, seed), Oracle(policies), Counter[str]()
    for _ in range(inputs):
        data = generator.data()
        out = telemetry_file.filter_lines(data, policies.metrics, policies.errors)
        counts["inputs"] += 1
        counts["bytes"] += len(data)
        counts["curves"] += bool(out.telemetry.curve)
        counts["summaries"] += bool(out.telemetry.summary)
        counts["crashes"] += out.crash is not None
        counts["messages"] += bool(out.crash and out.crash.message)
        counts["diverged"] += out.diverged
        counts["attention"] += bool(out.attention)
        counts["dropped"] += out.telemetry.dropped_lines
        if found := oracle.foreign(out):
            counts["crossed"] += 1
            print(found, data)
    return counts


def main() -> int:
    """Fuzz on every processor; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    workers = os.cpu_count() or 1
    shares = [asked.inputs // workers + (i < asked.inputs % workers) for i in range(workers)]
    total = Counter[str]()
    with multiprocessing.Pool(workers) as pool:
        for counts in pool.starmap(fuzz, [(share, asked.seed + i) for i, share in enumerate(shares)]):
            total.update(counts)
    total["crossed"] += 0
    print(json.dumps({**total, "seed": asked.seed}))
    return 1 if total["crossed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
