"""The runner's side of launch.sock: ask for a container, wait for its end. TRUSTED."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from pydantic import ValidationError

from runner import doors
from runner.errors import DoorError, RelayedError
from runner.records import EngineResult, LaunchRequest


class Launch:
    """One container's life as a connection: close it and the container ends."""

    def __init__(self, door: Path, request: LaunchRequest) -> None:
        self._line = doors.connect(door)
        self._line.send(request.model_dump(mode="json"))

    def started(self) -> str:
        """Wait until the engine has started the container; returns its id."""
        message = self._receive("started")
        return str(message["container"])

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

    def cancel(self) -> None:
        """End the container by hanging up."""
        self._line.close()

    def _receive(self, event: str) -> dict[str, object]:
        message = self._line.receive()
        if message is None:
            raise DoorError("the launcher hung up", fix="run: glovebox doctor")
        if message.get("event") == "failed":
            raise RelayedError(str(message.get("error")), int(str(message.get("code", 1))))
        if message.get("event") != event:
            raise DoorError(f"expected {event} from the launcher")
        return message


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
                doors.connect(self.door).close()
                return
            except DoorError:
                if self._closed or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def start(self, request: LaunchRequest) -> Launch:
        """Ask for the container and wait until it runs."""
        with self._lock:
            if self._closed:
                raise DoorError("the run is being stopped")
            launch = Launch(self.door, request)
            self._open.add(launch)
        launch.started()
        return launch

    def run(self, request: LaunchRequest) -> EngineResult:
        """Start and wait for the end."""
        launch = self.start(request)
        try:
            return launch.ended()
        finally:
            with self._lock:
                self._open.discard(launch)

    def cancel_all(self) -> None:
        """End every container that is still running and start no more."""
        with self._lock:
            self._closed = True
            for launch in self._open:
                launch.cancel()
