"""`glovebox doctor`: is everything a run needs in place? Every failed line says how to fix it. TRUSTED.

It ends with attempts on the engine itself: what must fail in a production container, and what must work there.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import docker
from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner

from runner.core.airlock import leak_budget
from runner.core.artifacts import keys, store
from runner.core.artifacts.manifest import Statement
from runner.core.base.benches import find
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.launching import Lane
from runner.core.base.mountable import SHIPPED
from runner.core.decision import clock, standing
from runner.core.evidence import audit_chain, receipts
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import now
from runner.core.policy import policy_files
from runner.core.policy.broker import Broker
from runner.people.host import compose_env, gpu_check, room_check
from runner.people.host.checks import Check, guarded, safely
from runner.people.redteam.campaign import unfit_because
from runner.people.redteam.probes import PROBES
from runner.people.redteam.stage import stage
from runner.rooms.launcher.engine import check_apart, connect_engine
from trainer.wire import strict_json

MIN_FREE_BYTES = 5 << 30
MUST_FAIL = (
    "net-route", "fs-root", "fs-tmp-execute", "cap-effective", "sys-ptrace", "sys-user-namespace",
    "room-engine-socket", "room-validation-data",
)  # fmt: skip
MUST_WORK = (
    "import torch; assert float(torch.ones(4).sum()) == 4\n"
    "for path in ('/out/graph.json', '/out/weights.safetensors', '/out/telemetry.jsonl', '/tmp/x', '/cache/x'):\n"
    "    open(path, 'ab').write(b'x')\n"
    "assert open('/work/train.py').read() == '' and print('worked') is None"
)
_KERNELS_BYTES = 64 << 10
_PRICES_DAYS = 90


def checks() -> Iterator[Check]:
    """All checks, in the order in which a failure explains later ones."""
    yield Check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")
    yield Check("git", shutil.which("git") is not None, shutil.which("git") or "not found", "apt-get install git")
    policies, client = yield from _begun()
    if policies is not None:
        yield _prices(policies.broker)
    if policies is not None and client is not None:
        yield from safely("engine", _engine(client, policies))
        yield from safely("GPU", gpu_check.of_host(client, policies))
    home = guarded("bench", find, _root)
    yield home[1]
    if home[0] is not None:
        yield from safely("bench", _bench(home[0]))
    if policies is not None and client is not None:
        yield from safely("live attempts", _attempts(client, policies, home[0]))


def of_gpu(gpu: str) -> Iterator[Check]:
    """`doctor --gpu`: would a run on this GPU work?"""
    policies, client = yield from _begun()
    home = None
    with suppress(GloveboxError):
        home = find()
    if policies is not None and client is not None:
        yield from safely("GPU", gpu_check.on(gpu, client, policies, home))


def _begun() -> Generator[Check, None, tuple[policy_files.Policies | None, docker.DockerClient | None]]:
    """What every look begins with: the policies, and an engine that fits them."""
    policies = guarded("policies", _policies, _digest)
    yield policies[1]
    if policies[0] is None:
        return None, None
    sandbox = policies[0].sandbox
    engine = guarded("engine", lambda: connect_engine(sandbox), _engine_detail)
    yield engine[1]
    return policies[0], engine[0]


def _prices(broker: Broker) -> Check:
    """When somebody last compared the price list with what is billed; an old one is said and fails nothing."""
    if all(price.input == price.output == 0 for price in broker.models.values()):
        return Check("prices", True, "the models cost nothing")
    if not broker.prices_checked:
        return Check(
            "prices", True, "warning: nobody says when they were checked (policies/broker.yaml prices_checked)"
        )
    days = (datetime.now(UTC).date() - date.fromisoformat(broker.prices_checked)).days
    old = f"warning: {days} days old, compare policies/broker.yaml with your contract: " if days > _PRICES_DAYS else ""
    return Check("prices", True, f"{old}checked on {broker.prices_checked}")


def _bench(home: Home) -> Iterator[Check]:
    yield guarded("signing keys", lambda: keys.signers(home), _key_detail)[1]
    yield guarded("artifact", lambda: store.admit(home, store.latest(home)), _artifact_detail)[1]
    free = shutil.disk_usage(home.root).free
    yield from _permissions(home)
    yield from _compose_settings(home)
    yield _clock(home)
    yield Check("disk", free >= MIN_FREE_BYTES, f"{free >> 30} GiB free", f"free space on {home.root}")


def _compose_settings(home: Home) -> Iterator[Check]:
    """Compose takes the agent's image and limits from .env, which policy may have left behind."""
    path = Path.cwd() / ".env"
    found = compose_env.differences(path, home, policy_files.load(*home.policies).sandbox)
    if found is not None:
        detail = f"{len(found)} of the agent's settings are not policy's: {', '.join(found)}" if found else str(path)
        yield Check("compose settings", not found, detail, "glovebox init")


def _permissions(home: Home) -> Iterator[Check]:
    """Nobody else may read keys or write anything; the engine's socket is as good as root."""
    mode = stat.S_IMODE(home.root.stat().st_mode)
    yield Check("bench permissions", not mode & 0o077, f"{mode:o}", f"chmod 700 {home.root}")
    open_ = [p for p in (*home.keys.glob("*"), home.key, home.audit_key) if p.is_file() and p.stat().st_mode & 0o077]
    yield Check(
        "secret permissions", not open_, f"{len(open_)} readable by others", f"chmod 600 {' '.join(map(str, open_))}"
    )
    path = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    if path.exists():
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Check("engine socket", not mode & 0o006, f"{path} {mode:o}", f"chmod 660 {path}")


def _clock(home: Home) -> Check:
    """Expiry of artifacts rests on the clock: it must not be before what was already recorded."""
    now, last = datetime.now(UTC), None
    with suppress(GloveboxError):
        for entry in audit_chain.read(home.audit):
            last = datetime.fromisoformat(entry["time"])
    return Check(
        "clock",
        last is None or now >= last,
        f"{now:%Y-%m-%d %H:%M} UTC",
        "set the clock: it is before the audit log's end",
    )


def clock_of(home: Home) -> tuple[str | None, clock.Clock]:
    """The newest tag and its clock; without a tag the clock the next one would begin with."""
    decision = policy_files.load(*home.policies).decision
    book = Ledger(home.ledger, read_only=True) if home.ledger.exists() else None
    tag = next((one for one in book.tags() if book.begun(one)), None) if book else None
    version = book.run_info(tag)["artifact"] if book and tag else store.latest(home)
    budget = float(store.admit(home, version).predicate.profile["time_budget_s"])
    seconds = standing.baseline_seconds(book.experiments(tag)) if book and tag else None
    return tag, clock.clock(decision, budget, None if seconds is None else seconds - budget)


def _policies() -> policy_files.Policies:
    found = policy_files.load(*_policy_folders())
    leak_budget.check(found)
    return found


def _policy_folders() -> tuple[Path, ...]:
    try:
        return find().policies
    except GloveboxError:
        return (SHIPPED / "policies",)


def _digest(policies: policy_files.Policies) -> str:
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


def _engine(client: docker.DockerClient, policies: policy_files.Policies) -> Iterator[Check]:
    info = client.info()
    options = " ".join(info.get("SecurityOptions") or [])
    yield Check("seccomp", "seccomp" in options, options or "none", "use an engine built with seccomp")
    yield Check("user namespaces", True, policies.sandbox.userns)  # connect_engine compared it with the engine
    yield Check("compose", *_compose(), "install docker and docker-compose 2")
    limits = info.get("MemoryLimit") and info.get("PidsLimit")
    yield Check("cgroup limits", bool(limits), "memory and pids", "enable the memory and pids cgroup controllers")
    runtimes = ", ".join(sorted(info.get("Runtimes") or {}))
    for key, wanted in (("runtime", policies.sandbox.runtime), ("agent_runtime", policies.sandbox.agent_runtime)):
        there = wanted in (info.get("Runtimes") or {})
        yield Check(key, there, f"{wanted} of {runtimes}", f"set {key} in policies/sandbox.yaml")
    if policies.sandbox.agent_runtime == "runsc":
        yield _doors(info)
    for image in sorted(
        {policies.sandbox.trainer.image, policies.sandbox.evaluator.image, policies.sandbox.agent.image}
    ):
        try:
            found = client.images.get(image)
            yield Check(f"image {image}", True, str(found.short_id))
        except docker.errors.ImageNotFound:
            yield Check(f"image {image}", False, "missing", "make images")
    yield guarded(
        "images apart", lambda: check_apart(client, policies.sandbox), lambda _: "the agent's shares no layer"
    )[1]


def _doors(info: dict[str, Any]) -> Check:
    """gVisor opens the host's sockets, which the agent's doors are, only if it is told to."""
    given = ((info.get("Runtimes") or {}).get("runsc") or {}).get("runtimeArgs") or []
    opened = any(str(one) in ("--host-uds=open", "--host-uds=all") for one in given)
    fix = 'add "--host-uds=open" to runsc\'s runtimeArgs in /etc/docker/daemon.json (docs/engines.md)'
    return Check("agent's doors", opened, " ".join(map(str, given)) or "runsc without arguments", fix)


def _attempts(client: docker.DockerClient, policies: policy_files.Policies, home: Home | None) -> Iterator[Check]:
    """Live: a few attacks that must fail, and the work that must not."""
    with stage(client, policies, home.root if home else None) as made:
        spec = made.specification("trainer")
        wanted = {
            probe.id: probe.source for probe in PROBES if probe.id in MUST_FAIL and not unfit_because(made, probe)
        }
        for name, (result, detail) in made.probe(spec, wanted).items():
            yield Check(f"must fail: {name}", result == "blocked", detail or result, "glovebox redteam")
        ended, output = made.run(spec, MUST_WORK)
        good = ended.exit_code == 0 and b"worked" in output
        detail = "torch, hand-over files, /tmp, /cache" if good else output.decode(errors="replace")[-200:].strip()
        yield Check("must work: trainer", good, detail, "make images")
        yield from room_check.of_rooms(made)


def kernels(seconds: float, device: str | None) -> tuple[Check, dict[str, Any]]:
    """Whether the kernels of the evaluator's image keep elements apart on this machine; remembered by the bench.

    Raises GloveboxError if there is no bench or no engine.
    """
    home = find()
    policies = policy_files.load(*home.policies)
    client = connect_engine(policies.sandbox)
    source = f"from trainer.evaluator import isolation; isolation.main(['', '{secrets.randbits(30)}', '{seconds}'])"
    with stage(client, policies, home.root) as made:
        made.specification("trainer")  # makes the files that an evaluator finds
        spec = made.specification("evaluator", lane=Lane(gpu=device))
        ended, output = made.run(spec, source, seconds=seconds + 120)
    try:
        found = strict_json.loads(output[-_KERNELS_BYTES:].splitlines()[-1], max_bytes=_KERNELS_BYTES)
        kept = receipts.Kernels(
            ok=not found["coupled"] and found["cases"] > 0,
            image=ended.image,
            device=found["device"],
            torch=found["torch"],
            when=now(),
            cases=found["cases"],
            coupled=len(found["coupled"]),
        )
    except (strict_json.StrictJsonError, ValidationError, IndexError, KeyError, TypeError):
        told = output[-200:].decode(errors="replace").strip()
        return Check("kernels", False, f"no result: {told}", "see: glovebox doctor"), {}
    receipts.keep_kernels(home, kept)
    detail = f"{kept.cases} cases, {kept.coupled} in which a row moved another; torch {kept.torch}, {kept.device}"
    return Check("kernels", kept.ok, detail, "do not score on this machine; report it with --json (SECURITY.md)"), found


def _compose() -> tuple[bool, str]:
    if shutil.which("docker") is None:
        return False, "the docker command is missing"
    done = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout.strip() or "none"
