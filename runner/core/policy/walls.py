"""The policies that make a container: sandbox, seccomp and evaluator. TRUSTED, fails closed.

All that the launcher reads of policies/. It knows the bytes of the other files by their digest alone: a runner that
decides by others is refused. How a file is read, and what is refused, is in strict_yaml.py; the other models are in
policy_files.py.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from runner.core.base.strict_yaml import Strict, parse, read
from runner.core.policy.seccomp import Seccomp

Bytes = Annotated[int, Field(ge=1 << 10, le=1 << 40)]
_OF_HOST = 0.85  # of the host's memory: one that takes it all must not end others


class Box(Strict):
    """Resource ceilings of one container role."""

    image: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/:@-]{0,200}$")]
    uid: Annotated[int, Field(ge=1000, le=2_000_000_000)]
    memory_bytes: Bytes
    cpus: Annotated[float, Field(gt=0, le=256)]
    pids: Annotated[int, Field(ge=16, le=32768)]
    open_files: Annotated[int, Field(ge=64, le=1 << 20)]
    file_bytes: Bytes
    tmp_bytes: Bytes
    exec_cache_bytes: Annotated[int, Field(ge=0, le=1 << 36)]
    shm_bytes: Bytes
    output_bytes: Bytes
    max_seconds: Annotated[float, Field(gt=0, le=7 * 86_400)]

    def memory(self, lanes: int) -> int:
        """Bytes that a container may use: cut to what the host has, which several lanes share."""
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min(self.memory_bytes, int(_OF_HOST * host) // lanes)


class Sandbox(Strict):
    """policies/sandbox.yaml."""

    runtime: Literal["runc", "runsc"]
    agent_runtime: Literal["runc", "runsc"]
    seccomp: Literal["glovebox", "engine"]
    minimum_engine: Annotated[str, Field(pattern=r"^(2[0-9]|[3-9][0-9])\.\d+$")]
    minimum_toolkit: Annotated[str, Field(pattern=r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")]
    standby: bool
    gpu_idle_mib: Annotated[int, Field(ge=0, le=1 << 20)] = 1024
    agents: Literal["frozen", "apart"]
    userns: Literal["none", "remap", "rootless"]
    userns_base: Annotated[int, Field(ge=0, le=4_000_000_000)]
    trainer: Box
    evaluator: Box
    agent: Box

    def runtime_of(self, role: str) -> str:
        """The OCI runtime of a role's containers."""
        return self.agent_runtime if role == "agent" else self.runtime

    @model_validator(mode="after")
    def _separate(self) -> Sandbox:
        if (self.userns == "none") is not (self.userns_base == 0):
            raise ValueError("userns_base is 0 without a user namespace and above 0 with one")
        if self.agent_runtime == "runsc" and self.userns != "none":
            raise ValueError("agent_runtime: runsc needs userns: none; gVisor maps users itself")
        if self.agent.uid in (self.trainer.uid, self.evaluator.uid):
            raise ValueError("the agent needs a uid of its own")
        return self


class EvaluatorLimits(Strict):
    """Ceilings of one forward pass; trainer/evaluator/model/program.py Limits."""

    weight_bytes: Bytes
    peak_bytes: Bytes
    elements: Annotated[int, Field(ge=1, le=1 << 40)]
    total_elements: Annotated[int, Field(ge=1, le=1 << 44)]
    flops: Annotated[float, Field(gt=0, le=1e18)]


class Evaluator(Strict):
    """policies/evaluator.yaml."""

    limits: EvaluatorLimits
    accept: Annotated[list[Literal["proved", "audited"]], Field(min_length=1, max_length=2)]
    audit_trials: Annotated[int, Field(ge=0, le=100_000)]
    audit_trials_unproved: Annotated[int, Field(ge=1000, le=10_000_000)]
    audit_share: Annotated[float, Field(ge=0, le=1)]
    audit_alone_share: Annotated[float, Field(ge=0, le=1)]
    fold_share: Annotated[float, Field(gt=0, le=1)]
    scoring_ratio: Annotated[float, Field(ge=1, le=1000)]
    threads: Annotated[int, Field(ge=1, le=256)]
    on_contradiction: Literal["stop", "go_on"]


MODELS: dict[str, type[Strict]] = {"sandbox": Sandbox, "seccomp": Seccomp, "evaluator": Evaluator}
# Every policy file, in the order in which the digest takes them.
NAMES = ("sandbox", "seccomp", "agent", "broker", "audit", "notify", "decision", "evaluator", "metrics", "errors")


class Walls(Strict):
    """What a launcher needs; `digest` is the SHA-256 over the bytes of every policy file."""

    sandbox: Sandbox
    seccomp: Seccomp
    evaluator: Evaluator
    digest: str


def load(*folders: Path) -> Walls:
    """The policies of containers, each from the first folder that has it; raises PolicyError."""
    paths, texts = read_all(folders)
    parsed = {name: parse(paths[name], texts[name], model) for name, model in MODELS.items()}
    return Walls(**parsed, digest=digest_of(texts, NAMES))  # type: ignore[arg-type] # each file's own model


def read_all(folders: tuple[Path, ...]) -> tuple[dict[str, Path], dict[str, str]]:
    """(path, text) of every policy file by its name; raises PolicyError for one that cannot be read."""
    paths = {name: place(folders, f"{name}.yaml") for name in NAMES}
    return paths, {name: read(path) for name, path in paths.items()}


def place(folders: tuple[Path, ...], name: str) -> Path:
    """Where a policy file is: the first folder that has it, else where it should be."""
    return next((folder / name for folder in folders if os.path.lexists(folder / name)), folders[-1] / name)


def digest_of(texts: dict[str, str], names: tuple[str, ...]) -> str:
    """SHA-256 over the names, sizes and bytes of policy files."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {len(texts[name].encode())}\n{texts[name]}".encode())
    return digest.hexdigest()
