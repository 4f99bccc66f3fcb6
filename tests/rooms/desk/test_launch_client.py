"""The runner's side of launch.sock: containers asked for ahead, on a real socket with a stand-in launcher."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.core.base import device, doors
from runner.core.base.errors import ArtifactError, DoorError, RelayedError
from runner.core.base.launching import Cache, EndReason, EngineResult, LaunchRequest, Release
from runner.rooms.desk.launch_client import Ahead, LaunchClient

RESULT = EngineResult(
    exit_code=0, reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0, image="i", container="c"
)
WORK = Release(seconds=5.0, snapshot="a" * 64)


class Launcher:
    """Answers as the launcher does; `seen` are the runs asked for, released and left."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.fails = False
        self.told: dict[str, Any] = {}  # of a container that started
        self.left = threading.Event()

    def handle(self, line: doors.Line) -> None:
        request = line.receive()
        if request is None:
            return
        self.seen.append(("asked", request["run"]))
        if self.fails:
            line.send({"event": "failed", "code": 5, "error": "no engine"})
            return
        try:
            line.send({"event": "started", "container": "c", **self.told})
            released: dict[str, Any] | None = line.receive()
        except DoorError:
            released = None
        self.seen.append(("released" if released else "left", request["run"]))
        if released is None:
            self.left.set()
            return
        line.send({"event": "released"})
        line.send({"event": "ended", **RESULT.model_dump(mode="json")})


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def client(launcher: Launcher, tmp_path: Path) -> Iterator[LaunchClient]:
    path = tmp_path / "l" / "launch.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o600) as sock:
        args = (sock, frozenset({os.geteuid()}), launcher.handle)
        threading.Thread(target=doors.serve, args=args, daemon=True).start()
        yield LaunchClient(path)


def request(number: int) -> LaunchRequest:
    return LaunchRequest(role="trainer", run=f"{number:016x}", policy="0" * 64)


def test_one_that_stands_by_is_released_and_no_other_is_asked_for(launcher: Launcher, client: LaunchClient) -> None:
    ahead = Ahead(client)
    ahead.prepare(request(1))
    ahead.prepare(request(2))  # one is enough
    assert ahead.waiting == request(1)
    launch = ahead.release(request(1), WORK)
    assert launch.ended() == RESULT
    assert ahead.waiting is None
    assert launcher.seen == [("asked", request(1).run), ("released", request(1).run)]


def test_one_that_was_asked_for_otherwise_is_ended(launcher: Launcher, client: LaunchClient) -> None:
    ahead = Ahead(client)
    ahead.prepare(request(1))
    assert ahead.release(request(2), WORK).ended() == RESULT
    assert launcher.left.wait(10)
    assert ("released", request(1).run) not in launcher.seen
    assert ("released", request(2).run) in launcher.seen


def test_one_that_was_lost_is_replaced(launcher: Launcher, client: LaunchClient) -> None:
    ahead = Ahead(client)
    launcher.fails = True
    ahead.prepare(request(1))
    while not launcher.seen:
        pass
    launcher.fails = False
    assert ahead.release(request(1), WORK).ended() == RESULT
    assert launcher.seen.count(("asked", request(1).run)) == 2


def test_a_launcher_that_cannot_is_heard_when_it_matters(launcher: Launcher, client: LaunchClient) -> None:
    launcher.fails = True
    ahead = Ahead(client)
    ahead.prepare(request(1))
    with pytest.raises(RelayedError, match="no engine"):
        ahead.release(request(1), WORK)


def test_a_launcher_that_is_away_costs_nothing_until_it_is_needed(tmp_path: Path) -> None:
    ahead = Ahead(LaunchClient(tmp_path / "none.sock"))
    ahead.prepare(request(1))
    assert ahead.waiting is None
    with pytest.raises(DoorError, match="cannot be reached"):
        ahead.release(request(1), WORK)


def test_what_stands_by_ends_with_a_drop_and_with_the_session(launcher: Launcher, client: LaunchClient) -> None:
    ahead = Ahead(client)
    ahead.prepare(request(1))
    ahead.drop()
    assert launcher.left.wait(10)
    launcher.left.clear()
    ahead.prepare(request(2))
    client.end_all()
    assert launcher.left.wait(10)
    launcher.left.clear()
    ahead.release(request(2), WORK).cancel()  # a fresh one in place of that which ended: a tag's gain is measured last
    ahead.prepare(request(3))
    client.cancel_all()
    assert launcher.left.wait(10)
    ahead.prepare(request(4))
    assert ("asked", request(4).run) not in launcher.seen


CACHE = Cache(version="cache-2", image="sha256:one", device=device.kind(None))


def test_compiled_code_is_used_where_it_was_made_for(launcher: Launcher, client: LaunchClient) -> None:
    launcher.told = {"image": "sha256:one", "gpu": None}
    assert client.run(request(1).model_copy(update={"cache": CACHE}), WORK) == RESULT


@pytest.mark.parametrize("told", [{"image": "sha256:two", "gpu": None}, {"image": "sha256:one", "gpu": "H100"}, {}])
def test_compiled_code_for_something_else_ends_the_container_before_it_works(
    launcher: Launcher, client: LaunchClient, told: dict[str, Any]
) -> None:
    """A launcher that tells nothing is one of another version."""
    launcher.told = told
    with pytest.raises(ArtifactError, match=r"compile cache cache-2 was made for .* glovebox warm"):
        client.run(request(1).model_copy(update={"cache": CACHE}), WORK)
    assert launcher.left.wait(10)
    assert ("released", request(1).run) not in launcher.seen
    launcher.left.clear()
    ahead = Ahead(client)
    ahead.prepare(request(2).model_copy(update={"cache": CACHE}))
    with pytest.raises(ArtifactError):
        ahead.check()  # as a session begins, and not at its first candidate
    ahead.drop()
    assert launcher.left.wait(10)


def test_that_an_agent_stands_still_is_told_once_and_may_be_asked_again(tmp_path: Path) -> None:
    """A second look waited for a second answer, for ever."""
    asked: list[dict[str, object]] = []

    def freezes(line: doors.Line) -> None:
        while (request := line.receive()) is not None:
            asked.append(request)
            line.send({"event": "frozen"})

    path = tmp_path / "l" / "launch.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o600) as sock:
        args = (sock, frozenset({os.geteuid()}), freezes)
        threading.Thread(target=doors.serve, args=args, daemon=True).start()
        with LaunchClient(path).freezing(1, 2) as frozen:
            looks = threading.Thread(target=lambda: (frozen(), frozen()), daemon=True)
            looks.start()
            looks.join(10)
            assert not looks.is_alive()
    assert asked == [{"freeze": 1, "seat": 2}]
