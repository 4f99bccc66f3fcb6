"""The breaker: calls pause while the model API fails. TRUSTED, pure state, no I/O but what `told` does.

Closed: calls pass. After `failures` in a row, or as soon as the API names a time to wait, it opens for that
long; then one call may try. If it fails the pause doubles, up to `longest_seconds`; a success closes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runner.core.policy.broker import Breaker as BreakerPolicy


class Breaker:
    """One per broker."""

    def __init__(
        self,
        policy: BreakerPolicy,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`told`: is called with the seconds of every pause that begins, and with 0 when calls pass again."""
        self.policy, self.clock, self.told = policy, clock, told
        self._failures = 0
        self._pause = policy.open_seconds
        self._open_until = 0.0
        self._trying = False

    def left(self) -> float:
        """Seconds until a call may be tried; 0 if it may now."""
        return max(0.0, self._open_until - self.clock())

    def wait(self) -> float:
        """Like left(), but 0 lets this one call pass: end it with succeeded, failed or released."""
        if left := self.left():
            return left
        if self._open_until and self._trying:
            return self.policy.open_seconds  # one try at a time after a pause
        self._trying = bool(self._open_until)
        return 0.0

    def succeeded(self) -> None:
        """The API answered."""
        if self._open_until:
            self.told(0.0)
        self._failures, self._open_until, self._trying = 0, 0.0, False
        self._pause = self.policy.open_seconds

    def released(self) -> None:
        """A call ended before the API was asked, or by the agent's doing: it says nothing about the API."""
        self._trying = False

    def failed(self, retry_after: float | None = None) -> None:
        """The API failed, and may have said when to come back."""
        self._failures += 1
        again, self._trying = self._trying, False
        if retry_after is not None:
            self._open_until = self.clock() + min(retry_after, self.policy.longest_seconds)
            self.told(self.left())
        elif again or self._failures >= self.policy.failures:
            self._open_until = self.clock() + self._pause
            self.told(self.left())
            self._pause = min(self._pause * 2, self.policy.longest_seconds)
