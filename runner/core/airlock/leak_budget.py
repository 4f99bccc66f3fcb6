"""How much can the trainer tell the agent? Counted in bits from the schema, and limited. TRUSTED, pure.

Code the agent wrote sees the training data; whatever the agent reads of an experiment is a channel out of that room.
Every Feedback has a length here: the bits it takes to write it down, parts that are absent costing only the word that
says so. Such lengths are those of a prefix code (Kraft-McMillan), so answers of n bits in all can tell at most 2^n
things apart, whoever encodes. The sum over a tag is kept below policies/metrics.yaml's leak.night_bits. Room for the
bare outcomes of all experiments that are to come is kept free; what is left is shared out among their answers, so that
telemetry thins (fewer points of the curve, then none, then outcomes alone) and does not end at once. When not even an
outcome fits any more no experiment begins.

Not counted: what the agent itself put in (description, train.py), and what the host's kernel tells every container of
the whole host: numbers of inodes, sessions and routes, ports, memory of protocols. They stay moved when a trainer has
ended, so freezing the agent meanwhile (freezing.py) closes the quick channels and not these; there are many, and their
sum has no bound that anybody measured. An agent with a kernel of its own (agent_runtime: runsc) does not see them.
Files of /proc and /sys are masked (counters.py; not under compose), the moment of an answer and the space a run's files
take are counted. History and telemetry repeat what answers already told.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

from runner.core.base.errors import PolicyError
from runner.core.base.launching import MAX_LANES
from runner.core.base.values import NOTHING_PROPOSED, Crash, Experiment, Status, Telemetry
from runner.core.decision.deaths import EXIT_CODES, SIGNALS
from runner.core.decision.decide import SPARE_SEEDS
from runner.core.policy.policy_files import Errors, Metric, Metrics, Policies

REASONS = 48  # more than there are codes: decide.py, filter.NOT_EXPORTABLE, evaluator Reason, EndReason; a test counts
BPB_LEVELS = 64 * 10**6  # below 64, six digits (score_file.py, experiment.py)
GAIN_DIGITS = 5  # of a confirmed or expected gain, which is told within 1 (experiment.py)
PROBABILITY_DIGITS = 2
LINES = 100_001
_NOISE_LEVELS = 90 * 8 + 1  # two significant digits from 1e-6 to 64 (analysis.py)
_BLOCK = 4096  # bytes
_ENDING = 60.0  # seconds by which the end of a container may be late
_MOMENTS_PER_SECOND = 1000  # the agent has a clock of its own: the moment of an answer, to a millisecond
_CURVES = (1, 2, 4, 8)  # of a curve's points one in so many is told, by level
NO_CURVE, BARE = len(_CURVES), len(_CURVES) + 1  # levels: summary and crash without a curve; the outcome alone
_EARLIER = 1.5  # times its part of what is left is an answer's share, so that telemetry thins towards the end
_SPREAD = 64  # answers that share what is left, where nobody said how many there will be


class Told(NamedTuple):
    """A tag's rows as far as the agent may see them, and the bits they told."""

    rows: Sequence[Experiment]  # grows with the tag
    bits: float
    limit: int
    bare: float  # of an outcome without telemetry

    @property
    def left(self) -> int:
        """How many experiments more may be told, at least their outcomes."""
        return max(0, int((self.limit - self.bits) // self.bare))

    @property
    def exhausted(self) -> bool:
        """True if not even a bare outcome fits any more."""
        return self.bits + self.bare > self.limit


def channels(policies: Policies) -> dict[str, float]:
    """The most bits of each part of an answer."""
    metrics, errors = policies.metrics, policies.errors
    return {
        **_outcome(policies),
        "loss curve": math.log2(metrics.curve_points + 1) + _curve(metrics.curve_points, metrics),
        "summary": sum(math.log2(_levels(metric)) + 1 for metric in metrics.summaries.values()),
        "dropped lines": math.log2(metrics.lines + 1),
        "crash": 1 + _classes(errors) + math.log2(LINES),
        "crash message": math.log2(len(errors.templates) + 1) + max((t.bits for t in errors.templates), default=0.0),
    }


def _outcome(policies: Policies) -> dict[str, float]:
    """What every answer tells, with telemetry or without."""
    trainer = policies.sandbox.trainer
    train = trainer.max_seconds + _ENDING
    evaluate = policies.decision.evaluation_seconds + _ENDING
    return {
        "status and reason": math.log2(BARE + 1) + math.log2(len(Status) * (REASONS + 1)),  # and how much is told
        "val_bpb": math.log2(BPB_LEVELS + 1),
        "confirmed gain": math.log2(2 * 10**GAIN_DIGITS + 2),
        "expected gain": math.log2(2 * 10**GAIN_DIGITS + 2) + math.log2(10**PROBABILITY_DIGITS + 2),
        "noise": math.log2(_NOISE_LEVELS),
        "causality": 2.0,
        "seconds": math.log2(10 * train + 1) + math.log2(10 * evaluate + 1),
        "left on the disk": math.log2(_blocks(trainer.file_bytes)) + math.log2(_blocks(trainer.output_bytes)),
        "moment of the answer": math.log2(_MOMENTS_PER_SECOND * (train + evaluate) * _most_runs(policies)),
    }


def _blocks(size: int) -> float:
    """Sizes a file can have as free blocks show it: of a run telemetry and log stay, and statfs(2) tells everybody."""
    return size / _BLOCK + 2


def _most_runs(policies: Policies) -> int:
    """Runs that may pass before one answer: the candidate's own, and every rerun for its sake."""
    decision = policies.decision
    return 1 + max(decision.baseline_runs, decision.confirm_runs) + decision.confirm_runs + 2 * SPARE_SEEDS


def most(policies: Policies) -> float:
    """The most bits of one answer."""
    return sum(channels(policies).values())


def check(policies: Policies) -> None:
    """Raises PolicyError if one answer could tell more than policy allows."""
    limit = policies.metrics.leak.experiment_bits
    if most(policies) > limit:
        raise PolicyError(
            f"leak.experiment_bits: an answer can carry {math.ceil(most(policies))} bits, {limit} are allowed",
            where="policies/metrics.yaml",
            fix="narrow ranges, digits, curve_points or templates; or allow more",
        )


def cost(policies: Policies, telemetry: Telemetry, crash: Crash | None) -> float:
    """Bits of an answer with this telemetry and crash."""
    metrics, errors = policies.metrics, policies.errors
    bits = sum(_outcome(policies).values()) + 1  # 1: whether there is a crash
    bits += math.log2(metrics.curve_points + 1) + _curve(len(telemetry.curve), metrics)
    bits += sum(
        math.log2(_levels(metric)) + 1 if name in telemetry.summary else 1.0
        for name, metric in metrics.summaries.items()
    )
    bits += math.log2(metrics.lines + 1)
    return bits + (_crash(crash, errors) if crash is not None else 0.0)


def _crash(crash: Crash, errors: Errors) -> float:
    template = next((t for t in errors.templates if t.id == crash.template), None)
    said = math.log2(len(errors.templates) + 1) + (template.bits if template else 0.0)
    return _classes(errors) + math.log2(LINES) + said


def _classes(errors: Errors) -> float:
    """A class of ours, Exception, a signal, or an exit code and which."""
    return math.log2(len(errors.classes) + 1 + len(SIGNALS) + EXIT_CODES)


def _curve(points: int, metrics: Metrics) -> float:
    """Rising steps are a set, so their order tells nothing: log2 of a binomial, plus the losses."""
    steps = _levels(metrics.step)
    chosen = math.lgamma(steps + 1) - math.lgamma(points + 1) - math.lgamma(max(steps - points, 0) + 1)
    return chosen / math.log(2) + points * math.log2(_levels(metrics.loss))


def _levels(metric: Metric) -> float:
    """How many values a rounded number can have."""
    return (metric.maximum - metric.minimum) * 10.0**metric.digits + 1


class Account:
    """What answers of a tag have told, row by row: what is told once stays told, so a row is looked at once.

    It follows from the ledger and the policies alone: whoever reads all rows again comes to the same.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._bare = sum(_outcome(policies).values())
        self._rows: list[Experiment] = []
        self._bits, self._full = 0.0, False
        self._lock = threading.Lock()  # agents are answered from several threads

    def catch_up(self, rows: Sequence[Experiment]) -> Told:
        """Take in the rows that ended since; all that was told."""
        with self._lock:
            for row in rows[len(self._rows) :]:
                self._full = self._full or not self._tell(row)
                if self._full:
                    break  # nothing more is told, not even that there is more
            return Told(self._rows, self._bits, self._policies.metrics.leak.night_bits, self._bare)

    def level(self, telemetry: Telemetry, crash: Crash | None, planned: int | None) -> int:
        """How much of the next answer to tell, from 0 (all) to BARE; `planned`: experiments of the tag in all."""
        with self._lock:
            done, leak = len(self._rows), self._policies.metrics.leak
            ends = planned or leak.experiments
            to_come = max(MAX_LANES - 1, ends - done - 1)  # what other lanes have begun must still be told
            free = leak.night_bits - self._bits - self._bare * (1 + to_come)
            share = _EARLIER * free / (planned - done) if planned and planned > done else free / _SPREAD
            costs = (_at(self._policies, level, telemetry, crash) for level in range(BARE))
            return next((level for level, bits in enumerate(costs) if bits <= self._bare + share), BARE)

    def _tell(self, row: Experiment) -> bool:
        """Whether a row's answer had room, its outcome at least."""
        telemetry = Telemetry(curve=row.curve, summary=row.summary)
        level = self._level_of_old(telemetry, row.crash) if row.told is None else row.told
        bits, limit = _at(self._policies, level, telemetry, row.crash), self._policies.metrics.leak.night_bits
        if row.reason == NOTHING_PROPOSED:
            bits = 0.0  # nothing ran
        if self._bits + bits > limit:
            level, bits = BARE, self._bare
        if self._bits + bits > limit:
            return False
        self._bits += bits
        self._rows.append(_as_told(row, level))
        return True

    def _level_of_old(self, telemetry: Telemetry, crash: Crash | None) -> int:
        """What rows were told in full before levels were recorded: as long as enough outcomes still fit."""
        leak, bare = self._policies.metrics.leak, self._bare
        to_come = bare * (MAX_LANES - 1 + max(0, leak.experiments - len(self._rows) - 1))
        return 0 if self._bits + cost(self._policies, telemetry, crash) + to_come <= leak.night_bits else BARE


def told(policies: Policies, rows: Sequence[Experiment]) -> Told:
    """What answers of a tag with these rows have told."""
    return Account(policies).catch_up(rows)


def thinned(curve: Sequence[tuple[int, float]], level: int) -> list[tuple[int, float]]:
    """The points of a curve that a level tells, the last among them."""
    return list(curve[:: -_CURVES[level]])[::-1] if level < NO_CURVE else []


def _at(policies: Policies, level: int, telemetry: Telemetry, crash: Crash | None) -> float:
    """Bits of an answer at a level."""
    if level == BARE:
        return sum(_outcome(policies).values())
    return cost(policies, telemetry.model_copy(update={"curve": thinned(telemetry.curve, level)}), crash)


def _as_told(row: Experiment, level: int) -> Experiment:
    if level == BARE:
        return row.model_copy(update={"curve": [], "summary": {}, "crash": None})
    return row if level == 0 else row.model_copy(update={"curve": thinned(row.curve, level)})
