"""A throw-away bench for probes: production specifications over stand-in files, and a host to be attacked. TRUSTED."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import docker

from runner.core.airlock import snapshot
from runner.core.base import doors, locks
from runner.core.base.errors import EngineError
from runner.core.base.home import Home
from runner.core.base.launching import WHOLE_HOST, EngineResult, Lane, LaunchRequest
from runner.core.policy import users
from runner.core.policy.policy_files import Policies
from runner.core.policy.walls import Box
from runner.people.redteam import inside
from runner.people.redteam.controls import CONTROLS, Control, Spec, of_stage
from runner.people.redteam.probes import Room
from runner.rooms.launcher import containers, specification
from runner.rooms.launcher.server import Launcher

RUN = "0" * 16
LABEL = "glovebox.redteam"
PREFIX = "redteam-"
CANARY = b"-canary-5a1f"
OUTPUT_BYTES = 1 << 20
_OF_FILES = {"file size limit", "file owned by the runner", "one file mounted"}  # belong to the remapped user
_BEHIND_APPARMOR = {"no capabilities", "seccomp profile", "masked paths", "user"}
_SMALL = {
    "memory_bytes": 512 << 20,
    "pids": 128,
    "open_files": 512,
    "file_bytes": 8 << 20,
    "tmp_bytes": 16 << 20,
    "shm_bytes": 16 << 20,
}


class Stage:
    """Makes and runs containers that differ from production's in their command and in what a probe takes away."""

    def __init__(self, client: docker.DockerClient, policies: Policies, folder: Path, bench: str = "none") -> None:
        self.client = client
        self.policies = policies
        self.home = Home(folder)
        self.bench = bench  # the bench, by which what a killed red team left is found again
        self.apparmor = any("name=apparmor" in option for option in client.info().get("SecurityOptions") or [])
        self.abstract = f"glovebox-probe-{secrets.token_hex(8)}"
        self.controls: dict[str, Control] = CONTROLS | of_stage(folder, policies.sandbox)
        self.port = 0
        self.tenant = 65534  # uid of the other user whose attacks are tried: nobody, unless one is named

    def given(self, spec: Spec) -> dict[str, Any]:
        """What probes are told about the host they attack."""
        spaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("ipc", "uts", "net", "cgroup")}
        return {
            "port": self.port,
            "abstract": self.abstract,
            "host_pid": os.getpid(),
            "memory": spec["mem_limit"],
            "kernel": os.uname().release,
            "canary": CANARY.decode(),
            **spaces,
        }

    def launcher(self, *, small: bool = False) -> Launcher:
        """Production's own way to a specification, over this stage's files."""
        policies = self.policies
        if small:
            sandbox = policies.sandbox
            changed: dict[str, Box] = {}
            for role in ("trainer", "evaluator", "agent"):
                limits: Box = getattr(sandbox, role)
                cache = {"exec_cache_bytes": 16 << 20} if limits.exec_cache_bytes else {}
                changed[role] = limits.model_copy(update=_SMALL | cache)
            policies = policies.model_copy(update={"sandbox": sandbox.model_copy(update=changed)})
        return Launcher(self.client, self.home, doors.Places(self.home.root / "doors"), policies)

    def specification(self, room: Room, *, small: bool = False, lane: Lane = WHOLE_HOST) -> Spec:
        """The container of a room as production makes it, with the probes' setuid program beside."""
        request = LaunchRequest(
            role=room,
            run=RUN,
            policy=self.policies.digest,
            artifact="probe-1" if room != "agent" else None,
            lane=lane,
        )
        spec = self.launcher(small=small).specification(request, self.home.run(RUN))
        return spec | {"mounts": [*spec["mounts"], specification.bind(str(self.home.root / "probe"), "/probe")]}

    def without(self, spec: Spec, names: tuple[str, ...]) -> Spec:
        """The specification with these controls taken away; a user namespace behind them would hide that they are."""
        for name in names:
            spec = self.controls[name].remove(spec)
        if self.apparmor and set(names) & _BEHIND_APPARMOR:  # the engine's own profile denies the same once more
            spec = spec | {"security_opt": [*spec["security_opt"], "apparmor=unconfined"]}
        behind = self.policies.sandbox.userns == "remap" and not set(names) <= _OF_FILES
        return spec | ({"userns_mode": "host"} if behind else {})

    def run(self, spec: Spec, source: str, argument: str = "", **limits: Any) -> tuple[EngineResult, bytes]:
        """Run Python source in a container of this specification, which is not compared with any: it may be weak."""
        with self.container(spec, source, argument) as container:
            return self.attend(container, **limits)

    @contextmanager
    def container(self, spec: Spec, source: str, argument: str = "") -> Iterator[Any]:
        """A container that is made but not started."""
        spec = spec | {"command": ["python", "-c", source, argument]}
        spec["labels"] = spec["labels"] | {LABEL: self.bench}
        try:
            container = containers.create(self.client, spec)
        except docker.errors.ImageNotFound:
            raise EngineError(f"image {spec['image']} is missing", fix="run: make images") from None
        except docker.errors.APIError as error:
            raise EngineError(f"the engine refused: {error.explanation}", fix="glovebox doctor") from None
        try:
            yield container
        finally:
            with suppress(docker.errors.APIError):
                container.remove(force=True, v=True)

    def attend(self, container: Any, seconds: float = 60.0, output: int = OUTPUT_BYTES) -> tuple[EngineResult, bytes]:
        """Run a container to its end: (result, what it printed)."""
        kept = bytearray()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            result = containers.attend(container, self.client, output, kept.extend, ours, lambda *_: seconds)
        return result, bytes(kept)

    def probe(self, spec: Spec, probes: dict[str, str]) -> dict[str, tuple[str, str]]:
        """(open or blocked, detail) of each probe in one container of this specification."""
        source = Path(inside.__file__).read_text()
        asked = json.dumps({"probes": probes, "given": self.given(spec)})
        try:
            _, output = self.run(spec, source, asked)
            found = json.loads(output.splitlines()[-1])
        except (EngineError, ValueError, IndexError) as error:
            return dict.fromkeys(probes, ("nothing", f"the container said nothing: {str(error)[:200]}"))
        return {name: (str(result), str(detail)) for name, (result, detail) in found.items()}


@contextmanager
def stage(client: docker.DockerClient, policies: Policies, below: Path | None) -> Iterator[Stage]:
    """A stage in a folder of its own below `below` (the bench, which the engine can see), removed afterwards.

    One at a time on a bench: what an earlier one left, had it been killed, is removed first. Raises BusyError.
    """
    bench = Home(below).id if below else "none"
    with locks.hold(below / "redteam.lock", "red team", 1.0) if below else nullcontext():
        if below:
            _sweep(client, below, bench)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=below))
        made = Stage(client, policies, folder, bench)
        try:
            with _listening(made):
                _furnish(made)
                yield made
        finally:
            _remove(client, f"{specification.BENCH_LABEL}={made.home.id}")
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(client: docker.DockerClient, below: Path, bench: str) -> None:
    _remove(client, f"{LABEL}={bench}")
    for left in below.glob(f"{PREFIX}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _remove(client: docker.DockerClient, label: str) -> None:
    for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        with suppress(docker.errors.APIError):
            container.remove(force=True, v=True)


@contextmanager
def _listening(made: Stage) -> Iterator[None]:
    """Services of the host that containers must not reach."""
    listener = socket.create_server(("0.0.0.0", 0))
    abstract = socket.socket(socket.AF_UNIX)
    try:
        made.port = listener.getsockname()[1]
        abstract.bind(f"\0{made.abstract}")
        abstract.listen(8)
        for sock in (listener, abstract):
            threading.Thread(target=_accept, args=(sock,), daemon=True).start()
        yield
    finally:
        for sock in (listener, abstract):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def _accept(sock: socket.socket) -> None:
    with suppress(OSError):
        while True:
            sock.accept()[0].close()


def _furnish(made: Stage) -> None:
    """The files that production mounts, and those that a weak container would show."""
    root, home = made.home.root, made.home
    for name in ("tokenizer/ranks", "train/tokens_00000.npy", "val/rows.npy"):
        _write(home.store / "probe-1" / name, name.split("/")[0].encode() + CANARY)
    _write(home.snapshots / f"{hashlib.sha256(b'pass' + bytes([10])).hexdigest()}.py", b"pass\n")
    for name in ("open/train.py", "owned.py"):
        _write(root / name, b"pass\n")
    _write(root / "secrets" / "anthropic_api_key", b"secret" + CANARY)
    _write(home.run("1" * 16) / "train.py", b"run" + CANARY)
    (root / "open").chmod(0o777)
    (root / "open" / "train.py").chmod(0o666)
    home.run(RUN).mkdir(parents=True)
    for door in ("bench", "llm"):
        (root / "doors" / door).mkdir(parents=True)
    limits = made.policies.sandbox.agent
    ids = users.ids(made.policies.sandbox, limits.uid)
    home.work.parent.mkdir()
    snapshot.provision(home.work, b"pass\n", ids.host_gid)
    if os.geteuid() == 0:
        os.chown(root / "owned.py", ids.host_uid, ids.host_gid)
    _setuid_program(made)


def _write(path: Path, data: bytes = b"stand-in") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _setuid_program(made: Stage) -> None:
    """The image's own `sleep`, setuid to us: what no-new-privileges must take the power from."""
    target = made.home.root / "probe" / "sleep"
    target.parent.mkdir()
    image = made.policies.sandbox.trainer.image
    try:
        container = made.client.containers.create(image, ["true"], network_mode="none")
    except docker.errors.ImageNotFound:
        raise EngineError(f"image {image} is missing", fix="run: make images") from None
    try:
        chunks, _ = container.get_archive("/usr/bin/sleep")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile("sleep")
            target.write_bytes(file.read() if file else b"")
    finally:
        container.remove(force=True)
    target.chmod(0o4755)
