"""Security events of a tag, from the audit chain and the broker's log, read on while they grow. TRUSTED, reads only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Rerun
from runner.core.evidence.audit_chain import Follower
from runner.core.findings import incidents


class Events:
    """What a reviewer asks of a tag; `also` is told every entry of the audit chain."""

    def __init__(self, home: Home, tag: str, uneven: float, also: Callable[[dict[str, Any]], object]) -> None:
        self._chain, self._calls = Follower(home.audit), Follower(home.broker / "calls.jsonl")
        self._refused: incidents.Refusals | None = incidents.Refusals(tag)  # None: the chain is broken
        self._uneven, self._also = uneven, also

    def found(self, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> list[incidents.Incident] | None:
        """What happened; None if our chain is broken: no part of it is shown."""
        try:
            if self._refused is not None:
                for entry in self._chain.new():
                    self._refused.take(entry)
                    self._also(entry)
        except GloveboxError:
            self._refused = None
        if self._refused is None:
            return None
        with suppress(GloveboxError):  # the broker's chain as far as it is whole
            for entry in self._calls.new():
                self._refused.take_call(entry)
        return incidents.found(rows, self._refused, reruns, self._uneven)
