"""The model's tools: what each asks of the desk, and how a repair goes on from where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from agent.client import Bench, Refused
from agent.toolbox import TOOLS, Toolbox
from agent.tools import Editor
from runner.core.base.values import Kind
from tests.agent.conftest import SEED, FakeDesk

Desk = tuple[FakeDesk, Callable[[], Bench], Editor]


@pytest.fixture
def box(desk: Desk) -> Toolbox:
    return Toolbox(desk[2], desk[1](), 2)


def test_an_earlier_file_is_shown_compared_and_gone_on_from(box: Toolbox, desk: Desk) -> None:
    desk[0].outcomes.extend(["discard", "discard", "discard"])
    box.use("write", {"text": "first\n"})
    box.use("run_experiment", {"description": "one"})
    assert box.use("source", {"experiment": 1}).text == "first\n"
    assert "+first" in box.use("diff", {"experiment": 1}).text
    assert "experiment 1" in box.use("restore", {"experiment": 1}).text
    assert desk[2].text() == "first\n"
    assert "best version" in box.use("restore", {}).text
    assert desk[2].text() == SEED
    assert desk[0].restored == [1, None]


def test_a_repair_goes_on_from_the_experiment_it_began_from(box: Toolbox, desk: Desk) -> None:
    desk[0].outcomes.extend(["discard", "crash", "keep", "keep"])
    box.use("write", {"text": "first\n"})
    box.use("run_experiment", {"description": "one"})
    again = Toolbox(desk[2], desk[1](), 2)
    again.use("restore", {"experiment": 1})
    again.use("insert", {"line": 1, "text": "broken"})
    assert "failed version" in again.use("run_experiment", {"description": "two"}).text
    assert desk[0].restored == [1, 1]  # so that the repair's parent is that experiment, too
    assert desk[2].text() == "first\nbroken\n"


def test_notes_and_ideas_are_written_through_the_desk(box: Toolbox, desk: Desk) -> None:
    box.use("notes_write", {"text": "a is better"})
    box.use("notes_replace", {"old": "better", "new": "worse"})
    assert "1 ideas are open" in box.use("idea_add", {"text": "try b"}).text
    box.use("idea_add", {"text": "try c"})
    box.use("idea_close", {"idea": 1, "outcome": "drop"})
    book = desk[0].book
    assert (book.notes, [idea.text for idea in book.ideas], book.dropped) == ("a is worse", ["try c"], 1)


def test_what_is_expected_is_said_beforehand(box: Toolbox, desk: Desk) -> None:
    desk[0].outcomes.extend(["discard", "discard"])
    said: dict[str, Any] = {"hypothesis": "fewer, better steps", "expected": 0.002, "kind": "batch"}
    box.use("run_experiment", {"description": "one", **said})
    assert desk[0].said == [said]


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("run_experiment", {"description": "x", "expected": "a lot"}, "expected must be a number from -1 to 1"),
        ("run_experiment", {"description": "x", "expected": 7}, "expected must be a number"),
        ("run_experiment", {"description": "x", "kind": "magic"}, "kind must be one of learning_rate"),
        ("idea_close", {"idea": 0, "outcome": "done"}, "idea must be a whole number from 1"),
        ("idea_close", {"idea": 1, "outcome": "won"}, "outcome must be one of done, drop"),
        ("source", {}, "experiment is missing"),
        ("diff", {"experiment": True}, "experiment must be a whole number"),
    ],
)
def test_what_does_not_fit_is_told_and_asks_nothing(
    box: Toolbox, desk: Desk, name: str, given: dict[str, Any], told: str
) -> None:
    answer = box.use(name, given)
    assert answer.is_error
    assert told in answer.text
    assert desk[0].ran == []


def test_kinds_are_those_of_the_record() -> None:
    (tool,) = [tool for tool in TOOLS if tool["name"] == "run_experiment"]
    assert tool["input_schema"]["properties"]["kind"]["enum"] == list(get_args(Kind))


def test_a_file_that_is_built_on_what_was_taken_back_is_told_with_what_to_do(
    box: Toolbox, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vetoed(*_: Any, **__: Any) -> dict[str, Any]:
        raise Refused("vetoed")

    monkeypatch.setattr(Bench, "run_experiment", vetoed)
    answer = box.use("run_experiment", {"description": "x"})
    assert answer.is_error
    assert answer.text.startswith("refused: vetoed (")
    assert "restore()" in answer.text
    assert not box.ended
