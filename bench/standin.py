"""Nights without containers: the real loop, ledger, git line, audit chain and results.tsv around stand-ins.

What trains and scores is a function of train.py's text and how often it ran; everything that decides and records is the
product's own. For benchmarks and crash tests of what grows with a tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.core.artifacts import keys, profiles, store
from runner.core.base.home import Home
from runner.core.base.launching import Costs, EndReason, EngineResult
from runner.core.base.values import Crash, Evaluation, Score, Scored, Snapshot, Telemetry, Trained
from runner.core.data import prepare
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.policy import policy_files
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.memory import Memory
from runner.rooms.desk.steering import Steering
from runner.rooms.desk.train_and_score import Emit, Stages

COSTS = Costs(pass_flops=1e9, pass_elements=1000, passes=32, scoring_seconds=1.0)
AUDITED = Evaluation(order=7, audited=128, alone=3, whole=True, costs=COSTS)  # every row


def scored(val_bpb: float, evaluation: Evaluation | None = AUDITED) -> Score:
    """What the evaluator says of a model it proved."""
    return Score(status="scored", val_bpb=val_bpb, val_bpb_bytes=val_bpb, causality="proved", evaluation=evaluation)


class Launches(LaunchClient):
    """No launcher is needed."""

    def ready(self, seconds: float) -> None:
        """Always."""

    @contextmanager
    def freezing(self, *_: int) -> Iterator[Callable[[], None]]:
        """There is no agent."""
        yield lambda: None


@dataclass(frozen=True)
class Scripted(Stages):
    """`score` says what a train.py scores in its first, second, ... run; None: it crashes.

    Scores come from the text, not from the seeds: those come from a bench's secret key, and with them every bench would
    have a night of its own. Every run leaves a line in HOME/ran.log before it answers.
    """

    score: Callable[[bytes, int], float | None] = lambda _, __: None
    telemetry: Telemetry = field(default_factory=Telemetry)
    ran: Counter[str] = field(default_factory=Counter)  # by content

    def run(self, taken: Snapshot, run: str, *, seed: int = 42, trained: Any = lambda _: None, **_: Any) -> Scored:
        """A run that takes no time; raises DoorError as a client that was closed does."""
        self.launches.check()
        value = self.score(taken.path.read_bytes(), self._before(taken.sha256, run, seed))
        engine = EngineResult(
            exit_code=int(value is None), reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0,
            image="sha256:x", container="c", specification="0" * 64,
        )  # fmt: skip
        crash = Crash(error="ValueError", line=1) if value is None else None
        found = Trained(
            snapshot=taken,
            run=run,
            engine=engine,
            telemetry=self.telemetry,
            crash=crash,
            handed_over=value is not None,
        )
        trained(found)
        if value is None:
            return Scored(trained=found, engine=None, score=None)
        return Scored(trained=found, engine=engine, score=scored(value))

    def _before(self, sha256: str, run: str, seed: int) -> int:
        """How often it ran before, and that it does now."""
        with _log(self.home).open("a") as log:
            log.write(f"{run} {sha256} {seed}\n")
        self.ran[sha256] += 1
        return self.ran[sha256] - 1


def _log(home: Home) -> Path:
    return home.root / "ran.log"


def tiny(home: Home, seconds: int = 1) -> Home:
    """A new bench with an artifact on which a training takes that long."""
    keys.create(home)
    profile = profiles.Profile("demo", 64, seconds, 512, 64 * 64, 4, 2_000_000, 10_000)
    store.admit(home, prepare.prepare(home, profile))
    return home


def resident(process: int | str = "self") -> float:
    """MiB of memory a process has; raises OSError, IndexError, ValueError if it has ended."""
    return int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def loop(
    home: Home,
    tag: str,
    seed: bytes,
    score: Callable[[bytes, int], float | None],
    telemetry: Telemetry | None = None,
    emit: Emit = lambda *_: None,
) -> Loop:
    """The real loop around the stand-ins, on a bench with the demo artifact in its store; begins the tag."""
    policies = policy_files.load(*home.policies)
    ledger = Ledger(home.ledger)
    recorder = Recorder(
        home,
        tag,
        ledger,
        GitLine(home.line),
        AuditLog(home.audit),
        "demo-1",
        policies.digest,
        Sealer(home, policies.audit.witness),
    )
    if tag not in ledger.tags():
        recorder.begin("2026-01-01T00:00:00+00:00", policy_files.terms(policies, None, None))
    ran = Counter(line.split()[1] for line in _log(home).read_text().splitlines()) if _log(home).exists() else Counter()
    artifact = store.admit(home, "demo-1")
    launches = Launches(Path("none"))
    stages = Scripted(home, policies, launches, artifact, score=score, telemetry=telemetry or Telemetry(), ran=ran)
    return Loop(tag, stages, recorder, emit, seed, Memory(home, policies, ledger, tag), Steering(recorder, emit))
