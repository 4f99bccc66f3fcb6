"""Every word that a row may have is explained, in the command and in the docs."""

from __future__ import annotations

import re

import pytest

from runner.core.airlock.telemetry_file import NOT_EXPORTABLE
from runner.core.base.launching import EndReason
from runner.core.base.mountable import SOURCE
from runner.core.base.values import INTERRUPTED, NOTHING_PROPOSED, Status
from runner.core.decision.decide import DEATHS
from runner.people.pages import reasons
from trainer.wire.refusal import Reason

_SAID = re.compile(r'reason=(?:None if \w+ else )?"(\w+)"|Verdict\(Status\.\w+, "(\w+)"|return "(\w+)"')


def written() -> set[str]:
    """Words that the decision's own source gives as reasons."""
    texts = [path.read_text() for path in (SOURCE / "runner" / "core" / "decision").glob("*.py")]
    return {word for text in texts for found in _SAID.findall(text) for word in found if word}


def test_every_reason_of_every_room_has_a_meaning() -> None:
    ended = {str(one) for one in EndReason} - {"exit", "wall"}  # of the last, `time_budget` is what a row says
    words = {*map(str, Reason), *NOT_EXPORTABLE, *DEATHS, INTERRUPTED, *ended, *written(), NOTHING_PROPOSED}
    assert {"time_budget", "not_confirmed", "simpler", "early_stop", "evaluation_failed", "no_hand_over"} <= written()
    assert words - set(reasons.REASONS) == {"non_causal"}  # an outcome of that name
    assert set(reasons.REASONS) - words == set(), "nobody says that any more"


def test_every_outcome_has_a_meaning() -> None:
    assert set(reasons.OUTCOMES) == {str(one) for one in Status}


@pytest.mark.parametrize("word", [*reasons.OUTCOMES, *reasons.REASONS])
def test_the_docs_say_the_same(word: str) -> None:
    one = reasons.EVERY[word]
    line = f"| `{word}` | {one.means} | {one.remedy} |"
    assert line in (SOURCE / "docs" / "reasons.md").read_text().splitlines()
