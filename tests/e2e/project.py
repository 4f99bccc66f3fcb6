"""`docker compose` as a person uses it, on a bench of a test's own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.ledger import Ledger

EXPERIMENTS = 4


class Project:
    """`docker compose` on a bench of its own."""

    def __init__(self, home: Home, engine: docker.DockerClient, *files: str) -> None:
        """`files`: of the checkout, beside compose.yaml."""
        self.home, self.engine, self.name = home, engine, f"glovebox-test-{os.getpid()}"
        self.files = [word for file in ("compose.yaml", *files) for word in ("-f", str(SOURCE / file))]
        self.env_file = home.root / "compose.env"

    def compose(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, "--env-file", str(self.env_file), *self.files, *words],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={k: v for k, v in os.environ.items() if not k.startswith("GLOVEBOX_")}
            | {"GLOVEBOX_TAG": "t", "GLOVEBOX_EXPERIMENTS": str(EXPERIMENTS)},
        )
        assert (done.returncode != 0) is fails, done.stderr[-3000:]
        return done.stdout

    def container(self, service: str) -> Any:
        return self.engine.containers.get(f"{self.name}-{service}-1")

    def experiments(self) -> int:
        """How many have begun."""
        if not self.home.ledger.exists():
            return 0
        ledger = Ledger(self.home.ledger, read_only=True)
        try:
            return ledger.last_number("t")
        finally:
            ledger.close()

    def wait(self, holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                logs = self.compose("logs", "--tail", "15")
                pytest.fail(f"{what} in {seconds} s\n{logs}")
            time.sleep(0.2)
