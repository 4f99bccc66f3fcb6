"""What each container finds: its command, the files that are mounted, its variables. TRUSTED, part of the launcher.

Everything is read-only but the files a room is to write, which exist, empty, before it starts. Nothing here comes from
an untrusted room.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from docker.types import Mount

from runner.core.base import doors
from runner.core.base.errors import DoorError
from runner.core.base.launching import LaunchRequest
from runner.core.base.mountable import COMPILED_FILE, GO, HAND_OVER, SCORE, Mountable
from runner.core.policy import users, walls
from runner.rooms.launcher import specification
from trainer.wire import variables


class Room(NamedTuple):
    """What a container's specification needs besides policy."""

    command: list[str]
    mounts: list[Mount]
    environment: dict[str, str]


@dataclass(frozen=True)
class Rooms:
    """Furnishes the containers of one bench."""

    home: Mountable
    places: doors.Places
    policies: walls.Walls

    def furnish(self, request: LaunchRequest, folder: Path) -> Room:
        """The room for a request, its files made in `folder`; raises DoorError for what is not there."""
        prepare = {"agent": self._agent, "trainer": self._trainer, "evaluator": self._evaluator}[request.role]
        return Room(*prepare(request, folder))

    def _trainer(self, request: LaunchRequest, folder: Path) -> tuple[list[str], list[Mount], dict[str, str]]:
        store = self._stored(request.artifact)
        mounts = [
            _input(folder / "train.py", "/work/train.py"),
            _input(folder / GO.format(role=request.role), "/work/go.json"),
            *(specification.bind(str(store / part), f"/artifacts/{part}") for part in ("tokenizer", "train")),
        ]
        if request.kernels is not None:
            mounts.append(specification.bind(str(self._stored(request.kernels) / "kernels"), "/kernels"))
        if request.cache is not None:
            mounts.append(specification.bind(str(self._stored(request.cache.version) / COMPILED_FILE), "/warm.tar"))
        names = (*HAND_OVER, "cache.tar") if request.keep_cache else HAND_OVER
        mounts += self._outputs(folder, names, self.policies.sandbox.trainer)
        environment = {
            "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
            "TRITON_CACHE_DIR": "/cache/triton",
            variables.LIMITS: self.policies.evaluator.limits.model_dump_json(),  # what can be scored at all
        }
        return ["python", "-m", "trainer.entry"], mounts, environment

    def _evaluator(self, request: LaunchRequest, folder: Path) -> tuple[list[str], list[Mount], dict[str, str]]:
        rows = self._stored(request.artifact, "holdout" if request.holdout else "val")
        mounts = [
            _input(folder / GO.format(role=request.role), "/work/go.json"),
            specification.bind(str(folder / "graph.json"), "/handed/graph.json"),
            specification.bind(str(folder / "weights.safetensors"), "/handed/weights.safetensors"),
            specification.bind(str(rows.with_name("tokenizer")), "/artifacts/tokenizer"),
            specification.bind(str(rows), "/artifacts/val"),
        ]
        mounts += self._outputs(folder, (SCORE,), self.policies.sandbox.evaluator)
        settings = self.policies.evaluator.model_dump_json()
        return ["python", "-m", "trainer.evaluator", settings], mounts, {}

    def _agent(self, request: LaunchRequest, _: Path) -> tuple[list[str], list[Mount], dict[str, str]]:
        lane, seat = request.lane.number, request.seat
        mounts = [
            specification.bind(str(self.home.work_of(lane, seat)), "/work/train.py", writable=True),
            specification.bind(str(self.places.desk(lane, seat).parent), "/run/glovebox/bench"),
        ]
        if request.agent == "claude" or self.places.llm.parent.is_dir():  # a command may need no model
            mounts.append(specification.bind(str(self.places.llm.parent), "/run/glovebox/llm"))
        return ["python", "-m", "agent", request.agent], mounts, {}

    def _outputs(self, folder: Path, names: tuple[str, ...], limits: walls.Box) -> list[Mount]:
        """Fresh, empty single-file mounts: nothing to symlink, nothing to replace, a size limit on each."""
        mounts, group = [], users.ids(self.policies.sandbox, limits.uid).host_gid
        for name in names:
            path = folder / name
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            if os.fstat(descriptor).st_gid != group:
                os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, 0o660)
            os.close(descriptor)
            mounts.append(specification.bind(str(path), f"/out/{name}", writable=True))
        return mounts

    def _stored(self, version: str | None, part: str = "") -> Path:
        path = self.home.store / str(version) / part
        if version is None or not path.is_dir():
            raise DoorError(f"no such artifact in the store, or it has no {part or 'files'}")
        return path


def _input(path: Path, target: str) -> Mount:
    """A file that is filled when the container is released."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    os.fchmod(descriptor, 0o644)
    os.close(descriptor)
    return specification.bind(str(path), target)
