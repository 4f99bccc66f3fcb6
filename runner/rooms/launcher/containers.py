"""One fresh container: make it, run it, drain what it prints, tell how it ended, remove it. TRUSTED.

Used by the launcher alone. What it prints is taken from the engine's attach stream, counted and capped; the bytes are
not read.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import docker
from docker.models.containers import Container
from requests.exceptions import Timeout

from runner.core.base import faults
from runner.core.base.errors import EngineError
from runner.core.base.launching import EndReason, EngineResult
from runner.rooms.launcher import specification, usage
from runner.rooms.launcher.specification import BENCH_LABEL, ROLE_LABEL

_CONTAINER = (
    "image",
    "command",
    "user",
    "environment",
    "labels",
    "working_dir",
    "stdin_open",
    "tty",
    "use_config_proxy",
)
_KILL_SECONDS = 30.0
_OOM_SECONDS, _KILLED = 0.5, 137


def create(client: docker.DockerClient, spec: dict[str, Any]) -> Container:
    """A container of this specification; `host_config` holds settings that docker-py has no word for."""
    plain = {name: spec[name] for name in _CONTAINER if name in spec}
    rest = {name: value for name, value in spec.items() if name not in (*_CONTAINER, "host_config")}
    host = client.api.create_host_config(**rest) | spec.get("host_config", {})
    made = client.api.create_container(host_config=host, **plain)
    found: Container = client.containers.get(made["Id"])
    return found


def run(
    client: docker.DockerClient,
    spec: dict[str, Any],
    *,
    output_bytes: int,
    sink: Callable[[bytes], None],
    hang_up: socket.socket,
    begin: Callable[[str, Output], float],
    look: Callable[[str], usage.Use] = lambda _: usage.Use(),
) -> EngineResult:
    """Create, attach, start and drain one container, then remove it.

    `begin` is called with the id and the output of the started container, may let it wait, and returns the seconds it
    has from then on. `sink` gets stdout and stderr as they come, at most `output_bytes` in all. The run ends by exit,
    by the host's clock, by too much output, or when the peer closes `hang_up`. `look` says what it uses now.
    """
    try:
        container = create(client, spec)
    except docker.errors.ImageNotFound:
        raise EngineError(f"image {spec['image']} is missing", fix="run: make images") from None
    except docker.errors.APIError as error:
        what = f"the engine refused the container: {error.explanation}"
        raise EngineError(what, fix="run: glovebox doctor") from None
    faults.reach("launcher.created")
    try:
        container.reload()
        image = client.images.get(str(container.attrs["Image"])).attrs["Config"]
        if found := specification.differences(container.attrs, spec, image):
            fix = "check the engine's defaults (daemon.json), then: glovebox doctor"
            raise EngineError(f"the engine made another container than asked for: {'; '.join(found)[:500]}", fix=fix)
        ended = attend(container, client, output_bytes, sink, hang_up, begin, look)
        faults.reach("launcher.ended")
        return ended.model_copy(update={"specification": specification.digest(spec)})
    finally:
        _remove(container)
        gc.collect()  # docker-py's responses hold connections in cycles: a launcher lives for a whole night


def _remove(container: Container) -> None:
    """What a stalled engine does not remove now, `reap` does: a run that ended must not be lost for it."""
    with suppress(docker.errors.APIError, Timeout):  # another of us may be removing it
        container.remove(force=True, v=True)


def attend(
    container: Container,
    client: docker.DockerClient,
    output_bytes: int,
    sink: Callable[[bytes], None],
    hang_up: socket.socket,
    begin: Callable[[str, Output], float],
    look: Callable[[str], usage.Use] = lambda _: usage.Use(),
) -> EngineResult:
    """Start and drain a container that was made and checked; it is the caller's to remove."""
    # Attach before start: nothing is lost and no log driver is needed.
    attached = client.api.attach_socket(str(container.id), params={"stdout": 1, "stderr": 1, "stream": 1})
    stream: socket.socket = getattr(attached, "_sock", attached)
    try:
        try:
            container.start()
        except docker.errors.APIError as error:
            raise EngineError(f"the container did not start: {error.explanation}", fix="run: glovebox doctor") from None
        faults.reach("launcher.started")
        output = Output(stream, sink, output_bytes)
        seconds = begin(str(container.id), output)
        began = time.monotonic()
        with usage.watched(lambda: look(str(container.id))) as most:
            reason = _drain(output, hang_up, began + seconds)
            # Close before kill: with an attached reader that does not read, the engine blocks in kill and wait.
            _close(stream, attached)
            reason = _finish(container, reason, began + seconds, hang_up)
    finally:
        _close(stream, attached)
    elapsed = time.monotonic() - began
    state = _ended(container, reason)
    oom = bool(state["OOMKilled"])
    if oom and reason is EndReason.EXIT and state["ExitCode"] != 0:
        reason = EndReason.OOM  # with exit code 0 it was a child that was killed
    return EngineResult(
        exit_code=int(state["ExitCode"]),
        reason=reason,
        oom=oom,
        seconds=round(elapsed, 3),
        output_bytes=output.total,
        image=str(container.attrs["Image"]),
        container=str(container.id),
        peak_mb=round(most.mb, 1),
        neighbours=round(most.neighbours, 2),
    )


def _ended(container: Container, reason: EndReason) -> dict[str, Any]:
    """The engine's record of an end. That the kernel killed it for memory may reach the engine after the end itself
    (moby 41929), so an exit by SIGKILL that nobody here sent is looked at for a moment longer."""
    deadline = time.monotonic() + _OOM_SECONDS
    while True:
        container.reload()
        state: dict[str, Any] = container.attrs["State"]
        settled = reason is not EndReason.EXIT or state["ExitCode"] != _KILLED or state["OOMKilled"]
        if settled or time.monotonic() > deadline:
            return state
        time.sleep(0.05)


def _drain(output: Output, hang_up: socket.socket, deadline: float) -> EndReason:
    """Read the attached stream until it ends; bounded in bytes and time."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return EndReason.WALL
        streams: list[Any] = [output, hang_up]
        ready, _, _ = select.select(streams, [], [], left)
        if hang_up in ready:  # the runner has nothing more to say: readable means it is gone, or wants the end
            return EndReason.CANCELLED
        if output in ready and not output.read():
            return EndReason.EXIT
        if output.flooded:
            return EndReason.OUTPUT


def _finish(container: Container, reason: EndReason, deadline: float, hang_up: socket.socket) -> EndReason:
    """End of stdout is not the end of the process: wait for the exit, else kill. Returns the final reason."""
    pause = 0.02  # most runs end at once; one that closed its stdout is asked less and less often
    while reason is EndReason.EXIT:
        pause = min(1.0, pause * 1.5)
        container.reload()
        if container.attrs["State"]["Status"] in ("exited", "dead"):
            return reason
        if time.monotonic() > deadline:
            reason = EndReason.WALL
        elif select.select([hang_up], [], [], pause)[0]:
            reason = EndReason.CANCELLED
    with suppress(docker.errors.APIError):
        container.kill("SIGKILL")
    container.wait(timeout=_KILL_SECONDS)
    return reason


def _close(sock: socket.socket, attached: Any) -> None:
    # docker-py's own close() leaves the descriptor open, and so does the socket's while docker-py's wrapper lives.
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    # Left to the collector it is closed after what it reads from: a traceback on Python 3.13.
    with suppress(OSError, AttributeError):
        attached._response.close()
    if (descriptor := sock.detach()) >= 0:
        os.close(descriptor)


def of_bench(client: docker.DockerClient, bench: str) -> list[Container]:
    """Every container of this bench, running or not; other benches may be at work on the same engine."""
    labels: dict[str, str | list[str] | bool] = {"label": [ROLE_LABEL, f"{BENCH_LABEL}={bench}"]}
    found: list[Container] = client.containers.list(all=True, filters=labels, ignore_removed=True)
    return found


def reap(client: docker.DockerClient, bench: str) -> list[str]:
    """Remove every container of this bench, and see that they are gone; returns short ids.

    Only the launcher that holds the bench's lock may: whatever else it finds was left by a dead one.
    """
    gone: dict[str, None] = {}
    deadline = time.monotonic() + _KILL_SECONDS / 2
    while (found := of_bench(client, bench)) and time.monotonic() < deadline:
        for container in found:
            _remove(container)
            gone[str(container.short_id)] = None
        time.sleep(0.02)
    return list(gone)


class Output:
    """What a container prints: taken out of the attached stream into a sink, counted, at most `cap` bytes kept."""

    def __init__(self, stream: socket.socket, sink: Callable[[bytes], None], cap: int) -> None:
        self._stream, self._sink, self._cap = stream, sink, cap
        self._demultiplexer = Demultiplexer()
        self.total = 0

    def fileno(self) -> int:
        """For select."""
        return self._stream.fileno()

    def read(self) -> bool:
        """Take what is there; False at the end of the stream."""
        data = self._stream.recv(65536)
        for chunk in self._demultiplexer.feed(data):
            self._sink(chunk[: max(0, self._cap - self.total)])
            self.total += len(chunk)
        return bool(data)

    @property
    def flooded(self) -> bool:
        """Whether it was more than is kept."""
        return self.total > self._cap


class Demultiplexer:
    """Incremental parser of the attach stream: 8-byte header (stream, 3 zero, length), then payload."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Payload chunks in `data`; holds no more than an incomplete header between calls."""
        at = 0
        while at < len(data):
            if self._left == 0:
                need = 8 - len(self._header)
                self._header += data[at : at + need]
                at += need
                if len(self._header) == 8:
                    (self._left,) = struct.unpack(">I", self._header[4:])
                    self._header = b""
                continue
            chunk = data[at : at + self._left]
            self._left -= len(chunk)
            at += len(chunk)
            yield chunk
