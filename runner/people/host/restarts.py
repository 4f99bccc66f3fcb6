"""Whether an unattended run is started again after a session ended, and when. TRUSTED, pure.

What only a person can mend ends the run. What never worked is an error at once: somebody is there to read it. An engine
that does not answer any more is waited for; sessions that begin and come to nothing are not repeated without end, since
each costs the agent's budget.
"""

from __future__ import annotations

from runner.core.base.errors import FINAL_CODES

FRUITLESS = 5  # sessions in a row without an experiment that came to an end
AWAY = 60  # attempts in a row to start the launcher or the broker: about an hour
FIRST_PAUSE, LONGEST_PAUSE = 3.0, 60.0  # seconds; doubled from one to the next
_NEEDED = (5, 6)  # no engine, busy: final until something worked, since they may never have been there


class Restarts:
    """The memory of one unattended run."""

    def __init__(self) -> None:
        self._fruitless = 0
        self._away = 0
        self._worked = False

    def session(self, code: int, *, worked: bool, recorded: bool) -> float | None:
        """Seconds until the next, None at the end, after a session with this exit code.

        `worked`: it got as far as an agent or an experiment; `recorded`: one came to its end.
        """
        self._worked = self._worked or worked
        self._away = 0
        self._fruitless = 0 if recorded else self._fruitless + 1
        return self._pause(code, self._fruitless, FRUITLESS)

    def not_started(self, code: int) -> float | None:
        """The same after launcher or broker did not even start."""
        self._away += 1
        return self._pause(code, self._away, AWAY)

    def _pause(self, code: int, attempts: int, most: int) -> float | None:
        if code in FINAL_CODES or attempts >= most or (code in _NEEDED and not self._worked):
            return None
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** max(0, attempts - 1))
