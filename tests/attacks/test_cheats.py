"""Every cheat of the corpus, as a real train.py through the real containers: none is kept, none breaks the bench.

The expectation stands in each file: `# expect: STATUS [REASON]`, alternatives separated by |.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runner.core.airlock import snapshot
from runner.core.artifacts import keys
from runner.core.base.launching import LaunchRequest, Release
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Feedback, Scored, Status
from runner.core.data import corpus
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.train_and_score import Stages, new_run_id

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CHEATS = sorted((Path(__file__).parent / "cheats").glob("*.py"))
CANARY = re.compile(r"ignore|instruction|exfiltrate|curl", re.IGNORECASE)


def expected(path: Path) -> list[list[str]]:
    match = re.search(r"^# expect: (.+)$", path.read_text(), re.MULTILINE)
    assert match, f"{path.name} states no expectation"
    return [alternative.split() for alternative in match[1].split("|")]


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of what the experiment handed over; empty if that was nothing."""
    folder, forget = tmp_path / "handed", Stages.forget

    def copy(stages: Stages, scored: Scored) -> None:
        for name in ("graph.json", "weights.safetensors"):
            shutil.copyfile(stages.home.run(scored.trained.run) / name, folder / name)
        forget(stages, scored)

    folder.mkdir()
    monkeypatch.setattr(Stages, "forget", copy)
    return folder


def without_audit(loop: Loop, handed: Path, out: Path) -> str | None:
    """Why the evaluator refuses a hand-over by proof, shapes, obligations and limits alone; None if it does not."""
    settings = loop.policies.evaluator.model_copy(update={"audit_trials": 0}).model_dump_json()
    artifacts = loop.home.store / "demo-1"
    paths = {"GLOVEBOX_HANDED": str(handed), "GLOVEBOX_ARTIFACTS": str(artifacts), "GLOVEBOX_OUT": str(out)}
    subprocess.run(
        [sys.executable, "-m", "trainer.evaluator", settings],
        env={**os.environ, **paths, "GLOVEBOX_GO": "/nonexistent", "OMP_WAIT_POLICY": "PASSIVE"},
        cwd=SOURCE,
        check=True,
        capture_output=True,
    )
    reason = json.loads((out / "score.json").read_bytes()).get("reason")
    return None if reason is None else str(reason)


@pytest.mark.parametrize("path", CHEATS, ids=lambda path: path.stem)
def test_a_cheat_gains_nothing(path: Path, loop: Loop, work: Path, handed: Path, tmp_path: Path) -> None:
    best = loop.best()
    shutil.copyfile(path, work)
    feedback = loop.experiment(work, path.stem)
    log = (loop.home.run(loop.ledger.experiments(loop.tag)[-1].run) / "trainer.log").read_text(errors="replace")
    found = [str(feedback.status), feedback.reason or ""]
    assert any(found[: len(wanted)] == wanted for wanted in expected(path)), (found, log[-2000:])
    assert loop.best() == best
    assert not re.search(r"^(WRITABLE|WARM|REPLACED)", log, re.MULTILINE), log
    assert not CANARY.search(_words(feedback))
    if feedback.val_bpb is not None:
        assert feedback.val_bpb > 1.0
    evaluated = loop.ledger.experiments(loop.tag)[-1].eval_seconds > 0
    if evaluated and feedback.status in (Status.REJECTED, Status.NON_CAUSAL):
        assert without_audit(loop, handed, tmp_path) == feedback.reason, "only the audit saw it"


def _words(feedback: Feedback) -> str:
    """The feedback as the agent gets it."""
    return json.dumps(feedback.model_dump(mode="json"))


def _hidden(needles: list[bytes]) -> str:
    """A list of them as an expression that holds none itself: train.py is one of the files that are searched."""
    return f"[bytes.fromhex(text) for text in {[needle.hex() for needle in needles]!r}]"


def test_no_readable_file_in_the_trainer_holds_validation_data(loop: Loop, work: Path) -> None:
    """With a control: training rows are found by the same search."""
    store = loop.home.store / "demo-1"
    rows = np.load(store / "val" / "rows.npy")
    tokens = np.load(store / "train" / "tokens_00000.npy")
    text = [
        document.encode()[100:300]
        for document in next(corpus.demo(keys.secret(loop.home, "demo validation")).val.groups())[::7]
    ]
    needles = [row[40:72].tobytes() for row in rows[::16]] + [
        t for t in text if len(t) == 200
    ]  # long enough not to be an idiom
    control = [tokens[at : at + 32].tobytes() for at in range(1000, 100_000, 20_000)]
    source = next(p for p in CHEATS if p.stem == "read_everything").read_text()
    work.write_text(
        source.replace("NEEDLES = []", f"NEEDLES = {_hidden(needles)}").replace(
            "CONTROL = []", f"CONTROL = {control!r}"
        )
    )
    # Launched by hand: reading every file of the image may take longer than an experiment is given.
    request = LaunchRequest(
        role="trainer",
        run=new_run_id(),
        policy=loop.policies.digest,
        artifact=loop.stages.artifact.predicate.version,
    )
    taken = snapshot.take(work, loop.home.snapshots, 1 << 20)
    loop.launches.run(request, Release(seconds=500, snapshot=taken.sha256))
    log = (loop.home.run(request.run) / "trainer.log").read_text(errors="replace")
    assert f"LEAKED 0 CONTROL {len(control)}" in log, log[-2000:]


HONEST = (
    "sdpa",
    "masked fill",
    "sliding window",
    "linear attention",
    "ssd decay",
    "rope complex",
    "causal conv",
    "gru",
    "dense top-2 moe",
    "n-gram hash",
    "hillis-steele scan",
    "value embedding",
)
TAIL = """
from prepare import MAX_SEQ_LEN, Tokenizer, evaluate_bpb, make_dataloader

tokenizer = Tokenizer.from_directory()
model = FAMILIES[{name!r}]()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step, (x, y, _) in zip(range(5), make_dataloader(tokenizer, 4, MAX_SEQ_LEN, "train")):
    loss = model(x, y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
evaluate_bpb(model.eval(), tokenizer, 4)
"""


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_architecture_scores(name: str, loop: Loop, work: Path) -> None:
    zoo = (Path(__file__).parents[1] / "evaluator" / "zoo.py").read_text()
    work.write_text(
        zoo.replace("VOCAB, SEQ, DIM, HEADS = 64, 32,", "VOCAB, SEQ, DIM, HEADS = 1024, 256,") + TAIL.format(name=name)
    )
    feedback = loop.experiment(work, name)
    log = loop.home.run(loop.ledger.experiments(loop.tag)[-1].run) / "trainer.log"
    assert (feedback.status, feedback.causality) == ("discard", "proved"), (feedback, log.read_text()[-2000:])


def test_the_documentation_lists_every_cheat() -> None:
    text = (SOURCE / "docs" / "score.md").read_text()
    missing = [path.stem for path in CHEATS if f"`{path.stem}`" not in text]
    assert not missing


def test_the_corpus_has_all_that_was_asked_for() -> None:
    assert len(CHEATS) >= 40
