"""`glovebox doctor`: is everything a run needs in place? Every failed line says how to fix it. TRUSTED."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import docker
from securesystemslib.signer import CryptoSigner

from runner import clock, keys, leak, policy
from runner.artifacts import store
from runner.artifacts.manifest import Statement
from runner.errors import GloveboxError
from runner.home import SOURCE, Home, find
from runner.launcher import connect_engine
from runner.ledger import Ledger

MIN_FREE_BYTES = 5 << 30
T = TypeVar("T")


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
    policies = _guarded("policies", _policies, _digest)
    yield policies[1]
    if policies[0] is not None:
        sandbox = policies[0].sandbox
        engine = _guarded("engine", lambda: connect_engine(sandbox), _engine_detail)
        yield engine[1]
        if engine[0] is not None:
            yield from _engine(engine[0], policies[0])
    home = _guarded("bench", find, _root)
    yield home[1]
    if home[0] is not None:
        yield from _bench(home[0])


def _bench(home: Home) -> Iterator[Check]:
    yield _guarded("signing keys", lambda: keys.signers(home), _key_detail)[1]
    yield _guarded("artifact", lambda: store.admit(home, store.latest(home)), _artifact_detail)[1]
    free = shutil.disk_usage(home.root).free
    yield Check("disk", free >= MIN_FREE_BYTES, f"{free >> 30} GiB free", f"free space on {home.root}")


def clock_of(home: Home) -> tuple[str | None, clock.Clock]:
    """The newest tag and its clock; without a tag the clock the next one would begin with."""
    decision = policy.load(*home.policies).decision
    book = Ledger(home.ledger, read_only=True) if home.ledger.exists() else None
    tag = next(iter(book.tags()), None) if book else None
    version = book.run_info(tag)["artifact"] if book and tag else store.latest(home)
    budget = float(store.admit(home, version).predicate.profile["time_budget_s"])
    return tag, clock.clock(decision, budget, book.baseline_seconds(tag) if book and tag else None)


def _policies() -> policy.Policies:
    found = policy.load(*_policy_folders())
    leak.check(found)
    return found


def _policy_folders() -> tuple[Path, ...]:
    try:
        return find().policies
    except GloveboxError:
        return (SOURCE / "policies",)


def _guarded(name: str, action: Callable[[], T], detail: Callable[[T], str]) -> tuple[T | None, Check]:
    """An action that may raise GloveboxError, as its value (None if it failed) and a Check."""
    try:
        value = action()
    except GloveboxError as error:
        return None, Check(name, False, f"{error.where}: {error.what}" if error.where else error.what, error.fix)
    return value, Check(name, True, detail(value))


def _digest(policies: policy.Policies) -> str:
    return policies.digest[:12]


def _key_detail(signers: list[CryptoSigner]) -> str:
    return ", ".join(signer.public_key.keyid[:12] for signer in signers)


def _root(home: Home) -> str:
    return str(home.root)


def _engine_detail(client: docker.DockerClient) -> str:
    info = client.info()
    return f"{info['ServerVersion']}, cgroup v{info.get('CgroupVersion', '?')}, {info.get('Driver')}"


def _artifact_detail(statement: Statement) -> str:
    predicate = statement.predicate
    return f"{predicate.version}, expires {predicate.expires:%Y-%m-%d}"


def _engine(client: docker.DockerClient, policies: policy.Policies) -> Iterator[Check]:
    info = client.info()
    options = " ".join(info.get("SecurityOptions") or [])
    yield Check("seccomp", "seccomp" in options, options or "none", "use an engine built with seccomp")
    limits = info.get("MemoryLimit") and info.get("PidsLimit")
    yield Check("cgroup limits", bool(limits), "memory and pids", "enable the memory and pids cgroup controllers")
    runtimes = ", ".join(sorted(info.get("Runtimes") or {}))
    wanted = policies.sandbox.runtime
    yield Check(
        "runtime",
        wanted in (info.get("Runtimes") or {}),
        f"{wanted} of {runtimes}",
        "set runtime in policies/sandbox.yaml",
    )
    for image in sorted(
        {policies.sandbox.trainer.image, policies.sandbox.evaluator.image, policies.sandbox.agent.image}
    ):
        try:
            found = client.images.get(image)
            yield Check(f"image {image}", True, str(found.short_id))
        except docker.errors.ImageNotFound:
            yield Check(f"image {image}", False, "missing", "make images")
