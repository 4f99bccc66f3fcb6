"""Shared fixtures: a bench of its own for every test that needs one, real artifacts, the real engine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from runner import keys, policy
from runner.artifacts import prepare, store
from runner.home import SOURCE, Home

POLICIES = SOURCE / "policies"


@pytest.fixture(scope="session")
def policies() -> policy.Policies:
    """The shipped policies."""
    return policy.load(POLICIES)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A bench with the demo artifact in its store, made once; copy it, do not change it."""
    home = Home(tmp_path_factory.mktemp("prepared") / ".glovebox")
    home.root.mkdir()
    keys.create(home)
    version = prepare.prepare(home, "demo", None, lambda text: None)
    store.admit(home, version)
    return home


@pytest.fixture
def home(prepared: Home, tmp_path: Path) -> Home:
    """A private copy of the prepared bench."""
    copy = Home(tmp_path / ".glovebox")
    shutil.copytree(prepared.root, copy.root)
    return copy


@pytest.fixture(scope="session")
def artifact(prepared: Home) -> Path:
    """Folder of the verified demo artifact."""
    return prepared.store / "demo-1"


@pytest.fixture(scope="session")
def engine(policies: policy.Policies) -> Iterator[docker.DockerClient]:
    """The container engine with our images; its absence is a failure, never a skip."""
    client = docker.from_env(timeout=120)
    for image in (policies.sandbox.trainer.image, policies.sandbox.agent.image):
        client.images.get(image)
    yield client
    client.close()


@pytest.fixture
def glovebox(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in a process of its own on `home`: (exit code, stdout, stderr)."""
    import subprocess

    def run(*args: str, env: dict[str, str] | None = None, timeout: float = 300) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "runner", *args],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(home.root), **(env or {})},
            cwd=home.root.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run
