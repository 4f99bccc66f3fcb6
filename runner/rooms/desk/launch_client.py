"""The runner's side of launch.sock: ask for a container, release it to work, wait for its end. TRUSTED.

A container may be asked for ahead of its work (`Ahead`): it starts, imports what the image holds and waits. It has seen
no candidate by then; which one it runs, on which seed and for how long comes with the release, and so does the clock.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from runner.core.artifacts import compile_cache
from runner.core.base import dialing, doors
from runner.core.base.errors import DoorError, GloveboxError, RelayedError
from runner.core.base.launching import EngineResult, LaunchRequest, Release


class Launch:
    """One container's life as a connection: close it and the container ends."""

    def __init__(self, door: Path, request: LaunchRequest) -> None:
        self._line = dialing.connect(door)
        self._line.send(request.model_dump(mode="json"))
        self.run = request.run
        self._cache = request.cache
        self._started = False

    def started(self) -> None:
        """Wait until the engine has started the container; raises what the launcher says if it cannot be.

        Compiled code that was made for another image or device is refused; nothing of a candidate has run by then.
        """
        if not self._started:
            told = self._receive("started")
            if self._cache is not None:
                gpu = told.get("gpu")
                compile_cache.check_fit(self._cache, str(told.get("image")), None if gpu is None else str(gpu))
            self._started = True

    def release(self, work: Release) -> None:
        """Let the container work, as soon as it has started."""
        self.started()
        self._line.send(work.model_dump(mode="json"))
        self._receive("released")  # one that ended while it stood by says so here, not as an experiment's end

    def ended(self) -> EngineResult:
        """Wait for the end."""
        message = self._receive("ended")
        message.pop("event")
        try:
            return EngineResult.model_validate_json(json.dumps(message))
        except ValidationError:
            raise DoorError("the launcher's answer is malformed") from None
        finally:
            self._line.close()

    def stop(self) -> None:
        """End the container, and let `ended` tell how far it came."""
        self._line.finish()

    def cancel(self) -> None:
        """End the container by hanging up."""
        self._line.close()

    def _receive(self, event: str) -> dict[str, object]:
        return _receive(self._line, event)


def _receive(line: doors.Line, event: str) -> dict[str, object]:
    message = line.receive()
    if message is None:
        raise DoorError("the launcher hung up", fix="run: glovebox doctor")
    if message.get("event") == "failed":
        raise RelayedError(str(message.get("error")), int(str(message.get("code", 1))))
    if message.get("event") != event:
        raise DoorError(f"expected {event} from the launcher")
    return message


def _frozen(line: doors.Line) -> None:
    _receive(line, "frozen")


class LaunchClient:
    """Starts containers through the launcher and remembers them, so a stop can end them all."""

    def __init__(self, door: Path) -> None:
        self.door = door
        self._lock = threading.RLock()  # a signal handler may cancel while we hold it
        self._open: set[Launch] = set()
        self._closed = False

    def ready(self, seconds: float) -> None:
        """Wait until the launcher accepts connections; raises DoorError if it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                dialing.connect(self.door).close()
                return
            except DoorError:
                if self._closed or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def check(self) -> None:
        """Raises DoorError if nothing is started any more."""
        if self._closed:
            raise DoorError("the run is being stopped")

    def open(self, request: LaunchRequest) -> Launch:
        """Ask for the container; it starts while we go on."""
        with self._lock:
            self.check()
            launch = Launch(self.door, request)
            self._open.add(launch)
        return launch

    @contextmanager
    def freezing(self, lane: int, seat: int = 0) -> Iterator[Callable[[], None]]:
        """An agent of a lane is made to stand still, and goes on afterwards.

        What this gives waits until it does, and raises what the launcher says if it cannot be; who asks it again need
        not wait.
        """
        line = dialing.connect(self.door)
        try:
            line.send({"freeze": lane, "seat": seat})
            yield cache(lambda: _frozen(line))  # it is told once
        finally:
            line.close()

    def end(self, launch: Launch) -> None:
        """End a container that is wanted no more, or forget one that ended."""
        launch.cancel()
        with self._lock:
            self._open.discard(launch)

    def run(self, request: LaunchRequest, work: Release) -> EngineResult:
        """One container from its start to its end."""
        launch = self.open(request)
        try:
            launch.release(work)
            return launch.ended()
        finally:
            self.end(launch)

    def end_all(self) -> None:
        """End every container that is still running or stands by."""
        with self._lock:
            for launch in self._open:
                launch.cancel()

    def cancel_all(self) -> None:
        """The same, and start no more."""
        with self._lock:
            self._closed = True
            self.end_all()


class Ahead:
    """Containers of one role, each asked for ahead of its work; one at a time stands by."""

    def __init__(self, launches: LaunchClient) -> None:
        self._launches = launches
        self._lock = threading.Lock()
        self._waiting: tuple[LaunchRequest, Launch] | None = None

    def prepare(self, request: LaunchRequest) -> None:
        """Have a container for `request` start, unless one stands by already; a launcher that is away is no error."""
        with self._lock, suppress(GloveboxError):
            if self._waiting is None:
                self._waiting = (request, self._launches.open(request))

    def check(self) -> None:
        """Wait until the one that stands by has started; raises what the launcher says if it cannot be."""
        with self._lock:
            waiting = self._waiting
        if waiting is not None:
            waiting[1].started()

    @property
    def waiting(self) -> LaunchRequest | None:
        """What the one that stands by was asked for with."""
        return self._waiting[0] if self._waiting else None

    def release(self, request: LaunchRequest, work: Release) -> Launch:
        """Let the container for `request` work, a fresh one if none stands by or it was lost."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            try:
                if waiting[0] == request:
                    waiting[1].release(work)
                    return waiting[1]
            except GloveboxError:
                pass  # a launcher that was started again knows nothing of it
            self._launches.end(waiting[1])
        launch = self._launches.open(request)
        try:
            launch.release(work)
        except BaseException:
            self._launches.end(launch)
            raise
        return launch

    def drop(self) -> None:
        """End the one that stands by."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._launches.end(waiting[1])
