"""Compose's live page: off by default, on this host's loopback alone, and it can read the bench and nothing else."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator

import docker
import httpx
import pytest

from runner.core.base.home import Home
from runner.core.evidence.ledger import Ledger
from tests.e2e.project import Project
from tests.people.pages.test_report_page import night, row_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]
SERVICE = "page"


@pytest.fixture
def port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@pytest.fixture
def project(
    glovebox: Callable[..., tuple[int, str, str]], home: Home, engine: docker.DockerClient, port: int
) -> Iterator[Project]:
    made = Project(home, engine)
    code, _, err = glovebox("init", "--env-file", str(made.env_file))
    assert code == 0, err
    for folder, name in ((home.key.parent, "secret"), (home.keys, "key.json")):
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).write_text("not for a browser")
    with made.env_file.open("a") as file:
        file.write(f"GLOVEBOX_PAGE_PORT={port}\n")
    try:
        yield made
    finally:
        made.compose("--profile", SERVICE, "down", "--volumes", "--timeout", "10")


def address(project: Project) -> str:
    """As its log tells it."""
    found = list[str]()

    def told() -> bool:
        found[:] = re.findall(r"live page: (http://\S+)", project.compose("logs", "--no-log-prefix", SERVICE))
        return bool(found)

    project.wait(told, "no address was told")
    return found[-1]


def test_the_page_is_off_unless_its_profile_is_named(project: Project) -> None:
    assert SERVICE not in project.compose("config", "--services").split()
    assert SERVICE in project.compose("--profile", SERVICE, "config", "--services").split()


def test_people_who_are_not_root_have_a_page_and_services(project: Project) -> None:
    """The folders that hide keys had the mode of those below them, and root for an owner: nobody else got past them."""
    user = 1234 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        for path in (project.home.root, *project.home.root.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
        text = project.env_file.read_text()
        for name in ("GLOVEBOX_UID", "GLOVEBOX_GID"):
            text = re.sub(rf"(?m)^{name}=.*$", f"{name}={user}", text)
        project.env_file.write_text(text)
    assert project.home.keys.stat().st_mode & 0o777 == 0o700  # as init makes it
    project.compose("up", "--detach", "--no-build", SERVICE)
    with httpx.Client(trust_env=False, timeout=60, follow_redirects=True) as browser:
        _answers(browser, address(project))
    for service in ("runner", "launcher"):
        look = ("-P", "-c", "from runner.core.base import benches; print(benches.of_service().root)")
        told = project.compose("run", "--rm", "--no-deps", "--entrypoint", "python", service, *look)
        assert told.strip() == str(project.home.root)


def test_what_was_written_while_nobody_looked_is_shown(project: Project, port: int) -> None:
    """A ledger that nobody holds open is read as it lies; a whole run later it was still shown as it had been."""
    night(project.home, 3).close()
    with sqlite3.connect(project.home.spent) as meter:  # as a broker leaves it that has ended in order
        meter.execute("PRAGMA journal_mode = WAL")
        meter.execute(
            "CREATE TABLE calls (tag TEXT, nano INTEGER, reserved_nano INTEGER, tokens INTEGER, reserved_tokens INTEGER)"
        )
        meter.execute("INSERT INTO calls VALUES ('t', 1500000000, 0, 7, 0)")
    meter.close()
    assert not project.home.spent.with_name(project.home.spent.name + "-wal").exists()
    project.compose("up", "--detach", "--no-build", SERVICE)
    entry = address(project)
    with httpx.Client(trust_env=False, timeout=60, follow_redirects=True) as browser:
        _answers(browser, entry)
        shown = browser.get(f"http://127.0.0.1:{port}/b/0/t")
        assert (shown.status_code, "idea 3:" in shown.text, "1.50" in shown.text) == (200, True, True), shown.text[:500]
        ledger = Ledger(project.home.ledger)
        row = row_of(4)
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row)
        ledger.close()
        assert "idea 4:" in browser.get(f"http://127.0.0.1:{port}/b/0/t").text


def test_the_page_shows_a_run_that_began_after_it_and_can_change_nothing(project: Project, port: int) -> None:
    project.compose("up", "--detach", "--no-build", SERVICE)
    entry = address(project)
    assert entry.startswith(f"http://127.0.0.1:{port}/?token=")
    with httpx.Client(trust_env=False, timeout=60, follow_redirects=True) as browser:
        _answers(browser, entry)
        assert browser.get(f"http://127.0.0.1:{port}/b/0/t").status_code == 404  # a bench without a run
        night(project.home, 3).close()  # nothing of SQLite's beside it: read as it lies
        shown = browser.get(f"http://127.0.0.1:{port}/")
        assert shown.url.path == "/b/0/t"
        assert "idea 3:" in shown.text
        ledger = Ledger(project.home.ledger)
        row = row_of(4)
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row)
        assert _soon(browser, str(shown.url), "idea 4:")
        ledger.close()  # SQLite's own files are gone
        assert "idea 4:" in browser.get(str(shown.url)).text
    with httpx.Client(trust_env=False) as stranger:
        assert stranger.get(f"http://127.0.0.1:{port}/b/0/t").status_code == 403
    _walls(project, port)


def _answers(browser: httpx.Client, entry: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            assert browser.get(entry).status_code == 200
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


def _soon(browser: httpx.Client, url: str, text: str) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if text in browser.get(url).text:
            return True
        time.sleep(0.5)
    return False


def _walls(project: Project, port: int) -> None:
    container, root = project.container(SERVICE), project.home.root
    host = container.attrs["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert container.attrs["HostConfig"]["PortBindings"] == {
        "8899/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    }
    mounts = container.attrs["Mounts"]
    assert [mount["Destination"] for mount in mounts if mount["Type"] == "bind" and mount["RW"]] == []
    assert not [mount for mount in mounts if "docker" in mount["Source"]]
    network = project.engine.networks.get(f"{project.name}_{SERVICE}")
    assert network.attrs["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert list(container.attrs["NetworkSettings"]["Networks"]) == [network.name]
    pem = (
        "import os, sys; print(sum(b'PRIVATE KEY' in open(os.path.join(r, n), 'rb').read()"
        " for r, _, ns in os.walk(sys.argv[1]) for n in ns))"
    )
    assert any(b"PRIVATE KEY" in path.read_bytes() for path in root.rglob("*.pem"))  # which init made
    assert container.exec_run(["python", "-c", pem, str(root)]).output.strip() == b"0"
    look = "import json, os, sys; print(json.dumps([os.listdir(p) for p in sys.argv[1:]]))"
    seen = container.exec_run(["python", "-c", look, f"{root}/secrets", f"{root}/keys", f"{root}/policies"])
    secrets, keys, policies = json.loads(seen.output)
    assert (secrets, keys) == ([], [])
    assert policies  # else nothing was looked at
    for place in (root, root / "policies", root / "broker"):
        written = container.exec_run(["touch", str(place / "planted")])
        assert written.exit_code != 0
        assert b"Read-only file system" in written.output
