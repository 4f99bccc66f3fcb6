"""The launcher: of what runs unattended the only holder of the engine's socket. TRUSTED, and small for that reason.

Listens on launch.sock. One connection is one container: a LaunchRequest, answered by {"event": "started"}; a Release
with what it is to do, answered by {"event": "released"}, and its clock runs; {"event": "ended", ...EngineResult}.
Closing the connection ends the container. Or it is one pause of the agents (freezing.py): a Freeze, answered by
{"event": "frozen"}. There is no field for an image, a mount, a command, a network or a capability: those come from
policies/ and mounts.py. It parses nothing an untrusted room wrote; what containers print goes to quarantine files
unread.
"""

from __future__ import annotations

import hashlib
import json
import select
import threading
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import docker
from pydantic import ValidationError
from requests.exceptions import RequestException

from runner.core.base import doors, faults, nvidia
from runner.core.base.errors import DoorError, EngineError, GloveboxError, PolicyError
from runner.core.base.launching import EngineResult, Freeze, Frozen, LaunchRequest, Release, named_processors
from runner.core.base.mountable import GO, Mountable
from runner.core.policy import seccomp, users, walls
from runner.rooms.launcher import containers, engine, gpu, specification, usage
from runner.rooms.launcher.containers import Output
from runner.rooms.launcher.freezing import EVERY_LANE, Freezer, place
from runner.rooms.launcher.mounts import Rooms

_FINISH_SECONDS = 10.0  # for what was asked for before
_IMPORT_SECONDS, _LOOK_SECONDS = 300.0, 0.05  # a trainer's imports: at most, and between two looks
_TOLD = {"trainer": {"seed", "budget"}, "evaluator": {"audit_below", "baseline"}}  # of a Release, by role
_Message = TypeVar("_Message", bound=Frozen)


class Launcher:
    """Turns a LaunchRequest into a container; one per bench."""

    def __init__(
        self,
        client: docker.DockerClient,
        home: Mountable,
        places: doors.Places,
        policies: walls.Walls | None = None,
        *,
        watch: bool = False,
    ) -> None:
        self.client = client
        self.home = home
        self.policies = policies or walls.load(*home.policies)
        self.rooms = Rooms(home, places, self.policies)
        self.freezer = Freezer(client, home.id, watch=watch)
        self._watch = watch
        self._busy: set[int] = set()  # threads that may be making a container

    def handle(self, line: doors.Line) -> None:
        """Serve one connection."""
        self._busy.add(threading.get_ident())
        try:
            request = _asked(line)
            if isinstance(request, Freeze):
                self._freeze(request, line)
                return
            self._checked(request)
            faults.reach("launcher.asked")
            result = self._launch(request, line)
            line.send({"event": "ended", **result.model_dump(mode="json")})
        except (GloveboxError, docker.errors.DockerException, RequestException, OSError) as error:
            line.send(failed(error))
        finally:
            self._busy.discard(threading.get_ident())

    def finish(self) -> None:
        """Remove every container, with those that are being made at this moment; nothing is asked for any more."""
        deadline = time.monotonic() + _FINISH_SECONDS
        while (containers.reap(self.client, self.home.id) or self._busy) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        with suppress(EngineError):  # it is away, and so is every agent
            self.freezer.release()

    def _freeze(self, request: Freeze, line: doors.Line) -> None:
        """The agents of a lane, until the runner hangs up; of all lanes where they would disturb what trains."""
        self._busy.discard(threading.get_ident())  # it makes no container
        with self.freezer.hold(self._place(request.freeze, request.seat)):
            line.send({"event": "frozen"})
            line.receive()

    def _place(self, lane: int, seat: int = 0) -> int:
        return place(lane, seat) if self.policies.sandbox.agents == "apart" else EVERY_LANE

    def _alone(self, request: LaunchRequest) -> AbstractContextManager[None]:
        """Whose agents stand still while one works: of several that propose for its lane the runner holds its own."""
        if self.policies.sandbox.agents == "apart" and request.seats > 1:
            return nullcontext()
        return self.freezer.hold(self._place(request.lane.number))

    def _checked(self, request: LaunchRequest) -> None:
        if request.policy != self.policies.digest:
            raise PolicyError("policies changed since the launcher started", fix="run again")
        if request.lane.gpu:
            nvidia.check_toolkit(self.policies.sandbox.minimum_toolkit)

    def _launch(self, request: LaunchRequest, line: doors.Line) -> EngineResult:
        folder = self.home.run(request.run)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        spec = self.specification(request, folder)
        limits: walls.Box = getattr(self.policies.sandbox, request.role)
        look = self._look(request)
        with ExitStack() as lent, (folder / f"{request.role}.log").open("wb") as log:

            def begin(container: str, output: Output) -> float:
                if request.role == "trainer":
                    _imported(folder / "telemetry.jsonl", line, output)
                if request.role == "agent":
                    self.freezer.settle()
                line.send({"event": "started", "container": container, **self._made_of(container, request)})
                # An agent works from its first moment, and may print without end or leave at once.
                work = _read(line, Release) if request.role == "agent" else _released(line, output)
                if request.role != "agent":
                    lent.enter_context(self._alone(request))
                line.send({"event": "released"})
                if spec["device_requests"] and request.lane.gpu:
                    # Given back when the container is gone.
                    lent.enter_context(gpu.lent(request.lane.gpu, self.policies.sandbox.gpu_idle_mib))
                self._provide(request, work, folder)
                return work.seconds

            ended = containers.run(
                self.client,
                spec,
                output_bytes=limits.output_bytes,
                sink=lambda data: _keep(log, data),
                hang_up=line.sock,
                begin=begin,
                look=look or (lambda _: usage.Use()),
            )
        return ended.model_copy(update={"speed": look.speed()}) if look else ended

    def _provide(self, request: LaunchRequest, work: Release, folder: Path) -> None:
        """Give a container that waits what it is to work on; it sees these files and cannot write them."""
        limits: walls.Box = getattr(self.policies.sandbox, request.role)
        if work.seconds > limits.max_seconds:
            raise DoorError(f"more seconds than policies/sandbox.yaml {request.role}.max_seconds")
        if request.role == "agent":
            return
        if request.role == "trainer":
            _fill(folder / "train.py", self._snapshot(work))
        told = work.model_dump(mode="json", include=_TOLD[request.role])
        _fill(folder / GO.format(role=request.role), json.dumps(told).encode() + b"\n")

    def _look(self, request: LaunchRequest) -> usage.Looks | None:
        """How a trainer is looked at while it runs; of the others nobody asks."""
        if request.role != "trainer":
            return None
        own = named_processors(request.lane.cores) if request.lane.cores else None
        return usage.Looks(self.client, request.lane.gpu, own)

    def specification(self, request: LaunchRequest, folder: Path) -> dict[str, Any]:
        """The container for a request, its output files made in `folder`; raises GloveboxError."""
        if request.role == "agent" or self._watch:
            engine.check_apart(self.client, self.policies.sandbox, self.home.id)
        room = self.rooms.furnish(request, folder)
        limits: walls.Box = getattr(self.policies.sandbox, request.role)
        uuid = request.lane.gpu if request.role != "agent" else None
        gpus = [gpu.request(self.client.info(), uuid)] if uuid else []
        return specification.build(
            self.policies.sandbox,
            request,
            command=room.command,
            mounts=room.mounts,
            gid=users.ids(self.policies.sandbox, limits.uid).gid,
            gpus=gpus,
            environment=room.environment,
            bench=self.home.id,
            seccomp=seccomp.of_role(self.policies.sandbox.seccomp, self.policies.seccomp, request.role),
        )

    def _made_of(self, container: str, request: LaunchRequest) -> dict[str, Any]:
        """What the runner compares compiled code with: the image, and the kind of GPU."""
        if request.cache is None:
            return {}
        image = self.client.api.inspect_container(container)["Image"]
        return {"image": image, "gpu": nvidia.model(request.lane.gpu) if request.lane.gpu else None}

    def _snapshot(self, work: Release) -> bytes:
        path = self.home.snapshots / f"{work.snapshot}.py"
        try:
            data = path.read_bytes()
        except OSError:
            raise DoorError("no such snapshot") from None
        if hashlib.sha256(data).hexdigest() != work.snapshot:
            raise DoorError("the snapshot does not match its name")
        return data


def _asked(line: doors.Line) -> LaunchRequest | Freeze:
    """What a connection is about; raises DoorError."""
    text = json.dumps(line.receive(max_bytes=4096))
    with suppress(ValidationError):
        return Freeze.model_validate_json(text)
    return _parsed(text, LaunchRequest)


def _read(line: doors.Line, model: type[_Message]) -> _Message:
    """The next message, which must be of this kind; raises DoorError."""
    return _parsed(json.dumps(line.receive(max_bytes=4096)), model)


def _parsed(text: str, model: type[_Message]) -> _Message:
    try:
        return model.model_validate_json(text)  # in strict mode only JSON text may become enums and paths
    except ValidationError:
        raise DoorError(f"not a {model.__name__}") from None


def _imported(telemetry: Path, line: doors.Line, output: Output) -> None:
    """Wait until a trainer has imported what its image holds: no candidate's time depends on it.

    It says so with the first byte of its telemetry; nothing but the image's own code ran so far.
    """
    deadline = time.monotonic() + _IMPORT_SECONDS
    while telemetry.stat().st_size == 0:
        if _alive(line, output, _LOOK_SECONDS):
            raise DoorError("the runner hung up")
        if time.monotonic() > deadline:
            raise EngineError(
                f"the trainer did not start in {_IMPORT_SECONDS:.0f} s",
                where=str(telemetry.with_name("trainer.log")),
                fix="read that log; make images",
            )


def _released(line: doors.Line, output: Output) -> Release:
    """Wait for the release of a container that stands by; raises EngineError if it ends first."""
    while not _alive(line, output, 3600.0):
        pass
    work = _read(line, Release)
    while select.select([output], [], [], 0)[0]:  # its end may lie behind what it printed
        _alive(line, output, 0.0)
    return work


def _alive(line: doors.Line, output: Output, seconds: float) -> bool:
    """Whether the runner has something to say, within so many seconds; raises EngineError if the container ended.

    Then the runner's next word fails, and it asks for a fresh one: a candidate has no part in it.
    """
    streams: list[Any] = [line.sock, output]
    ready, _, _ = select.select(streams, [], [], seconds)
    if output in ready and not output.read():
        raise EngineError("a container ended before it was released", fix="see its log; run: glovebox doctor")
    return line.sock in ready


def _fill(path: Path, data: bytes) -> None:
    """Write into the file a container is mounted on: in place."""
    with path.open("r+b", buffering=0) as file:
        if file.write(data) != len(data):
            raise EngineError("the disk is full", where=str(path), fix="free disk space")


def _keep(log: Any, data: bytes) -> None:
    log.write(data)
    log.flush()


def failed(error: Exception) -> dict[str, Any]:
    """An error as the event that tells it."""
    if not isinstance(error, GloveboxError):
        error = EngineError(f"the engine or the disk failed: {type(error).__name__}", fix="glovebox doctor")
    return {"event": "failed", "code": error.exit_code, "error": str(error)}
