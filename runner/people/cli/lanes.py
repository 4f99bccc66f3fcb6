"""--gpu and --cores of `run` and `up`: where experiments run, one at a time on each. TRUSTED."""

from __future__ import annotations

import os
from itertools import zip_longest
from typing import Annotated

import typer
from pydantic import ValidationError

from runner.core.base.launching import MAX_LANES, Lane, named_processors

Gpus = Annotated[
    list[str] | None,
    typer.Option("--gpu", help="UUID of a GPU (nvidia-smi -L); again for more, each with an agent. Default: CPU."),
]
CoreSets = Annotated[
    list[str] | None, typer.Option("--cores", help="Processors like 0-3; again for more sets, each with an agent.")
]


def lanes_of(gpus: list[str] | None, cores: list[str] | None) -> tuple[Lane, ...]:
    """Where experiments run, one at a time on each; raises BadParameter for what is malformed or shared by two."""
    if gpus and cores and len(gpus) != len(cores):
        raise typer.BadParameter("as many --cores as --gpu, or none: they belong together in this order")
    pairs = list(zip_longest(gpus or [], cores or [])) or [(None, None)]
    try:
        lanes = tuple(Lane(number=at, gpu=gpu, cores=some, of=len(pairs)) for at, (gpu, some) in enumerate(pairs))
    except ValidationError as error:
        fix = f"--gpu GPU-UUID (nvidia-smi -L), --cores like 0-3 or 0,2; at most {MAX_LANES} of them"
        raise typer.BadParameter(f"{error.errors()[0]['input']!r}: {fix}") from None
    taken: set[int] = set()
    there = os.sched_getaffinity(0)
    for lane in lanes:
        own = named_processors(lane.cores) if lane.cores else set()
        if not own <= there or (lane.cores and not own):
            raise typer.BadParameter(f"--cores {lane.cores}: this host has {min(there)} to {max(there)}")
        if own & taken or (lane.gpu and [one.gpu for one in lanes].count(lane.gpu) > 1):
            raise typer.BadParameter(f"{lane.name} is given twice: experiments on it would disturb each other")
        taken |= own
    return tuple(lane.model_copy(update={"cores": _ranges(lane.cores)}) for lane in lanes)


def _ranges(text: str | None) -> str | None:
    """One way to write a set of cores, since scores are compared within it: 0-3,8."""
    if not text:
        return text
    cores = named_processors(text)
    starts = [core for core in sorted(cores) if core - 1 not in cores]
    ends = [core for core in sorted(cores) if core + 1 not in cores]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
