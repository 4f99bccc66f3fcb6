"""Every cheat of the corpus, as a real train.py through the real containers: none is kept, none breaks the bench.

The expectation stands in each file: `# expect: STATUS [REASON]`, alternatives separated by |.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from runner.loop import Loop
from runner.records import Feedback

pytestmark = [pytest.mark.engine, pytest.mark.slow]
CHEATS = sorted((Path(__file__).parent / "cheats").glob("*.py"))
CANARY = re.compile(r"ignore|instruction|exfiltrate|curl", re.IGNORECASE)


def expected(path: Path) -> list[list[str]]:
    match = re.search(r"^# expect: (.+)$", path.read_text(), re.MULTILINE)
    assert match, f"{path.name} states no expectation"
    return [alternative.split() for alternative in match[1].split("|")]


@pytest.mark.parametrize("path", CHEATS, ids=lambda path: path.stem)
def test_a_cheat_gains_nothing(path: Path, loop: Loop, work: Path) -> None:
    best = loop.ledger.best(loop.tag)
    shutil.copyfile(path, work)
    feedback = loop.experiment(work, path.stem)
    log = (loop.home.run(loop.ledger.experiments(loop.tag)[-1].run) / "trainer.log").read_text(errors="replace")
    found = [str(feedback.status), feedback.reason or ""]
    assert any(found[: len(wanted)] == wanted for wanted in expected(path)), (found, log[-2000:])
    assert loop.ledger.best(loop.tag) == best
    assert not re.search(r"^(WRITABLE|WARM|REPLACED)", log, re.MULTILINE), log
    assert not CANARY.search(_words(feedback))
    if feedback.val_bpb is not None:
        assert feedback.val_bpb > 1.0


def _words(feedback: Feedback) -> str:
    """The feedback as the agent gets it."""
    return json.dumps(feedback.model_dump(mode="json"))


def test_the_corpus_has_all_that_was_asked_for() -> None:
    assert len(CHEATS) >= 40
