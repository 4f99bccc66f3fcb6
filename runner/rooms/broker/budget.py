"""The meter: what calls to the model may cost, reserved before they are made. TRUSTED.

A call is admitted only if its worst case (every byte of the request a token, written to the cache; every
token it may write, written) still fits every ceiling of the experiment and of the night. It is settled from
the usage the API reported, or, when that is unknown, at its worst case. The state is on disk before the call
leaves, so a broker that is killed and started again has spent what it had reserved. Time counts while a broker
runs, from its first call: a night that was paused goes on where it was.

Money is counted in whole nano-dollars: a price in dollars per million tokens is a thousand times as many of
them per token.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from runner.core.base.errors import GloveboxError
from runner.core.evidence.spending import NANO
from runner.core.policy.broker import Broker, Budget, Price

OVERHEAD_TOKENS = 4096  # what the API adds for tools and turns, beyond the bytes of the request
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, tag TEXT NOT NULL, experiment INTEGER NOT NULL, started REAL NOT NULL,
    model TEXT NOT NULL, reserved_nano INTEGER NOT NULL, reserved_tokens INTEGER NOT NULL,
    nano INTEGER, tokens INTEGER);
CREATE INDEX IF NOT EXISTS calls_by_tag ON calls (tag, experiment);
CREATE TABLE IF NOT EXISTS clocks (
    tag TEXT PRIMARY KEY, experiment INTEGER NOT NULL, experiment_seconds REAL NOT NULL, night_seconds REAL NOT NULL);
"""
Scope = Literal["experiment", "night"]


@dataclass(frozen=True)
class Usage:
    """Tokens as the API bills them."""

    input: int = 0
    cache_write: int = 0
    cache_read: int = 0
    output: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.cache_write + self.cache_read + self.output

    def nano(self, price: Price, *, worst: bool = False) -> int:
        """Nano-dollars; `worst`: by the dearest rates that a prompt of at most this length can have."""
        prompt = self.input + self.cache_write + self.cache_read
        rates = price.worst(prompt) if worst else price.rates(prompt)
        return sum(_each(rates.of(name)) * count for name, count in asdict(self).items())


def worst_case(price: Price, input_tokens: int, max_tokens: int) -> Usage:
    """What a call can use at most: every token of its prompt of the dearest kind, and all it may write."""
    return Usage(**{price.worst(input_tokens).dearest: input_tokens, "output": max_tokens})


class BudgetExhausted(GloveboxError):
    """No room for the worst case of a call; `reason` is closed: SCOPE_CEILING."""

    def __init__(self, scope: Scope, ceiling: str) -> None:
        super().__init__(f"budget of the {scope} used up: {ceiling}", where=f"policies/broker.yaml {scope}.{ceiling}")
        self.scope = scope
        self.reason = f"{scope}_{ceiling}"


class Meter:
    """Spending of one tag; safe to use from several threads."""

    def __init__(self, path: Path, tag: str, policy: Broker, clock: Callable[[], float] = time.monotonic) -> None:
        self.tag, self.policy, self.clock = tag, policy, clock
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        # A call that was under way when a broker died is spent at its worst case.
        self._db.execute("UPDATE calls SET nano = reserved_nano, tokens = reserved_tokens WHERE nano IS NULL")
        self._db.execute("INSERT OR IGNORE INTO clocks VALUES (?, 0, 0, 0)", (tag,))
        self._ticked: float | None = None  # when time was last counted; None before the first call

    def begin(self, experiment: int) -> None:
        """The runner works towards this experiment now; its budget begins when the number changes."""
        with self._lock:
            self._tick()
            self._db.execute(
                "UPDATE clocks SET experiment = ?, experiment_seconds = 0 WHERE tag = ? AND experiment != ?",
                (experiment, self.tag, experiment),
            )

    def reserve(self, model: str, input_tokens: int, max_tokens: int) -> int:
        """Admit a call and hold its worst case; returns its number. Raises BudgetExhausted."""
        price = self.policy.models[model]
        worst = worst_case(price, input_tokens, max_tokens)
        nano, tokens = worst.nano(price, worst=True), worst.tokens
        with self._lock:
            self._ticked = self._ticked or self.clock()
            self._tick()
            for scope, budget in self._scopes():
                _admit(scope, budget, self._spent(scope), nano, tokens)
            number = self._db.execute(
                "INSERT INTO calls (tag, experiment, started, model, reserved_nano, reserved_tokens)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (self.tag, self._clocks()[0], time.time(), model, nano, tokens),
            ).lastrowid
        return int(number or 0)

    def settle(self, number: int, usage: Usage | None, at_most: Usage | None = None) -> int:
        """Record what a call cost; returns nano-dollars. Unknown (None): `at_most`, or its worst case, which it never
        exceeds, whatever is reported: no request can have cost more."""
        with self._lock:
            model, nano, tokens = self._db.execute(
                "SELECT model, reserved_nano, reserved_tokens FROM calls WHERE id = ?", (number,)
            ).fetchone()
            if usage is not None:
                nano, tokens = min(nano, usage.nano(self.policy.models[model])), min(tokens, usage.tokens)
            elif at_most is not None:
                nano = min(nano, at_most.nano(self.policy.models[model], worst=True))
                tokens = min(tokens, at_most.tokens)
            self._db.execute("UPDATE calls SET nano = ?, tokens = ? WHERE id = ?", (nano, tokens, number))
        return int(nano)

    def left(self) -> dict[str, dict[str, float]]:
        """What remains of each ceiling, by scope; never below zero."""
        with self._lock:
            self._tick()
            out: dict[str, dict[str, float]] = {}
            for scope, budget in self._scopes():
                spent = self._spent(scope)
                out[scope] = {name: max(0.0, getattr(budget, name) - value) for name, value in spent.items()}
            return out

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def _scopes(self) -> tuple[tuple[Scope, Budget], ...]:
        return ("experiment", self.policy.experiment), ("night", self.policy.night)

    def _clocks(self) -> tuple[int, float, float]:
        """Experiment, its seconds and the night's."""
        row = self._db.execute(
            "SELECT experiment, experiment_seconds, night_seconds FROM clocks WHERE tag = ?", (self.tag,)
        ).fetchone()
        return int(row[0]), float(row[1]), float(row[2])

    def _tick(self) -> None:
        """Count the time since it was last counted."""
        if self._ticked is None:
            return
        now = self.clock()
        passed, self._ticked = max(0.0, now - self._ticked), now
        self._db.execute(
            "UPDATE clocks SET experiment_seconds = experiment_seconds + ?, night_seconds = night_seconds + ?"
            " WHERE tag = ?",
            (passed, passed, self.tag),
        )

    def _spent(self, scope: Scope) -> dict[str, float]:
        experiment, *seconds = self._clocks()
        night = scope == "night"
        nano, tokens, requests = self._db.execute(
            "SELECT COALESCE(SUM(COALESCE(nano, reserved_nano)), 0),"
            " COALESCE(SUM(COALESCE(tokens, reserved_tokens)), 0), COUNT(*)"
            " FROM calls WHERE tag = ? AND (? OR experiment = ?)",
            (self.tag, night, experiment),
        ).fetchone()
        return {"dollars": nano / NANO, "tokens": tokens, "requests": requests, "seconds": seconds[night]}


def _each(dollars: float) -> int:
    """Nano-dollars for one token, of dollars for a million; a part of one is one."""
    return math.ceil(round(dollars * 1000, 6))


def _admit(scope: Scope, budget: Budget, spent: dict[str, float], nano: int, tokens: int) -> None:
    wanted = {"dollars": nano / NANO, "tokens": tokens, "requests": 1, "seconds": 0}
    for name, value in wanted.items():
        if spent[name] + value > getattr(budget, name):
            raise BudgetExhausted(scope, name)
