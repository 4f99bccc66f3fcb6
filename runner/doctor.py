"""`glovebox doctor`: is everything a run needs in place? Every failed line carries the command that fixes it. TRUSTED."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import docker

from runner import keys, policy
from runner.artifacts import store
from runner.errors import GloveboxError
from runner.home import SOURCE, Home, find
from runner.launcher import connect_engine

MIN_FREE_BYTES = 5 << 30


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is fine, detail, and the fix if it is not."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def checks() -> Iterator[Check]:
    """All checks, in the order in which a failure explains later ones."""
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")
    yield Check("git", shutil.which("git") is not None, shutil.which("git") or "not found", "apt-get install git")
    policies = yield from _guarded("policies", lambda: policy.load(_policies_folder()), lambda p: p.digest[:12])
    engine = None
    if policies is not None:
        engine = yield from _guarded("engine", lambda: connect_engine(policies.sandbox), _engine_detail)
    if engine is not None and policies is not None:
        yield from _engine(engine, policies)
    home = yield from _guarded("bench", find, lambda h: str(h.root))
    if home is not None:
        yield from _guarded("signing key", lambda: keys.signer(home), lambda s: s.public_key.keyid[:12])
        yield from _guarded("artifact", lambda: store.admit(home, store.latest(home)), _artifact_detail)
        free = shutil.disk_usage(home.root).free
        yield Check("disk", free >= MIN_FREE_BYTES, f"{free >> 30} GiB free", f"free space on {home.root}")


def _policies_folder() -> "os.PathLike[str]":  # noqa: UP037
    try:
        return find().policies
    except GloveboxError:
        return SOURCE / "policies"


def _guarded(name, action, detail):  # type: ignore[no-untyped-def]
    """Yield a Check from an action that raises GloveboxError; returns the action's value or None."""
    try:
        value = action()
    except GloveboxError as error:
        yield Check(name, False, f"{error.where}: {error.what}" if error.where else error.what, error.fix)
        return None
    yield Check(name, True, detail(value))
    return value


def _engine_detail(client: docker.DockerClient) -> str:
    info = client.info()
    return f"{info['ServerVersion']}, cgroup v{info.get('CgroupVersion', '?')}, {info.get('Driver')}"


def _artifact_detail(statement: object) -> str:
    predicate = statement.predicate  # type: ignore[attr-defined]
    return f"{predicate.version}, expires {predicate.expires:%Y-%m-%d}"


def _engine(client: docker.DockerClient, policies: policy.Policies) -> Iterator[Check]:
    info = client.info()
    options = " ".join(info.get("SecurityOptions") or [])
    yield Check("seccomp", "seccomp" in options, options or "none", "use an engine built with seccomp")
    limits = info.get("MemoryLimit") and info.get("PidsLimit")
    yield Check("cgroup limits", bool(limits), "memory and pids", "enable the memory and pids cgroup controllers")
    runtimes = ", ".join(sorted(info.get("Runtimes") or {}))
    wanted = policies.sandbox.runtime
    yield Check("runtime", wanted in (info.get("Runtimes") or {}), f"{wanted} of {runtimes}", "set runtime in policies/sandbox.yaml")
    for image in sorted({policies.sandbox.trainer.image, policies.sandbox.evaluator.image, policies.sandbox.agent.image}):
        try:
            found = client.images.get(image)
            yield Check(f"image {image}", True, str(found.short_id))
        except docker.errors.ImageNotFound:
            yield Check(f"image {image}", False, "missing", "make images")


CheckSource = Callable[[], Iterator[Check]]
