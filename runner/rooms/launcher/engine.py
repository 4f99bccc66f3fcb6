"""The way to the container engine, and to images: checked before they are used. TRUSTED, part of the launcher.

Containers of images with a layer in common have its files in common, and the kernel keeps one page cache for them. Who
drops a page, or reads it in, tells whoever reads it next by the time that takes: a bit a page, 40,000 in a Debian base,
and they wait there while an agent stands still. So the agent's image is one layer of its own (Dockerfile.agent), and
shares no file with those that see data.
"""

from __future__ import annotations

import os

import docker

from runner.core.base.errors import EngineError
from runner.core.policy import users
from runner.core.policy.walls import Sandbox
from runner.rooms.launcher import freezing

SECONDS = float(os.environ.get("GLOVEBOX_ENGINE_SECONDS", "60"))  # an engine that takes longer has stalled

Client = docker.DockerClient  # for those who are handed one and do not know the library
Failed = docker.errors.DockerException


def connect_engine(sandbox: Sandbox) -> docker.DockerClient:
    """The engine, checked for the policy's minimum version; raises EngineError."""
    try:
        client = docker.from_env(timeout=int(SECONDS))
        version = str(client.version()["Version"])
    except docker.errors.DockerException as error:
        fix = "start Docker, or as root on Debian: scripts/engine-up.sh"
        raise EngineError(f"no container engine answers ({str(error)[:80]})", fix=fix) from None
    found = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:2])
    if found < tuple(int(part) for part in sandbox.minimum_engine.split(".")):
        raise EngineError(
            f"engine {version} is older than {sandbox.minimum_engine}",
            where="policies/sandbox.yaml minimum_engine",
            fix="upgrade Docker",
        )
    info = client.info()
    users.check(sandbox, info.get("SecurityOptions") or [], str(info.get("DockerRootDir")))
    return client


def check_apart(client: docker.DockerClient, sandbox: Sandbox, bench: str | None = None) -> None:
    """Raises EngineError if an agent's image shares a layer with the trainer's or the evaluator's.

    An agent's is the one policy names and, of a `bench`, whatever its agents run now: compose starts them, and policy
    does not tell it of what. An image that is missing shares nothing: what needs it says so.
    """
    agents = {sandbox.agent.image}
    if bench is not None:
        agents |= {str(container["ImageID"]) for container in freezing.agents(client, bench)}
    for image in sorted({sandbox.trainer.image, sandbox.evaluator.image}):
        theirs = _layers(client, image)
        for agent in sorted(agents):
            if shared := theirs & _layers(client, agent):
                raise EngineError(
                    f"{agent} and {image} share {len(shared)} layers, so a trainer can write into the page cache of "
                    "files that an agent reads",
                    fix="make images; one of your own for the agent is built on glovebox/agent, not on the trainer's "
                    "base",
                )


def _layers(client: docker.DockerClient, image: str) -> set[str]:
    try:
        layers = client.images.get(image).attrs.get("RootFS", {}).get("Layers")
    except docker.errors.ImageNotFound:
        return set()
    if not layers:
        raise EngineError(f"the engine does not say what {image} is made of", fix="glovebox doctor")
    return set(layers)
