"""How long a training container may live, and what that leaves open. TRUSTED, pure.

The host's monotonic clock runs from container start to its end, the hand-over included. Before a tag has a
baseline the policy's allowances apply; afterwards they are calibrated: what the baseline needed beyond its
training budget, times 1.5, plus 10 seconds, and never more than the policy says. But a baseline may need less than an
honest change: it began with compiled code, or compiles nothing. So never less than 1.2 times what the run took that
made the compiled code, cold, and never less than policy's share of the budget.
"""

from __future__ import annotations

from typing import NamedTuple

from runner.core.policy.policy_files import Decision

FACTOR = 1.5
MARGIN = 10.0  # seconds
COLD_FACTOR = 1.2


class Clock(NamedTuple):
    """Seconds: training budget, allowance on top, and what the baseline used of it (None: no baseline yet)."""

    budget: float
    allowance: float
    baseline_overhead: float | None

    @property
    def limit(self) -> float:
        """Container start to end."""
        return self.budget + self.allowance

    @property
    def advantage(self) -> float:
        """Seconds a script could train beyond its budget if it started and handed over as fast as the baseline."""
        return self.allowance - (self.baseline_overhead or 0.0)


def clock(policy: Decision, budget: float, overhead: float | None, cold: float | None = None) -> Clock:
    """The clock of a tag whose baseline container lived `overhead` seconds longer than its budget (None: none yet).

    `cold` is the same of the run that made the compiled code that the tag begins with (None: it begins without).
    """
    most = policy.startup_seconds + policy.hand_over_seconds
    if overhead is None:
        return Clock(budget, most, None)
    overhead = max(0.0, overhead)
    calibrated = max(overhead * FACTOR + MARGIN, COLD_FACTOR * (cold or 0.0), policy.least_allowance * budget)
    return Clock(budget, min(most, calibrated), overhead)
