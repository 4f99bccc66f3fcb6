"""What the desk is asked to do, as whoever starts it says. TRUSTED."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from runner.core.base.launching import MAX_LANES, WHOLE_HOST, AgentKind, Frozen, Lane
from runner.core.base.values import Tag

Seconds = Annotated[int, Field(ge=1, le=86_400)]


class Order(Frozen):
    """What a person asks for."""

    experiments: tuple[int, ...] = ()  # by number; empty: the `top` keeps by gain
    top: Annotated[int, Field(ge=0, le=100)] = 0  # with neither: the best against the baseline alone
    seeds: Annotated[int, Field(ge=1, le=20)] | None = None  # None: 2 for the whole gain, 3 for a step
    budget: Seconds | None = None  # of training; None: the artifact's
    depth: Annotated[int, Field(ge=1, le=1000)] | None = None
    profile: str | None = None


class Prune(Frozen):
    """That doubtful keeps are to be taken out of the best."""

    below: Annotated[float, Field(gt=0, le=1)] = 0.7  # probability that a keep is real
    runs: Annotated[int, Field(ge=1, le=1000)] = 24  # of training, but for those that measure it at the end
    seeds: Annotated[int, Field(ge=1, le=20)] = 3  # of those, on each of the two files


class Settings(Frozen):
    """What `glovebox` or compose asks of one desk."""

    home: str
    tag: Tag
    doors: str  # folder of the sockets
    seed: str  # train.py to begin a new tag with
    agent: AgentKind | None = None  # have the launcher start this one; None: somebody else does
    meter: bool = False  # there is a broker to tell which experiment is under way
    train_py: str | None = None  # run just this file, without an agent
    description: str = ""
    order: Order | None = None  # rerun what was recorded, without an agent
    prune: Prune | None = None  # without an agent and `until`: at once; else when the tag has all its experiments
    max_experiments: int | None = None  # of this session
    until: int | None = None  # experiments of the tag in all, interrupted ones not counted
    artifact: str | None = None
    from_tag: Tag | None = None  # a new tag begins with the best of this one
    lanes: Annotated[tuple[Lane, ...], Field(min_length=1, max_length=MAX_LANES)] = (WHOLE_HOST,)
