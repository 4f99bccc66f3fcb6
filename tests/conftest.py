"""Shared fixtures: a bench of its own for every test that needs one, real artifacts, the real engine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import hypothesis
import pytest

from runner.core.artifacts import store
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.decision import clock
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.policy import policy_files
from runner.people.host import processes
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.memory import Memory
from runner.rooms.desk.steering import Steering
from runner.rooms.desk.train_and_score import Stages
from tests import published, samples

# What a user's shell or a git hook may hold, and what is no business of a test's.
_THEIRS = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "SOURCE_DATE_EPOCH", "GLOVEBOX_KEY_PASSPHRASE_FILE"}
for _name in [*os.environ]:
    if _name in _THEIRS or _name.startswith("GIT_") or _name.upper().endswith("_PROXY"):
        del os.environ[_name]

POLICIES = SOURCE / "policies"
_SLOW = [hypothesis.HealthCheck.too_slow]  # a busy machine is no finding
hypothesis.settings.register_profile("glovebox", deadline=None, suppress_health_check=_SLOW)
hypothesis.settings.load_profile("glovebox")


_OTHER_PROCESSES = {"glovebox", "start"}  # fixtures: the command line, a broker


# Tests with containers that may run beside each other; all others of them one after another: they watch clocks and
# processors, and what the engine has is theirs alone.
_BESIDE = frozenset(
    {
        *("test_bad_input.py", "test_cheats.py", "test_containers.py", "test_doctor.py", "test_gateway.py"),
        *("test_gpu_check.py", "test_inspection.py", "test_page_service.py", "test_seccomp.py", "test_standby.py"),
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start processes of ours, and whole families of models, are left to `make test` by `make check`."""
    for item in items:
        if item.path.name in _BESIDE and item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.beside)
        whole = item.path.name in (
            "test_claude.py",
            "test_families.py",
            "test_export.py",
            "test_requested_reruns.py",
            "test_notify.py",
        )
        if whole or _OTHER_PROCESSES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def policies() -> policy_files.Policies:
    """The shipped policies."""
    return policy_files.load(POLICIES)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A bench with the demo artifact in its store, made once; copy it, do not change it."""
    return samples.prepared(tmp_path_factory.mktemp("prepared"))


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
def engine(policies: policy_files.Policies) -> Iterator[docker.DockerClient]:
    """The container engine with our images; its absence is a failure, never a skip."""
    client = docker.from_env(timeout=120)
    for image in (policies.sandbox.trainer.image, policies.sandbox.agent.image, "glovebox/runner:dev"):
        client.images.get(image)
    yield client
    client.close()


@pytest.fixture
def glovebox(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in a process of its own on `home`: (exit code, stdout, stderr).

    What it prints with --json is held against docs/schemas/ every time.
    """
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
        if "--json" in args:
            published.check(args, done.stdout)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def loop(begun_loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The loop below. A verdict on its candidates is not for the machine's pace to say, so their clock is wider."""
    monkeypatch.setattr(clock, "MARGIN", 40.0)
    return begun_loop


@pytest.fixture(scope="session")
def begun_loop(prepared: Home, engine: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The experiment loop on real containers; its first experiment is the seed, honestly trained."""
    home = Home(tmp_path_factory.mktemp("attacks") / ".glovebox")
    shutil.copytree(prepared.root, home.root)
    shutil.copytree(SOURCE / "policies", home.root / "policies", dirs_exist_ok=True)
    path = home.root / "policies" / "decision.yaml"
    path.write_text(
        path.read_text()
        .replace("startup_seconds: 120.0", "startup_seconds: 30.0")
        .replace("hand_over_seconds: 60.0", "hand_over_seconds: 10.0")
        .replace("rule: odds ", "rule: upstream ")  # a cheat that gains is to be kept here, not to be rerun
    )
    policies = policy_files.load(home.root / "policies")
    ledger = Ledger(home.ledger)
    ledger.begin_run("attacks", "2026-01-01T00:00:00+00:00", "demo-1", policies.digest)
    with processes.doors() as places, processes.launcher(home, places):
        text = (SOURCE / "trainer" / "train.py").read_text()
        honest = text.replace("else 2**14 ", "else 2**11 ").replace("else 0.001 ", "else 0.004 ")
        recorder = Recorder(
            home=home,
            tag="attacks",
            ledger=ledger,
            line=GitLine(home.line),
            audit_log=AuditLog(home.audit),
            artifact="demo-1",
            policy=policies.digest,
            sealer=Sealer(home, ""),
        )
        made = Loop(
            tag="attacks",
            stages=Stages(
                home=home,
                policies=policies,
                launches=LaunchClient(places.launch),
                artifact=store.admit(home, "demo-1"),
            ),
            recorder=recorder,
            emit=lambda event, _: (
                made.stages.prepare() if event == "trained" else None
            ),  # the next, while this is scored
            seed=honest.encode(),
            memory=Memory(home, policies, ledger, "attacks"),
            steering=Steering(recorder, lambda *_: None),
        )
        made.begin()
        yield made
    ledger.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a test writes its train.py; discarded candidates are restored here."""
    return tmp_path / "train.py"
