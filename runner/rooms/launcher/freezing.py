"""No agent runs while a candidate does. TRUSTED, part of the launcher.

An agent that runs beside a trainer decides who wins: it burns the processors that its rivals train on, and leaves them
to itself. And it sees the host's exact counters, through which a trainer told it the training data at 400 bit/s. So
its containers are frozen, by the engine with the kernel's freezer, from the moment its experiment is accepted to the
answer, and while anything trains or is scored on the host. Where policy gives agents processors of their own
(`agents: apart`), another lane's training freezes nobody, and the own lane's the agent it is done for.

Who is to be frozen follows from what is held; who is, the engine says, every time.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker
from requests.exceptions import RequestException

from runner.core.base.errors import EngineError
from runner.core.base.launching import MAX_SEATS

AGENT_LABEL = "glovebox.agent"  # its value: the bench; of the launcher's own agents and of compose's
LANE_LABEL = "glovebox.lane"
EVERY_LANE = -1
_LABEL = re.compile(r"(\d{1,4})(?:\.(\d))?")
_LOOK_SECONDS = 2.0  # how long an agent that somebody else started may run beside a trainer
_FREEZE_SECONDS = 15.0  # for one agent
_AGAIN_SECONDS = 0.01
_LOOKS = 3


def agents(client: docker.DockerClient, bench: str) -> list[dict[str, Any]]:
    """The agents of a bench that run, or stand still, whoever started them, as the engine lists them."""
    found: list[dict[str, Any]] = client.api.containers(filters={"label": f"{AGENT_LABEL}={bench}"})
    return found


class Freezer:
    """The agents of one bench; `watch`: somebody else may start them, compose for one."""

    def __init__(self, client: docker.DockerClient, bench: str, *, watch: bool = False) -> None:
        self._client = client
        self._bench = bench
        self._lock = threading.Lock()
        self._held: Counter[int] = Counter()  # by place
        self._looks = 0  # still due: an agent may not be as it should, or not as the engine says
        self._watched = watch
        self._keeper: threading.Thread | None = None

    @contextmanager
    def hold(self, where: int = EVERY_LANE) -> Iterator[None]:
        """The agent of a place stands still within, or all; raises EngineError if one cannot be stopped."""
        self._change(where, 1)
        try:
            yield
        finally:
            self._change(where, -1)

    def settle(self) -> None:
        """Freeze and thaw until every agent is as it should be: one that has just started, or a dead launcher's."""
        with self._lock:
            self._settle()

    def release(self) -> None:
        """Hold nobody any more: the launcher ends."""
        with self._lock:
            self._held.clear()
            self._settle()

    def _change(self, where: int, by: int) -> None:
        with self._lock:
            before = self._held[where]
            self._held[where] = max(0, before + by)
            if (before > 0) == (self._held[where] > 0):
                return
            try:
                self._settle()
                self._looks = _LOOKS
            except BaseException:
                if by > 0:  # nobody is held: those that were frozen already are let go
                    self._held[where] = before
                    with suppress(EngineError):
                        self._settle()
                raise

    def _settle(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, daemon=True)
            self._keeper.start()
        due, self._looks = self._looks, _LOOKS
        try:
            for container in agents(self._client, self._bench):
                where = _place(container["Labels"])
                wanted = self._held[where] > 0 or self._held[EVERY_LANE] > 0
                if wanted != (container["State"] == "paused"):
                    self._switch(str(container["Id"]), wanted)
                    due = _LOOKS + 1
        except (docker.errors.DockerException, RequestException) as error:
            raise EngineError(f"the agent cannot be frozen: {str(error)[:120]}", fix="glovebox doctor") from None
        self._looks = max(0, due - 1)

    def _switch(self, container: str, wanted: bool) -> None:
        """Where a quota of processor time is used up, version 1 of control groups freezes at another try only.

        What the engine answers is no proof: one that starts again, or has just ended, is a conflict like one that is
        frozen already. So its state is looked at.
        """
        deadline = time.monotonic() + _FREEZE_SECONDS
        while True:
            try:
                (self._client.api.pause if wanted else self._client.api.unpause)(container)
                return
            except (docker.errors.APIError, RequestException):
                if self._is(container, wanted):
                    return
                if time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def _is(self, container: str, wanted: bool) -> bool:
        """Whether it is as it should be, or has ended."""
        try:
            state = self._client.api.inspect_container(container)["State"]
        except docker.errors.NotFound:
            return True
        except (docker.errors.APIError, RequestException):
            return False
        ended = not state["Running"] and not state["Restarting"]
        return ended or bool(state["Paused"]) == wanted

    def _keep(self) -> None:
        """Look again at what did not go as it should, and, if `watch`, at what somebody else may have started.

        And some times after every change: for a moment Docker may say of a container that it runs while it is frozen,
        since the event of the thaw before arrives late. Who was passed over for that would never be thawed.
        """
        pause = threading.Event()
        while not pause.wait(_LOOK_SECONDS):
            with suppress(EngineError, KeyError, TypeError, ValueError), self._lock:
                if self._looks or (self._watched and +self._held):
                    self._settle()


def place(lane: int, seat: int = 0) -> int:
    """One number for an agent's lane and seat."""
    return lane * MAX_SEATS + seat


def agent_labels(bench: str, lane: int, seat: int) -> dict[str, str]:
    """The same as its container's labels say it."""
    return {AGENT_LABEL: bench, LANE_LABEL: f"{lane}.{seat}" if seat else str(lane)}


def _place(labels: dict[str, str]) -> int:
    match = _LABEL.fullmatch(labels.get(LANE_LABEL) or "0")
    return place(int(match[1]), int(match[2] or 0)) if match else 0
