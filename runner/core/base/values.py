"""The typed values of an experiment. TRUSTED, frozen, no logic beyond validation; launching.py has a container's.

Each stage of an experiment takes only the previous stage's type, so a skipped stage is a type error:
Snapshot -> Trained -> Scored -> Verdict -> Experiment -> Feedback.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from runner.core.base.launching import Costs, EngineResult, Frozen, RunId, Sha256, Speed, Version

Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


def _not_lock(tag: str) -> str:
    if tag.endswith(".lock"):
        raise ValueError("a tag may not end in .lock")
    return tag


# Also a valid git branch name: no "..", no final ".", no ".lock".
TAG_PATTERN = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"
MAX_TAG = 40
Tag = Annotated[str, Field(pattern=TAG_PATTERN, max_length=MAX_TAG), AfterValidator(_not_lock)]


Attention = Literal["package", "flash", "sdpa", "masked"]  # trainer/attention.py, quickest first

Kind = Literal[  # of what an experiment changed (findings/edits.py)
    "learning_rate", "schedule", "batch", "size", "optimizer", "regularization", "attention", "initialization",
    "architecture", "training_loop", "nothing", "other",
]  # fmt: skip

NOTHING_PROPOSED = "nothing_proposed"  # reason of a row without a run: its agent changed nothing
INTERRUPTED = "interrupted"  # reason of a row whose runner or launcher died


class Status(StrEnum):
    """How an experiment ended."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    NON_CAUSAL = "non_causal"
    NOT_EXPORTABLE = "not_exportable"


OUTCOMES = (*map(str, Status), INTERRUPTED)  # what people count


class Snapshot(Frozen):
    """A train.py as it was read once: content address, size, and our read-only copy."""

    sha256: Sha256
    size: int
    path: Path


class Telemetry(Frozen):
    """What passed the filter: bounded, rounded numbers only."""

    curve: list[tuple[int, float]] = []  # (step, loss), downsampled
    summary: dict[str, float] = {}
    dropped_lines: int = 0


class Crash(Frozen):
    """Why training failed, without a character the trainer chose."""

    error: str  # from policies/errors.yaml, or Exception
    line: int  # in train.py, 0 unknown
    template: str | None = None  # of policies/errors.yaml, if the message is a known one
    message: str | None = None  # our sentence for it


class Proposal(Frozen):
    """What an agent said of its experiment beforehand; nothing is decided by it."""

    model_config = ConfigDict(allow_inf_nan=False)

    hypothesis: str = ""  # on one line, cut like a description
    expected: Annotated[float, Field(ge=-1, le=1)] | None = None  # gain over the best
    kind: Kind | None = None  # of what it changes, by its own word

    @property
    def empty(self) -> bool:
        """Whether nothing was said."""
        return self == Proposal()


class Evaluation(Frozen):
    """How a score was taken and what was tried against it."""

    order: Annotated[int, Field(ge=0, lt=1 << 63)]  # seed of the order in which rows were scored
    audited: Annotated[int, Field(ge=0)]  # rows scored again with another future
    alone: Annotated[int, Field(ge=0)]  # rows scored again with nothing beside them
    whole: bool  # every row was audited
    costs: Costs

    @property
    def bound(self) -> float | None:
        """At 95 % confidence at most this share of positions looks ahead, from the audit alone; None without one."""
        return min(1.0, 3.0 / self.audited) if self.audited else None


class Score(Frozen):
    """The evaluator's verdict on one hand-over."""

    status: Literal["scored", "refused"]
    reason: str | None = None
    val_bpb: float | None = None
    val_bpb_bytes: float | None = None
    targets: int = 0
    causality: Literal["proved", "audited"] | None = None
    operations: int = 0
    seconds: float = 0.0
    evaluation: Evaluation | None = None  # with a score


class Hopeless(Frozen):
    """Why a run was found unable to win while it trained (early_stop.py)."""

    look: float  # share of the budget
    rows: int  # finished experiments it was told from
    against: float  # val_bpb there was to beat
    bound: float  # val_bpb it would have scored at least


class Trained(Frozen):
    """Outcome of the training container."""

    snapshot: Snapshot
    run: RunId
    engine: EngineResult
    telemetry: Telemetry
    crash: Crash | None = None
    not_exportable: str | None = None
    diverged: bool = False  # the last loss it reported is no number
    attention: list[Attention] = []  # as it reported
    handed_over: bool
    pace: list[tuple[float, float]] = []  # (share of the budget, training loss) by the host's clock
    ended_early: bool = False  # by us, for its pace or a loss that is no number


class Scored(Frozen):
    """Outcome of the evaluation container; engine is None when there was nothing to evaluate."""

    trained: Trained
    engine: EngineResult | None
    score: Score | None


class Feedback(Frozen):
    """All that the agent learns of its experiment: enums and bounded, rounded numbers."""

    experiment: int
    status: Status
    val_bpb: float | None = None
    best_bpb: float | None = None
    delta: float | None = None  # val_bpb minus the best before this experiment
    confirmed: float | None = None  # gain by paired reruns on fresh seeds, if there were any
    gain: float | None = None  # expected, by all that the tag's scores say
    probability: float | None = None  # that its effect is real
    reason: str | None = None  # closed code for anything but keep and discard
    crash: Crash | None = None
    causality: Literal["proved", "audited", "non_causal"] | None = None
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    telemetry: Telemetry = Telemetry()
    rebased: bool | None = None  # whether what it changed was put into a best that was new; False: it did not fit
    withheld: bool = False  # the leak budget is used: no telemetry, no crash
    experiments_left: int | None = None


class Experiment(Frozen):
    """One row of the ledger; the defaults are those of a run that produced nothing."""

    model_config = ConfigDict(allow_inf_nan=False)

    id: int
    tag: Tag
    status: Status
    description: str
    snapshot: Sha256
    snapshot_size: int
    commit: Commit
    run: RunId
    started: str
    artifact: Version
    policy: Sha256
    val_bpb: float | None = None
    val_bpb_bytes: float | None = None
    claimed: float | None = None  # gain over the best before, from this single run
    confirmed: float | None = None  # gain measured by paired reruns on fresh seeds, None if there were none
    interval: tuple[float, float] | None = None  # of the confirmed gain, else of the claimed one; policy's alpha
    pairs: int = 0  # paired reruns behind `confirmed`
    gain: float | None = None  # expected over the best before, by all that the tag's scores say (rule `odds`)
    probability: float | None = None  # that its effect on `parent` is real, more than a quarter of the noise
    sigma: float | None = None  # the noise of one run as it was believed then
    total: float | None = None  # what the best was then believed to gain over the baseline, this row's score included
    kinds: list[Kind] | None = None  # what it changed in the best of its time; None in older rows, and if interrupted
    told: Annotated[int, Field(ge=0, le=5)] | None = None  # how much of it the agent was: 0 all, 5 the outcome alone
    parent: int | None = None  # the experiment whose train.py it was made from; None: a baseline, or an older row
    program: Sha256 | None = None  # the person's directive that its agent was last given; evidence/texts.py has it
    notebook: Sha256 | None = None  # the agents' notes and ideas when it began
    proposal: Proposal | None = None  # what its agent said of it beforehand
    veto: int | None = None  # the keep that a person took back by it: the best before that ran again
    rebased: int | None = None  # the experiment it was first made from; what it changed there was put into `parent`
    causality: Literal["proved", "audited", "non_causal"] | None = None
    reason: str | None = None
    crash: Crash | None = None
    memory_gb: float = 0.0
    neighbours: float = 0.0  # processors that worked for others on average while it trained
    speed: Speed | None = None  # of the GPU it trained on
    attention: list[Attention] = []  # which ran, as train.py reported
    seconds: float = 0.0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    curve: list[tuple[int, float]] = []
    summary: dict[str, float] = {}
    pace: list[tuple[float, float]] = []  # (share of the budget, training loss) by the host's clock
    hopeless: Hopeless | None = None  # found so while it trained, and ended for it unless it has a score
    lane: str = ""  # where it ran (Lane.name)
    evaluation: Evaluation | None = None  # how its score was taken; None without one, and in rows older than this

    @property
    def proposed(self) -> bool:
        """Whether an agent made it: no baseline, no person's veto, and not nothing."""
        return self.parent is not None and self.veto is None and self.reason != NOTHING_PROPOSED

    @property
    def counts(self) -> bool:
        """Whether it is one of those that were asked for: not interrupted, and no person's veto."""
        return self.reason != INTERRUPTED and self.veto is None

    @property
    def outcome(self) -> str:
        """One of OUTCOMES: that a run was interrupted is no crash of its train.py."""
        return INTERRUPTED if self.reason == INTERRUPTED else str(self.status)


class Rerun(Frozen):
    """One more run of an experiment's train.py: another seed, or other terms."""

    model_config = ConfigDict(allow_inf_nan=False)

    id: int
    tag: Tag
    experiment: int  # whose train.py
    during: int  # the experiment it helped to decide; 0: a person asked for it
    seed: int  # number of the draw, from 43; asked for by a person: from transfers.FIRST_ASKED
    given: int  # what train.py was given as GLOVEBOX_SEED
    budget: float  # seconds of training
    depth: int | None = None  # put in place of the file's own, None: as it is
    holdout: bool = False  # scored on the text that nothing is chosen by
    artifact: Version
    snapshot: Sha256  # what ran: the experiment's own, or with another depth
    run: RunId
    started: str
    status: Status | Literal["scored"]
    reason: str | None = None
    val_bpb: float | None = None
    memory_gb: float = 0.0
    neighbours: float = 0.0
    speed: Speed | None = None
    seconds: float = 0.0
    lane: str = ""  # where it ran (Lane.name)
    pair: int = 0  # the best whose pairs its draw belongs to; 0: a person asked for it, or an older row
    evaluation: Evaluation | None = None  # how its score was taken
