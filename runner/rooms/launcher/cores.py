"""Which of the host's processors are whose: a lane's, the agents'. TRUSTED, pure but for how many there are."""

from __future__ import annotations

import os

from runner.core.base.errors import EngineError
from runner.core.base.launching import LaunchRequest, named_processors
from runner.core.policy.walls import Sandbox


def of_agents(sandbox: Sandbox) -> str | None:
    """Processors of the agents' own: with `agents: apart` the host's last one, and it alone."""
    return str(max(os.sched_getaffinity(0))) if sandbox.agents == "apart" else None


def of(sandbox: Sandbox, request: LaunchRequest) -> str | None:
    """Processors of a container's own; raises EngineError if the agents leave nothing to train on."""
    theirs = of_agents(sandbox)
    if request.role == "agent" or theirs is None:
        return theirs if request.role == "agent" else request.lane.cores
    there = os.sched_getaffinity(0)
    left = (named_processors(request.lane.cores) if request.lane.cores else there) - named_processors(theirs)
    if not left:
        fix = "give the lane other --cores, or set agents: frozen"
        raise EngineError("agents have the only processor", where="policies/sandbox.yaml agents", fix=fix)
    return ",".join(map(str, sorted(left)))
