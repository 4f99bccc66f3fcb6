"""What is said over the launcher's door: what is asked for, and how it ended. TRUSTED, frozen.

All that a launcher knows of an experiment; the experiment's own values are in values.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from runner.core.base.nvidia import HeldBack

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Version = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Role = Literal["agent", "trainer", "evaluator"]
AgentKind = Literal["scripted", "claude", "command"]
GPU_PATTERN = r"^(GPU|MIG)-[0-9a-f-]{36}$"
Gpu = Annotated[str, Field(pattern=GPU_PATTERN)]  # a GPU, or an instance of one
Cores = Annotated[str, Field(pattern=r"^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?){0,63}$")]
MAX_LANES = 16
MAX_SEATS = 4  # agents that propose for one lane

_THROTTLED = 0.05  # of the looks at a GPU


class Frozen(BaseModel):
    """Strict, immutable, closed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Seat = Annotated[int, Field(ge=0, lt=MAX_SEATS)]


def named_processors(text: str) -> set[int]:
    """The processors a list like 0-3,8 names."""
    parts = (part.split("-") for part in text.split(","))
    return {core for part in parts for core in range(int(part[0]), int(part[-1]) + 1)}


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


class EndReason(StrEnum):
    """Why a container ended, as the engine and our own clock saw it."""

    EXIT = "exit"
    WALL = "wall"
    OUTPUT = "output"
    OOM = "oom"
    CANCELLED = "cancelled"


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
    holdout: bool = False  # evaluator: the rows it finds are those held back for confirm
    kernels: Version | None = None  # trainer
    cache: Cache | None = None  # trainer: compiled code it may begin with, if it fits
    keep_cache: bool = False  # trainer: it hands out what it compiled (compile_cache.py)
    agent: AgentKind = "scripted"  # agent
    lane: Lane = WHOLE_HOST
    seat: Seat = 0  # agent: of those that propose for the lane
    seats: Annotated[int, Field(ge=1, le=MAX_SEATS)] = 1  # trainer: how many propose for its lane


class Freeze(Frozen):
    """Asks a launcher to let an agent of a lane stand still until the asker hangs up."""

    freeze: Annotated[int, Field(ge=0, lt=MAX_LANES)]
    seat: Seat = 0


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
