"""The launcher: sole holder of the container engine's socket. TRUSTED, small on purpose.

Listens on launch.sock for one LaunchRequest per connection and answers two lines: {"event": "started"}
and {"event": "ended", ...EngineResult}. Closing the connection ends the container. There is no field for
an image, a mount, a command, a network or a capability: those come from policies/ and from this file.
It parses nothing an untrusted room wrote; what containers print goes to quarantine files unread.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import docker
from docker.types import Mount
from pydantic import ValidationError
from requests.exceptions import RequestException

from runner import box, doors, faults, gpu, locks, owner, peak, policy, seccomp
from runner.errors import DoorError, EngineError, GloveboxError, PolicyError
from runner.home import SOURCE, Home
from runner.records import EngineResult, LaunchRequest

TRAINER_FILES = ("graph.json", "weights.safetensors", "telemetry.jsonl")
EVALUATOR_FILES = ("score.json",)
ENGINE_SECONDS = float(os.environ.get("GLOVEBOX_ENGINE_SECONDS", "60"))  # an engine that takes longer has stalled
_HANDOVER_SECONDS = 20.0  # a launcher that was told to end may still be removing its containers


class Launcher:
    """Turns a LaunchRequest into a container; one per bench."""

    def __init__(
        self,
        client: docker.DockerClient,
        home: Home,
        places: doors.Places,
        policies: policy.Policies | None = None,
    ) -> None:
        self.client = client
        self.home = home
        self.places = places
        self.policies = policies or policy.load(*home.policies)
        ours = self.policies.sandbox.seccomp == "glovebox"
        self.seccomp = seccomp.profile(self.policies.seccomp) if ours else None

    def handle(self, line: doors.Line) -> None:
        """Serve one connection."""
        try:
            request = self._request(line)
            faults.reach("launcher.asked")
            result = self._launch(request, line)
            line.send({"event": "ended", **result.model_dump(mode="json")})
        except GloveboxError as error:
            line.send({"event": "failed", "code": error.exit_code, "error": str(error)})
        except (docker.errors.DockerException, RequestException, OSError) as error:
            text = f"the engine or the disk failed: {type(error).__name__} (fix: glovebox doctor)"
            line.send({"event": "failed", "code": EngineError.exit_code, "error": text})

    def _request(self, line: doors.Line) -> LaunchRequest:
        raw = line.receive(max_bytes=4096)
        try:
            # Through JSON: in strict mode only JSON text may become enums and paths.
            request = LaunchRequest.model_validate_json(json.dumps(raw))
        except ValidationError:
            raise DoorError("not a launch request") from None
        if request.policy != self.policies.digest:
            raise PolicyError("policies changed since the launcher started", fix="run again")
        limits: policy.Box = getattr(self.policies.sandbox, request.role)
        if request.gpu:
            gpu.check_toolkit(self.policies.sandbox.minimum_toolkit)
        if request.seconds > limits.max_seconds:
            raise DoorError(f"more seconds than policies/sandbox.yaml {request.role}.max_seconds")
        return request

    def _launch(self, request: LaunchRequest, line: doors.Line) -> EngineResult:
        folder = self.home.run(request.run)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        spec = self.specification(request, folder)
        limits: policy.Box = getattr(self.policies.sandbox, request.role)
        lent = gpu.lent(request.gpu) if spec["device_requests"] and request.gpu else nullcontext()
        with lent, (folder / f"{request.role}.log").open("wb") as log:
            return box.run(
                self.client,
                spec,
                seconds=request.seconds,
                output_bytes=limits.output_bytes,
                sink=lambda data: _keep(log, data),
                hang_up=line.sock,
                started=lambda container: line.send({"event": "started", "container": container}),
                memory=self._memory(request),
            )

    def _memory(self, request: LaunchRequest) -> Callable[[str], float]:
        """How a trainer's memory is looked at; of the others nobody asks."""
        if request.role != "trainer":
            return lambda _: 0.0
        return lambda container: peak.memory(self.client, container, request.gpu)

    def specification(self, request: LaunchRequest, folder: Path) -> dict[str, Any]:
        """The container for a request, its output files made in `folder`; raises GloveboxError."""
        prepare = {"agent": self._agent, "trainer": self._trainer, "evaluator": self._evaluator}[request.role]
        command, mounts, environment = prepare(request, folder)
        limits: policy.Box = getattr(self.policies.sandbox, request.role)
        gpus = [gpu.request(self.client.info(), request.gpu)] if request.gpu and request.role != "agent" else []
        return box.specification(
            self.policies.sandbox,
            request,
            command=command,
            mounts=mounts,
            gid=owner.ids(self.policies.sandbox, limits.uid).gid,
            gpus=gpus,
            environment=environment,
            bench=self.home.id,
            seccomp=self.seccomp,
        )

    def _trainer(self, request: LaunchRequest, folder: Path) -> tuple[list[str], list[Mount], dict[str, str]]:
        store = self._stored(request.artifact)
        mounts = [
            box.bind(str(self._snapshot(request)), "/work/train.py"),
            box.bind(str(store / "tokenizer"), "/artifacts/tokenizer"),
            box.bind(str(store / "train"), "/artifacts/train"),
        ]
        if request.kernels is not None:
            mounts.append(box.bind(str(self._stored(request.kernels) / "kernels"), "/kernels"))
        mounts += self._outputs(folder, TRAINER_FILES, self.policies.sandbox.trainer)
        environment = {
            "GLOVEBOX_SEED": str(request.seed),
            **({"GLOVEBOX_TIME_BUDGET": str(request.budget)} if request.budget else {}),
            "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
            "TRITON_CACHE_DIR": "/cache/triton",
        }
        return ["python", "-m", "trainer.entry"], mounts, environment

    def _evaluator(self, request: LaunchRequest, folder: Path) -> tuple[list[str], list[Mount], dict[str, str]]:
        store = self._stored(request.artifact)
        mounts = [
            box.bind(str(folder / "graph.json"), "/handed/graph.json"),
            box.bind(str(folder / "weights.safetensors"), "/handed/weights.safetensors"),
            box.bind(str(store / "tokenizer"), "/artifacts/tokenizer"),
            box.bind(str(store / "val"), "/artifacts/val"),
        ]
        mounts += self._outputs(folder, EVALUATOR_FILES, self.policies.sandbox.evaluator)
        settings = self.policies.evaluator.model_dump_json()
        return ["python", "-m", "trainer.evaluator", settings], mounts, {}

    def _agent(self, request: LaunchRequest, _: Path) -> tuple[list[str], list[Mount], dict[str, str]]:
        mounts = [
            box.bind(str(self.home.work), "/work/train.py", writable=True),
            box.bind(str(SOURCE / "program.md"), "/work/program.md"),
            box.bind(str(self.places.bench.parent), "/run/glovebox/bench"),
        ]
        if request.agent != "scripted":
            mounts.append(box.bind(str(self.places.llm.parent), "/run/glovebox/llm"))
        return ["python", "-m", "agent", request.agent], mounts, {}

    def _outputs(self, folder: Path, names: tuple[str, ...], limits: policy.Box) -> list[Mount]:
        """Fresh, empty single-file mounts: nothing to symlink, nothing to replace, a size limit on each."""
        mounts, group = [], owner.ids(self.policies.sandbox, limits.uid).host_gid
        for name in names:
            path = folder / name
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            if os.fstat(descriptor).st_gid != group:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, 0o660)
            os.close(descriptor)
            mounts.append(box.bind(str(path), f"/out/{name}", writable=True))
        return mounts

    def _snapshot(self, request: LaunchRequest) -> Path:
        path = self.home.snapshots / f"{request.snapshot}.py"
        try:
            data = path.read_bytes()
        except OSError:
            raise DoorError("no such snapshot") from None
        if hashlib.sha256(data).hexdigest() != request.snapshot:
            raise DoorError("the snapshot does not match its name")
        return path

    def _stored(self, version: str | None) -> Path:
        path = self.home.store / str(version)
        if version is None or not path.is_dir():
            raise DoorError("no such artifact in the store")
        return path


def _keep(log: Any, data: bytes) -> None:
    log.write(data)
    log.flush()


def connect_engine(sandbox: policy.Sandbox) -> docker.DockerClient:
    """The engine, checked for the policy's minimum version; raises EngineError."""
    try:
        client = docker.from_env(timeout=int(ENGINE_SECONDS))
        version = str(client.version()["Version"])
    except docker.errors.DockerException as error:
        raise EngineError(
            f"no container engine answers ({str(error)[:80]})",
            fix="start Docker, or as root on Debian: scripts/engine-up.sh",
        ) from None
    found = tuple(int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:2])
    if found < tuple(int(part) for part in sandbox.minimum_engine.split(".")):
        raise EngineError(
            f"engine {version} is older than {sandbox.minimum_engine}",
            where="policies/sandbox.yaml minimum_engine",
            fix="upgrade Docker",
        )
    info = client.info()
    owner.check(sandbox, info.get("SecurityOptions") or [], str(info.get("DockerRootDir")))
    return client


def serve(home: Home, places: doors.Places, until: Callable[[], object]) -> int:
    """Answer launch requests until `until` returns; prints one ready or failed event. Returns the exit code."""
    try:
        with locks.hold(home.launcher_lock, "launcher", _HANDOVER_SECONDS):
            return _serve(home, places, until)
    except GloveboxError as error:
        print(json.dumps({"event": "failed", "code": error.exit_code, "error": str(error)}), flush=True)
        return error.exit_code


def _serve(home: Home, places: doors.Places, until: Callable[[], object]) -> int:
    launcher = Launcher(connect_engine(policy.load(*home.policies).sandbox), home, places)
    reaped = box.reap(launcher.client, home.id)  # we hold the lock, so these are a dead launcher's
    with doors.listening(places.launch, gid=os.getegid(), mode=0o600) as sock:
        uids = frozenset({os.geteuid()})
        threading.Thread(target=doors.serve, args=(sock, uids, launcher.handle), daemon=True).start()
        print(json.dumps({"event": "ready", "reaped": reaped}), flush=True)
        until()
        sock.shutdown(socket.SHUT_RDWR)
    box.reap(launcher.client, home.id)
    return 0


def main(argv: list[str]) -> int:
    """`python -m runner.launcher HOME DOORS`: serve until stdin closes, which the supervisor holds.

    `python -m runner.launcher HOME` only removes what a dead launcher of this bench left behind.
    """
    home = Home(Path(argv[1]))
    if len(argv) == 2:
        with locks.hold(home.launcher_lock, "launcher", _HANDOVER_SECONDS):
            box.reap(docker.from_env(timeout=int(ENGINE_SECONDS)), home.id)
        return 0
    return serve(home, doors.Places(Path(argv[2])), sys.stdin.read)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
