"""The typed values that cross between rooms. TRUSTED, frozen, no logic beyond validation.

Each stage of an experiment takes only the previous stage's type, so a skipped stage is a type error:
Snapshot -> Trained -> Scored -> Verdict -> Experiment -> Feedback.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from runner.core.base.nvidia import HeldBack

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Version = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


def _not_lock(tag: str) -> str:
    if tag.endswith(".lock"):
        raise ValueError("a tag may not end in .lock")
    return tag


# Also a valid git branch name: no "..", no final ".", no ".lock".
TAG_PATTERN = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*$"
MAX_TAG = 40
Tag = Annotated[str, Field(pattern=TAG_PATTERN, max_length=MAX_TAG), AfterValidator(_not_lock)]
Role = Literal["agent", "trainer", "evaluator"]
AgentKind = Literal["scripted", "claude", "command"]
Gpu = Annotated[str, Field(pattern=r"^(GPU|MIG)-[0-9a-f-]{36}$")]  # a GPU, or an instance of one
Cores = Annotated[str, Field(pattern=r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?){0,63}$")]
MAX_LANES = 16


Attention = Literal["package", "flash", "sdpa", "masked"]  # trainer/attention.py, quickest first
_THROTTLED = 0.05  # of the looks at a GPU

INTERRUPTED = "interrupted"  # reason of a row whose runner or launcher died


class Frozen(BaseModel):
    """Strict, immutable, closed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Lane(Frozen):
    """Where experiments run one after the other: a GPU, a set of the host's cores, or both. Lanes run at a time."""

    number: Annotated[int, Field(ge=0, lt=MAX_LANES)] = 0
    gpu: Gpu | None = None
    cores: Cores | None = None
    of: Annotated[int, Field(ge=1, le=MAX_LANES)] = 1  # lanes that share the host's memory, and its cores if not given

    @property
    def name(self) -> str:
        """What scores are compared within: those of another device say something else. Empty: the whole host."""
        return "/".join(part for part in (self.gpu, self.cores) if part)


WHOLE_HOST = Lane()


class Status(StrEnum):
    """How an experiment ended."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    NON_CAUSAL = "non_causal"
    NOT_EXPORTABLE = "not_exportable"


class EndReason(StrEnum):
    """Why a container ended, as the engine and our own clock saw it."""

    EXIT = "exit"
    WALL = "wall"
    OUTPUT = "output"
    OOM = "oom"
    CANCELLED = "cancelled"


class Snapshot(Frozen):
    """A train.py as it was read once: content address, size, and our read-only copy."""

    sha256: Sha256
    size: int
    path: Path


class Cache(Frozen):
    """Compiled code of a signed artifact that was admitted, and what it was compiled for."""

    version: Version
    image: str  # id, sha256:...
    device: str  # device.kind
    cold_seconds: float | None = None  # beyond its budget, of the run that compiled it


class LaunchRequest(Frozen):
    """All that a launcher can be asked. Everything else about a container comes from policy."""

    role: Role
    run: RunId
    policy: Sha256  # digest of the policies the runner decided by; a launcher with others refuses
    artifact: Version | None = None  # trainer, evaluator
    kernels: Version | None = None  # trainer
    cache: Cache | None = None  # trainer: compiled code it may begin with, if it fits
    keep_cache: bool = False  # trainer: it hands out what it compiled (compile_cache.py)
    agent: AgentKind = "scripted"  # agent
    lane: Lane = WHOLE_HOST


class Freeze(Frozen):
    """Asks a launcher to let the agent of a lane stand still until the asker hangs up."""

    freeze: Annotated[int, Field(ge=0, lt=MAX_LANES)]


class Costs(Frozen):
    """What an evaluation took (trainer/evaluator/costs.py); a baseline's is the yardstick of its tag."""

    pass_flops: Annotated[float, Field(ge=0, le=1e18)] = 0.0
    pass_elements: Annotated[int, Field(ge=0, le=1 << 50)] = 0  # read and written
    passes: Annotated[int, Field(ge=0, le=1 << 30)] = 0
    scoring_seconds: Annotated[float, Field(ge=0, le=7 * 86_400)] = 0.0  # of work


class Release(Frozen):
    """What a container that was started is to do, and how long it may take. The second thing a launcher is told."""

    seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]
    snapshot: Sha256 | None = None  # trainer: the train.py to run
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42  # trainer
    budget: Annotated[int, Field(ge=1, le=86_400)] | None = None  # trainer: seconds, in place of the artifact's
    audit_below: Annotated[float, Field(gt=0, le=64)] | None = None  # evaluator: a lower score is audited on every row
    baseline: Costs | None = None  # evaluator: what it may take is a multiple of this


class Speed(Frozen):
    """The GPU a run was lent, and what held it back, by the driver; what a card does not tell is None."""

    name: str
    driver: str
    sm_mhz: float | None = None  # on average while it trained
    power_cap_w: float | None = None
    held_back: dict[HeldBack, float] = {}  # share of the looks

    @property
    def throttled(self) -> bool:
        """Whether more than its power cap slowed it for a part of the run: it is no measure of the others."""
        return any(share >= _THROTTLED for reason, share in self.held_back.items() if reason != "power_cap")


class EngineResult(Frozen):
    """A container's end from the engine's inspect and the host's clock; nothing the container printed."""

    exit_code: int
    reason: EndReason
    oom: bool
    seconds: float
    output_bytes: int
    image: str  # image id, sha256:...
    container: str
    specification: str = ""  # SHA-256 of what the engine's inspect was compared with before the start
    neighbours: float = 0.0  # processors that worked for others on average, of those it had
    peak_mb: float = 0.0  # most memory it was seen to use (of the GPU it was lent, else of the host); 0: not seen
    speed: Speed | None = None  # of the GPU it was lent


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
    diverged: bool = False  # it reported a loss that is no number
    attention: list[Attention] = []  # as it reported
    handed_over: bool
    pace: list[tuple[float, float]] = []  # (share of the budget, training loss) by the host's clock
    ended_early: bool = False  # by us, for its pace


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
    withheld: bool = False  # the leak budget is used: no telemetry, no crash
    experiments_left: int | None = None


class Experiment(Frozen):
    """One row of the ledger; the defaults are those of a run that produced nothing."""

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
    parent: int | None = None  # the experiment whose train.py it was made from; None: a baseline, or an older row
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


class Rerun(Frozen):
    """One more run of an experiment's train.py: another seed, or other terms."""

    id: int
    tag: Tag
    experiment: int  # whose train.py
    during: int  # the experiment it helped to decide; 0: a person asked for it
    seed: int  # number of the draw, from 43; asked for by a person: from transfers.FIRST_ASKED
    given: int  # what train.py was given as GLOVEBOX_SEED
    budget: float  # seconds of training
    depth: int | None = None  # put in place of the file's own, None: as it is
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
