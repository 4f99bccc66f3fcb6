"""The rooms as they are started: does every entry point begin in its own container, and do its files reach it? TRUSTED.

An image may be there and be of no use: its files readable by nobody but root (a clone under umask 077), a module
missing, an engine that does not share the folder of sockets (Docker in a virtual machine, another mount namespace).
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator

from runner.core.airlock import snapshot
from runner.core.base.doors import Line, listening, serve
from runner.core.base.errors import EngineError
from runner.core.base.launching import LaunchRequest
from runner.core.policy import users
from runner.people.host import processes
from runner.people.host.checks import Check
from runner.people.redteam.probes import Room
from runner.people.redteam.stage import LABEL, RUN, Stage
from runner.rooms.launcher.server import Launcher

ROOMS: tuple[Room, ...] = ("trainer", "evaluator", "agent")
SERVICES_IMAGE = "glovebox/runner:dev"
SERVICES = (  # of compose.yaml
    "runner.rooms.broker",
    "runner.people.host.enter",
    "runner.rooms.launcher",
    "runner.people.host.service",
    "runner.people.host.page_service",
)
_BEGIN = """
import importlib, importlib.util, sys
for name in sys.argv[1].split():
    package = importlib.util.find_spec(name).submodule_search_locations is not None
    importlib.import_module(name + ".__main__" if package else name)
print("begun")
"""
_MEET = """
import socket, sys
line = socket.socket(socket.AF_UNIX)
line.settimeout(10)
line.connect("/run/glovebox/bench/bench.sock")
line.sendall(b"{}\\n")
print("met", line.recv(200).decode().strip(), open("/work/train.py").readline().strip())
"""
_REBUILD = "make images (or another image in policies/sandbox.yaml)"


def of_rooms(made: Stage) -> Iterator[Check]:
    """Every room's own command, as far as it goes without work; and what is mounted from this host."""
    for room in ROOMS:
        spec = made.specification(room)
        module = spec["command"][spec["command"].index("-m") + 1]
        ended, output = made.run(spec, _BEGIN, module)
        good = ended.exit_code == 0 and b"begun" in output
        yield Check(f"room: {room}", good, module if good else _last(output), _REBUILD)
    yield _services(made)
    yield _mounts(made)


def _services(made: Stage) -> Check:
    """Compose's own services; without their image there is nothing to start, which only compose needs."""
    name, modules = "room: compose's services", ", ".join(module.split(".")[-1] for module in SERVICES)
    if not made.client.images.list(name=SERVICES_IMAGE):
        return Check(name, True, f"{SERVICES_IMAGE} is not built: glovebox up needs none")
    container = made.client.containers.create(
        SERVICES_IMAGE,
        ["-c", _BEGIN, " ".join(SERVICES)],
        entrypoint=["python", "-P"],
        user=f"{os.getuid()}:{os.getgid()}",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        labels={LABEL: made.bench},
    )
    try:
        ended, output = made.attend(container)
    finally:
        container.remove(force=True)
    good = ended.exit_code == 0 and b"begun" in output
    return Check(name, good, modules if good else _last(output), _REBUILD)


def _mounts(made: Stage) -> Check:
    """A file of the bench and a socket of a run, seen from an agent's container."""
    word, name = secrets.token_hex(8), "mounts: bench and sockets"
    sandbox = made.policies.sandbox
    ids = users.ids(sandbox, sandbox.agent.uid)
    with processes.doors() as places, listening(places.bench, gid=ids.host_gid, mode=0o660) as sock:
        places.llm.parent.mkdir()
        threading.Thread(target=serve, args=(sock, users.agents(sandbox), _greeting(word)), daemon=True).start()
        snapshot.provide(made.home.work, ids.host_gid, f"# {word}\n".encode())
        launcher = Launcher(made.client, made.home, places, made.policies)
        request = LaunchRequest(role="agent", run=RUN, policy=made.policies.digest)
        fix = f"let the engine see {made.home.root.parent} and {places.root.parent} (TMPDIR moves the latter)"
        try:
            _, output = made.run(launcher.specification(request, made.home.run(RUN)), _MEET)
        except EngineError as error:
            return Check(name, False, error.what, fix)
        good = f'met {{"word": "{word}"}} # {word}'.encode() in output
        return Check(name, good, "both reach an agent" if good else _last(output), fix)


def _greeting(word: str) -> Callable[[Line], None]:
    def greet(line: Line) -> None:
        line.receive()
        line.send({"word": word})

    return greet


def _last(output: bytes) -> str:
    """The last line, which is what Python says of an error."""
    return (output.decode(errors="replace").strip().splitlines() or ["nothing was printed"])[-1][:200]
