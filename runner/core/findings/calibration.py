"""How an agent's words before its experiments compare with what came of them. TRUSTED, pure.

Reads rows as far as agents were told of them: a summary of what the agent knows already.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.base.launching import Frozen
from runner.core.base.values import Experiment, Status
from runner.core.findings.analysis import two_digits


class Calibration(Frozen):
    """`proposed` and `kept` count candidates; the rest those that came with an expected gain and got a score."""

    proposed: int
    kept: int
    foretold: int
    expected: float | None  # mean of what was expected, val_bpb
    found: float | None  # mean of what came of it
    promised: int  # how often a gain was expected
    gained: int  # how often there was one then


@dataclass
class Tally:
    """Taken row by row."""

    proposed: int = 0
    kept: int = 0
    foretold: int = 0
    expected: float = 0.0
    found: float = 0.0
    promised: int = 0
    gained: int = 0

    def take(self, row: Experiment) -> None:
        """The next row that is no baseline and nobody's veto."""
        self.proposed += 1
        self.kept += row.status is Status.KEEP
        gain = row.gain if row.gain is not None else row.claimed
        if row.proposal is None or row.proposal.expected is None or gain is None:
            return
        self.foretold += 1
        self.expected += row.proposal.expected
        self.found += gain
        self.promised += row.proposal.expected > 0
        self.gained += row.proposal.expected > 0 and gain > 0

    def calibration(self) -> Calibration:
        """As it is told."""
        told = self.foretold > 0
        return Calibration(
            proposed=self.proposed,
            kept=self.kept,
            foretold=self.foretold,
            expected=two_digits(self.expected / self.foretold) if told else None,
            found=two_digits(self.found / self.foretold) if told else None,
            promised=self.promised,
            gained=self.gained,
        )
