"""What the desk remembers of a tag, so that an answer costs the same after ten thousand experiments. TRUSTED.

Everything here follows from the ledger: a desk that starts again reads it once more and comes to the same (tests replay
it). Shared by all lanes of a tag.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from runner.core.airlock import leak_budget, snapshot
from runner.core.airlock.leak_budget import GAIN_DIGITS, PROBABILITY_DIGITS
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Status, Telemetry
from runner.core.decision import standing
from runner.core.decision.decide import BPB_DIGITS
from runner.core.decision.odds import Line
from runner.core.evidence.ledger import Ledger
from runner.core.findings import edits
from runner.core.findings.analysis import Analysis, Study
from runner.core.findings.calibration import Calibration, Tally
from runner.core.policy.policy_files import Policies


class Memory:
    """One tag's, kept up with the ledger by whoever asks."""

    def __init__(self, home: Home, policies: Policies, ledger: Ledger, tag: str, planned: int | None = None) -> None:
        """`planned`: experiments the tag is to have in all, for the leak budget to last; None: nobody said."""
        self.planned = planned
        self.line = Line(policies.decision)  # under the recorder's lock
        self.account = leak_budget.Account(policies)
        self._home, self._policies, self._ledger, self._tag = home, policies, ledger, tag
        self._study = Study(self.source)
        self._told_best: float | None = None  # val_bpb of the newest keep that was told
        self._kept: list[Experiment] = []  # the line, as far as was told
        self._tally = Tally()
        self._claims: list[float | None] = []  # of each told row: its gain over the best before it, by what was told
        self._lock = threading.Lock()

    def told(self) -> leak_budget.Told:
        """The tag's rows as far as agents may see them."""
        return self.account.catch_up(self._ledger.experiments(self._tag))

    def analysis(self, lane: str) -> Analysis:
        """What the experiments teach, as far as agents were told of them; the noise is that of a lane."""
        told = self.told().rows
        with self._lock:
            self._take(told)
            noise = standing.believed(self._policies.decision, told)
            if noise is None:
                ids = {row.id for row in told}  # what reruns say is told with the answer they are for, not before
                reruns = [rerun for rerun in self._ledger.reruns(self._tag) if rerun.during in ids]
                noise = standing.noise(self._policies.decision, told, reruns, lane)
            return self._study.found(noise)

    def newest(self, count: int) -> list[Experiment]:
        """The last rows that agents were told, as they may see them."""
        told = self.told().rows
        with self._lock:
            self._take(told)
            first, last = max(0, len(self._claims) - count), len(self._claims)  # `told` grows while we look
            pairs = zip(told[first:last], self._claims[first:], strict=True)
            return [rounded(row, claim) for row, claim in pairs]

    def kept(self) -> list[Experiment]:
        """The kept line as agents were told of it, the baseline first."""
        told = self.told().rows
        with self._lock:
            self._take(told)
            return list(self._kept)

    def calibration(self) -> Calibration:
        """How agents' words before their experiments compare with what came of them."""
        told = self.told().rows
        with self._lock:
            self._take(told)
            return self._tally.calibration()

    def _take(self, told: Sequence[Experiment]) -> None:
        """Rows that were told since."""
        for row in told[len(self._claims) :]:
            score, claim = rounded(row).val_bpb, None
            if score is not None and self._told_best is not None:
                claim = round(self._told_best - score, BPB_DIGITS)
            self._claims.append(claim)
            shown = rounded(row, claim)
            self._study.take(shown)
            if row.proposed:
                self._tally.take(shown)
            if row.status is Status.KEEP and score is not None:
                self._told_best = score
                standing.follow(self._kept, shown)

    def completed(self, row: Experiment) -> Experiment:
        """A row as it is recorded: with what it changed, how much of it is told, and what the tag now expects.

        Under the recorder's lock: it is the next row, and the line has taken it in.
        """
        rows = self._ledger.experiments(self._tag)
        best = standing.best(rows)
        self.account.catch_up(rows)  # another lane's may have ended since anybody asked
        telemetry = Telemetry(curve=row.curve, summary=row.summary)
        return row.model_copy(
            update={
                "kinds": [] if best is None else list(edits.kinds(self.source(best), self.source(row))),
                "told": self.account.level(telemetry, row.crash, self.planned),
                "total": self._total([*rows, row]),
            }
        )

    def _total(self, rows: list[Experiment]) -> float | None:
        if self._policies.decision.rule != "odds":
            return None
        self.line.catch_up(rows, self._ledger.reruns(self._tag))
        return self.line.total()

    def source(self, row: Experiment) -> bytes | None:
        """A recorded train.py, None if its snapshot is lost."""
        return snapshot.kept(self._home, row.snapshot)


def rounded(row: Experiment, claim: float | None = None) -> Experiment:
    """The row as the agent may see it: its numbers are for reasoning, the ledger's for the record.

    `claim`: the gain that follows from scores it was told; the ledger's may rest on reruns, of which nothing was.
    """
    return row.model_copy(
        update={
            "val_bpb": None if row.val_bpb is None else round(row.val_bpb, BPB_DIGITS),
            "claimed": claim,
            "confirmed": None if row.confirmed is None else _told_gain(row.confirmed),
            "gain": None if row.gain is None else _told_gain(row.gain),
            "probability": None if row.probability is None else round(row.probability, PROBABILITY_DIGITS),
            "train_seconds": round(row.train_seconds, 1),
            "eval_seconds": round(row.eval_seconds, 1),
        }
    )


def _told_gain(gain: float) -> float:
    """A confirmed or expected gain as the agent may see it: within 1, in steps of 1e-5 (leak_budget.py counts them)."""
    return max(-1.0, min(1.0, round(gain, GAIN_DIGITS)))
