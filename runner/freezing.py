"""No agent runs while a candidate does. TRUSTED, part of the launcher.

An agent that runs beside a trainer decides who wins: it burns the processors that its rivals train on, and leaves them
to itself. And it sees the host's exact counters, through which a trainer told it the training data at 400 bit/s. So
its containers are frozen, by the engine with the kernel's freezer, from the moment its experiment is accepted to the
answer, and while anything trains or is scored on the host. Where policy gives agents processors of their own
(`agents: apart`), another lane's training freezes nobody.

Who is to be frozen follows from what is held; who is, the engine says, every time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
from requests.exceptions import RequestException

from runner.errors import EngineError

AGENT_LABEL = "glovebox.agent"  # its value: the bench; of the launcher's own agents and of compose's
LANE_LABEL = "glovebox.lane"
EVERY_LANE = -1
_LOOK_SECONDS = 2.0  # how long an agent that somebody else started may run beside a trainer
_FREEZE_SECONDS = 15.0  # for one agent
_GONE = (404, 409)  # HTTP: it ended meanwhile, or is as it should be already


class Freezer:
    """The agents of one bench; `watch`: somebody else may start them, compose for one."""

    def __init__(self, client: docker.DockerClient, bench: str, *, watch: bool = False) -> None:
        self._client = client
        self._filters = {"label": f"{AGENT_LABEL}={bench}"}
        self._lock = threading.Lock()
        self._held: Counter[int] = Counter()  # by lane
        if watch:
            threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def hold(self, lane: int = EVERY_LANE) -> Iterator[None]:
        """The agents of a lane stand still within; raises EngineError if one cannot be stopped."""
        self._change(lane, 1)
        try:
            yield
        finally:
            self._change(lane, -1)

    def settle(self) -> None:
        """Freeze and thaw until every agent is as it should be: one that has just started, or a dead launcher's."""
        with self._lock:
            self._settle()

    def _change(self, lane: int, by: int) -> None:
        with self._lock:
            self._held[lane] += by
            try:
                if self._held[lane] == max(0, by):  # the first, or the last to go
                    self._settle()
            except BaseException:
                if by > 0:
                    self._held[lane] -= by
                raise

    def _settle(self) -> None:
        try:
            for container in self._client.api.containers(filters=self._filters):  # those that run, or stand still
                lane = int(container["Labels"].get(LANE_LABEL) or 0)
                wanted = self._held[lane] > 0 or self._held[EVERY_LANE] > 0
                if wanted != (container["State"] == "paused"):
                    self._switch(container, wanted)
        except (docker.errors.DockerException, RequestException) as error:
            raise EngineError(f"the agent cannot be frozen: {str(error)[:120]}", fix="glovebox doctor") from None

    def _switch(self, container: dict[str, Any], wanted: bool) -> None:
        """Where a quota of processor time is used up, version 1 of control groups freezes at another try only."""
        deadline = time.monotonic() + _FREEZE_SECONDS
        while True:
            try:
                (self._client.api.pause if wanted else self._client.api.unpause)(container["Id"])
                return
            except docker.errors.APIError as error:
                if error.status_code in _GONE:
                    return
                if time.monotonic() > deadline:
                    raise

    def _watch(self) -> None:
        quiet = threading.Event()
        while not quiet.wait(_LOOK_SECONDS):
            if +self._held:
                try:
                    self.settle()
                except EngineError:
                    continue  # an engine that is away runs nothing; the next hold says so
