"""The way to the container engine, checked before it is used. TRUSTED, part of the launcher."""

from __future__ import annotations

import os

import docker

from runner.core.base.errors import EngineError
from runner.core.policy import users
from runner.core.policy.walls import Sandbox

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
