"""The model-driven agent's loop: real SDK, real broker, a stand-in model, a desk with scripted outcomes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from agent import claude, model
from agent.client import CLOSING, Bench
from agent.model import Model, Permanent
from agent.tools import Editor
from runner.rooms.desk.meter_client import MeterClient
from tests.agent.conftest import PASSED, SEED, FakeDesk
from tests.rooms.broker.conftest import Start
from tests.standin.server import Block, Standin

Desk = tuple[FakeDesk, Callable[[], Bench], Editor]


def use(name: str, **given: Any) -> Block:
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": given}


def turns(asked: dict[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in asked["messages"])


def last(asked: dict[str, Any]) -> str:
    return str(asked["messages"][-1]["content"])


def edit_and_run(asked: dict[str, Any]) -> list[Block]:
    """One edit, then the experiment."""
    if turns(asked) == 0:
        return [{"type": "text", "text": "now"}, use("str_replace", old="0.001", new="0.004")]
    return [use("run_experiment", description="a higher rate")]


@pytest.fixture
def work(desk: Desk, start: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Standin]:
    """Runs the agent to its end against `outcomes`; returns the stand-in that played its model."""
    fake, connect, editor = desk
    monkeypatch.setattr(claude, "_IDLE_PAUSE", 0.001)
    monkeypatch.setattr(claude, "_LONGEST_UNACCEPTABLE", 0.01)
    monkeypatch.setattr(model, "_wait", lambda state: 0.05)

    def run(brain: Any, outcomes: list[str], faults: tuple[str, ...] = (), brief: Any = (), **changes: str) -> Standin:
        fake.outcomes.extend(outcomes)
        fake.brief |= {"model": "claude-haiku-4-5", "max_tokens": 1000, **dict(brief)}
        broker = start(Standin(brain, deque(faults)), **{"failures": "100", **changes})
        fake.recorded = MeterClient(broker.places.meter).tell
        made = Model(fake.brief, str(broker.places.llm))
        claude._work(connect(), editor, made, fake.brief)
        return broker.standin

    return run


def test_each_experiment_is_a_fresh_conversation_with_the_records(work: Any, desk: Desk) -> None:
    standin = work(edit_and_run, ["keep", "discard", "discard"])
    fake = desk[0]
    assert [text for _, text in fake.ran] == [SEED.replace("0.001", "0.004")] * 3
    asked = [json.loads(body) for body in standin.bodies]
    openings = [a for a in asked if turns(a) == 0]
    assert len(openings) == 3
    assert [f"experiments so far: {n}" in str(a["messages"]) for n, a in enumerate(openings)] == [True] * 3
    assert all(a["system"][0]["cache_control"] == {"type": "ephemeral"} for a in asked)
    assert all(a["messages"][-1]["content"][-1]["cache_control"] for a in asked)
    assert all(a["stream"] is True for a in asked)


def test_a_crash_gets_a_bounded_number_of_repairs_from_the_failed_version(work: Any, desk: Desk) -> None:
    def brain(asked: dict[str, Any]) -> list[Block]:
        if turns(asked) == 0:
            return [use("write", text="broken\n")]
        if "holds your failed version" in last(asked):
            return [use("insert", line=1, text="repair")]
        return [use("run_experiment", description="try")]

    work(brain, ["crash", "crash", "crash", "keep"], brief={"repairs": 2})
    assert [text for _, text in desk[0].ran[:3]] == ["broken\n", "broken\nrepair\n", "broken\nrepair\nrepair\n"]
    assert desk[0].ran[3][1] == "broken\n"  # a new conversation, from the best version


@pytest.mark.parametrize("fault", ["429", "500", "529", "drop", "refuse", "malformed", "drip"])
def test_faults_of_the_api_are_waited_out(work: Any, desk: Desk, fault: str) -> None:
    work(edit_and_run, ["keep", "discard"], (fault, "", fault, fault))
    assert len(desk[0].ran) == 2


def test_a_refused_key_ends_it_with_the_reason(work: Any) -> None:
    with pytest.raises(Permanent, match="401"):
        work(edit_and_run, ["keep"], ("401",))


def test_a_key_that_is_refused_in_the_middle_of_a_night_is_tried_again(work: Any, desk: Desk) -> None:
    work(edit_and_run, ["keep", "discard"], ("", "401", "403", "404", ""))
    assert len(desk[0].ran) == 2
    with pytest.raises(Permanent, match="404"):
        work(edit_and_run, ["keep", "discard"], ("", *("404",) * (model.REFUSALS + 1)), tag="u")


def test_a_withdrawn_model_gives_way_to_the_next(work: Any, desk: Desk) -> None:
    faults = ("", "", *("404",) * (model.REFUSALS + 1))
    standin = work(edit_and_run, ["keep", "discard"], faults, brief={"fallback_models": ["claude-sonnet-5-5"]})
    assert len(desk[0].ran) == 2
    assert [json.loads(body)["model"] for body in standin.bodies[-2:]] == ["claude-sonnet-5-5"] * 2


def test_thinking_effort_and_blank_text_go_as_policy_and_model_have_them(work: Any) -> None:
    blank = {"type": "text", "text": "\n\n"}

    def brain(asked: dict[str, Any]) -> list[Block]:
        return [blank, *edit_and_run(asked)]

    standin = work(brain, ["keep"], brief={"thinking": "adaptive", "effort": "high"})
    first, second = (json.loads(body) for body in standin.bodies[:2])
    assert (first["thinking"], first["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    assert [block["type"] for block in second["messages"][1]["content"]] == ["text", "text", "tool_use"]
    plain = work(edit_and_run, ["keep"], brief={"thinking": "off", "effort": "default"}, tag="u")
    assert not {"thinking", "output_config"} & set(json.loads(plain.bodies[0]))


def test_an_api_that_takes_no_blank_text_back_is_asked_once_more_without(work: Any, desk: Desk) -> None:
    def brain(asked: dict[str, Any]) -> list[Block]:
        return [{"type": "text", "text": " "}, *edit_and_run(asked)]

    standin = work(brain, ["keep"], ("", "400"))
    assert len(desk[0].ran) == 1
    assert [block["type"] for block in json.loads(standin.bodies[2])["messages"][1]["content"]] == ["text", "tool_use"]


def test_two_breakpoints_let_the_cache_hold_over_experiments_and_within_one(work: Any) -> None:
    standin = work(edit_and_run, ["keep", "discard"])
    asked = [json.loads(body) for body in standin.bodies]
    for one in asked:
        opening = one["messages"][0]["content"]
        assert "cache_control" in opening[0]  # facts and train.py
        assert "experiments so far" in opening[1]["text"]
        assert "cache_control" in one["messages"][-1]["content"][-1]
    first = [one["messages"][0]["content"][0] for one in asked if turns(one) == 0]
    assert first[0] == first[1]  # nothing was kept that is another file: the same beginning


def test_a_conversation_the_api_will_not_take_is_dropped_and_many_in_a_row_end_it(work: Any, desk: Desk) -> None:
    work(edit_and_run, ["keep"], ("400",) * 3)
    assert len(desk[0].ran) == 1
    with pytest.raises(Permanent, match="400"):
        work(edit_and_run, ["keep"], ("400",) * claude.MAX_UNACCEPTABLE)


def test_an_experiments_budget_that_pays_for_no_call_runs_nothing_for_ever(work: Any, desk: Desk) -> None:
    fake = desk[0]
    fake.outcomes.extend(["discard"] * 9)
    with pytest.raises(model.BudgetUsed, match="experiment"):
        work(edit_and_run, [], experiment__dollars="0.0001")
    assert [text for text, _ in fake.ran] == [PASSED]  # nothing was edited, so nothing is run


def test_a_night_of_broken_streams_goes_on_while_its_budget_lasts(work: Any, desk: Desk) -> None:
    """Seven ended one with 44 of 50 dollars left: an experiment's budget was used up before a word was heard, twice."""
    work(edit_and_run, ["keep"], ("drop",) * 6, experiment__requests="3")
    assert [text for text, _ in desk[0].ran] == [PASSED, PASSED, "a higher rate"]


def test_an_answer_the_sdk_cannot_read_drops_the_conversation_only(
    work: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = iter([True])

    def brain(asked: dict[str, Any]) -> list[Block]:
        if next(broken, False):
            return [{**use("write"), "input": {"text": "\ud800"}}]
        return edit_and_run(asked)

    work(brain, ["keep"])
    assert len(desk[0].ran) == 1


def test_the_nights_budget_ends_it_and_the_experiments_budget_only_the_idea(work: Any, desk: Desk) -> None:
    # An experiment of two requests: the edit is made, the second call is refused, the file is run as it stands.
    def brain(asked: dict[str, Any]) -> list[Block]:
        return [use("str_replace", old="0.001", new="0.004")] if turns(asked) == 0 else [use("view")]

    work(brain, ["discard"], experiment__requests="2")
    assert desk[0].ran == [(CLOSING, SEED.replace("0.001", "0.004"))]
    with pytest.raises(model.BudgetUsed, match="night"):
        work(edit_and_run, ["keep"] * 50, night__requests="5", tag="u")


def test_it_neither_asks_nor_stops_when_the_model_does(work: Any, desk: Desk) -> None:
    state = {"asked": 0}

    def brain(asked: dict[str, Any]) -> list[Block]:
        state["asked"] += 1
        if state["asked"] < 8:
            return [{"type": "text", "text": "Shall I go on?"}]
        return (
            edit_and_run(asked) if "Nobody is reading" not in str(asked) else [use("run_experiment", description="x")]
        )

    work(brain, ["keep"])
    assert len(desk[0].ran) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        use("bash", command="ls"),
        use("view", first=-1),
        use("view", path="/etc/passwd"),
        use("str_replace", old="not there", new=""),
        use("str_replace", old="", new="x"),
        use("write", text=7),
        use("run_experiment"),
        use("telemetry", experiment="1"),
        use("insert", line=99, text="x"),
    ],
)
def test_a_call_that_does_not_fit_is_an_error_the_model_can_read(work: Any, desk: Desk, nonsense: Block) -> None:
    def brain(asked: dict[str, Any]) -> list[Block]:
        return [nonsense] if turns(asked) == 0 else [use("run_experiment", description="after")]

    standin = work(brain, ["keep"])
    (result,) = json.loads(standin.bodies[1])["messages"][-1]["content"]
    assert result["is_error"] is True
    assert desk[0].ran == [("after", SEED)]


def test_a_conversation_is_bounded_in_turns_and_in_size(work: Any, desk: Desk) -> None:
    def rambling(asked: dict[str, Any]) -> list[Block]:
        if len(desk[0].ran) == 0 and state["n"] < 2:
            if turns(asked) == 0:
                state["n"] += 1
            return [use("view"), {"type": "text", "text": "x" * 3000}]
        return [use("run_experiment", description="at last")]

    state = {"n": 0}
    standin = work(rambling, ["keep"], brief={"turns": 4, "context_chars": 20_000})
    assert len(standin.bodies) <= 2 * 4 + 2
    assert max(map(len, standin.bodies)) < 40_000


def test_a_runner_that_went_away_in_an_experiment_is_waited_for(work: Any, desk: Desk) -> None:
    work(edit_and_run, ["hang_up", "keep"])
    assert len(desk[0].ran) == 1
