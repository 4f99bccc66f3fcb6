"""A person's hand on a running tag: taken in once, signed first, then acted on."""

from __future__ import annotations

import json
import threading
import time

import pytest

from agent.client import Refused
from runner.core.base import steering
from runner.core.base.steering import Verb
from runner.core.base.values import Experiment, Status
from runner.core.decision import standing
from runner.core.evidence import audit_chain
from tests.rooms.desk.conftest import SEED, Night

NOW = "2026-01-01T00:00:00+00:00"


def ask(night: Night, verb: Verb, text: str = "", experiment: int = 0) -> steering.Request:
    return steering.ask(night.home, "t", verb, NOW, text=text, experiment=experiment)


def line(night: Night) -> list[int]:
    return [row.id for row in standing.line(night.rows)]


def test_a_hint_is_signed_and_told_from_the_next_request_until_it_is_cleared(night: Night) -> None:
    ask(night, "hint", "try a smaller model")
    assert night.bench.program()["hints"] == [{"after": 1, "text": "try a smaller model"}]
    night.run(2.1)
    ask(night, "hint", "and no softcap")
    assert [one["after"] for one in night.bench.program()["hints"]] == [1, 2]
    ask(night, "clear")
    assert night.bench.program()["hints"] == []
    entries = [one for one in audit_chain.verify(night.home.audit) if one["kind"] == "steered"]
    assert [one["data"]["verb"] for one in entries] == ["hint", "hint", "clear"]
    assert steering.waiting(night.home, "t") == []
    found = night.verified()
    assert found.failures == []
    assert found.checked["requests"] == 3


def test_a_paused_tag_answers_nobody_until_it_goes_on(night: Night) -> None:
    ask(night, "pause")
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(night.bench.history()))
    thread.start()
    thread.join(1.5)
    assert answers == []
    ask(night, "resume")
    thread.join(10)
    assert len(answers) == 1


def test_an_agent_may_leave_a_paused_tag_and_a_stop_ends_the_pause(night: Night) -> None:
    ask(night, "pause")
    night.bench.leave("done")
    began = time.monotonic()
    with pytest.raises(Refused, match="no_experiments_left"):
        night.run(1.0)
    assert time.monotonic() - began < 5


def test_a_veto_takes_a_keep_and_what_was_built_on_it_out_of_the_line(night: Night) -> None:
    for true in (1.9, 1.8, 1.7):
        night.run(true)
    assert line(night) == [1, 2, 3, 4]
    ask(night, "veto", experiment=3)
    night.bench.restore()
    row = night.rows[-1]
    assert (row.status, row.reason, row.veto, row.parent) == (Status.KEEP, "veto", 3, 2)
    assert line(night) == [1, 2, 5]
    assert night.home.work.read_text() == night.bench.source(2) == night.bench.source(5)
    assert [one["id"] for one in night.bench.history()["line"]] == [1, 2, 5]
    assert night.run(1.85)["status"] == "keep"  # against 1.9 again
    assert line(night) == [1, 2, 5, 6]
    assert night.verified().failures == []
    assert [one for one, _ in night.events].count("steered") == 1


def test_a_veto_that_comes_while_something_runs_takes_back_what_that_built_on_it(night: Night) -> None:
    """An agent that works through a shell never restores: the veto is carried out behind its experiment."""
    night.run(1.9)
    run = night.loop.stages.run

    def meanwhile(*args: object, **named: object) -> object:
        if night.loop.ledger.open_numbers("t") == [3] and not steering.waiting(night.home, "t"):
            ask(night, "veto", experiment=2)
        return run(*args, **named)  # type: ignore[arg-type]

    object.__setattr__(night.loop.stages, "run", meanwhile)
    assert night.run(1.8)["status"] == "keep"
    object.__setattr__(night.loop.stages, "run", run)
    assert [row.veto for row in night.rows] == [None, None, None, 2]
    assert line(night) == [1, 4]
    assert night.home.work.read_bytes() == SEED
    assert night.verified().failures == []


@pytest.mark.parametrize("number", [1, 3, 9])
def test_a_veto_of_what_is_no_keep_does_nothing(night: Night, number: int) -> None:
    night.run(1.9)
    night.run(2.5)
    ask(night, "veto", experiment=number)
    night.bench.restore()
    assert len(night.rows) == 3
    assert line(night) == [1, 2]


def test_the_same_request_is_taken_in_once(night: Night) -> None:
    """A session that died between the record and the removal of the file finds the file again."""
    made = ask(night, "hint", "once")
    ((path, _),) = steering.waiting(night.home, "t")
    data = path.read_bytes()
    night.bench.program()
    path.write_bytes(data)
    assert [one["text"] for one in night.bench.program()["hints"]] == ["once"]
    assert [one.request for one in night.loop.recorder.texts.steers("t")] == [made.request]


@pytest.mark.parametrize("text", ["", "{", '{"verb": "run"}', "x" * 20_000, "null"])
def test_a_file_that_is_no_request_is_told_and_removed(night: Night, text: str) -> None:
    folder = steering.asked_of(night.home, "t")
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(text)
    night.bench.program()
    assert ("not_asked", {"file": str(folder / "1.json")}) in night.events
    assert list(folder.iterdir()) == []


def test_a_forged_veto_row_or_request_does_not_verify(night: Night) -> None:
    for true in (1.9, 1.8):
        night.run(true)
    ask(night, "veto", experiment=3)
    night.bench.restore()
    assert night.verified().failures == []
    with night.loop.ledger.transaction() as db:
        db.execute("UPDATE steers SET row = replace(row, '\"experiment\":3', '\"experiment\":2')")
    night.loop.recorder.texts._known.clear()
    failures = "\n".join(night.verified().failures)
    assert "request 1: the ledger differs from the audit chain" in failures
    assert "experiment 4: the verdict does not follow" in failures
    with night.loop.ledger.transaction() as db:
        db.execute("DELETE FROM steers")
    assert any("request 1 is in the audit chain but not in the ledger" in one for one in night.verified().failures)


def test_a_text_that_was_altered_does_not_verify(night: Night) -> None:
    night.bench.write_notes("as it was")
    night.run(2.1)
    with night.loop.ledger.transaction() as db:
        db.execute("UPDATE texts SET text = replace(text, 'as it was', 'as it never was')")
    assert any("notebook is missing or altered" in one for one in night.verified().failures)


def test_the_directive_is_the_benchs_and_every_row_names_the_one_it_was_made_under(night: Night) -> None:
    night.home.program.write_text("be bold\n")
    assert night.bench.program()["program"] == "be bold\n"
    night.run(2.1)
    night.home.program.write_text("be careful\n")
    night.run(2.2)  # its agent has not read it yet
    assert night.bench.program()["program"] == "be careful\n"
    night.run(2.3)
    texts = night.loop.recorder.texts
    assert [texts.text(row.program) for row in night.rows[1:]] == ["be bold\n", "be bold\n", "be careful\n"]


@pytest.mark.parametrize("broken", [b"", b"  \n", b"\xff", b"x" * (65 << 10)])
def test_a_directive_that_cannot_be_read_leaves_the_last_one_in_force(night: Night, broken: bytes) -> None:
    night.home.program.write_text("be bold\n")
    night.bench.program()
    night.home.program.write_bytes(broken)
    assert night.bench.program()["program"] == "be bold\n"
    assert "program_unreadable" in [event for event, _ in night.events]


def test_requests_without_end_are_refused(night: Night) -> None:
    folder = steering.asked_of(night.home, "t")
    folder.mkdir(parents=True)
    for number in range(steering.MAX_WAITING):
        (folder / f"{number}.json").write_text("{}")
    with pytest.raises(steering.UsageError, match="requests wait"):
        ask(night, "hint", "one more")


def test_an_experiment_says_which_keep_a_veto_took_back(night: Night) -> None:
    night.run(1.9)
    ask(night, "veto", experiment=2)
    night.bench.restore()
    row = Experiment.model_validate_json(json.dumps(night.rows[-1].model_dump(mode="json")))
    assert row.veto == 2
    assert "took experiment 2 back" in row.description


def test_what_a_person_took_back_cannot_come_back(night: Night) -> None:
    """The agent went on from it, or ran the very file again, and it was kept once more."""
    for true in (1.9, 1.8):
        night.run(true)
    vetoed = night.bench.source(3)
    ask(night, "veto", experiment=3)
    night.bench.restore()
    with pytest.raises(Refused, match="vetoed"):
        night.bench.restore(3)
    night.home.work.write_text(vetoed)
    with pytest.raises(Refused, match="vetoed"):
        night.bench.run_experiment("the same again")
    assert line(night) == [1, 2, 4]
    assert night.run(1.85)["status"] == "keep"  # the control: another file
    assert night.verified().failures == []


def test_a_candidate_is_measured_against_what_goes_on_after_a_veto(night: Night) -> None:
    """It was weighed against the keep that a person had taken back already."""
    room = "\n\n\ny = {}\n\n\n\nz = {}\n"
    night.run(1.9, room.format(1, 1))
    night.run(1.5, room.format(2, 1))
    night.home.work.write_text("# true 1.5\nx = 1\n" + room.format(2, 2))
    ask(night, "veto", experiment=3)
    night.bench.run_experiment("on top of what is taken back")
    assert [(row.veto, row.parent, row.rebased) for row in night.rows[3:]] == [(3, 2, None), (None, 4, 3)]
    assert night.bench.source(5) == "# true 1.9\nx = 1\n" + room.format(1, 2)
    assert night.verified().failures == []
    night.run(1.4, room.format(9, 9))
    night.home.work.write_text("# true 1.3\nx = 1\n" + room.format(8, 8))
    ask(night, "veto", experiment=night.rows[-1].id)
    with pytest.raises(Refused, match="vetoed"):  # the same lines: it cannot be told apart from what is taken back
        night.bench.run_experiment("the same lines")


def test_a_pause_holds_up_what_waits_for_its_turn(night: Night) -> None:
    with night.desk.turns.take():
        thread = threading.Thread(target=lambda: night.run(1.9))
        thread.start()
        time.sleep(0.5)
        ask(night, "pause")
    thread.join(1.5)
    assert thread.is_alive()
    assert len(night.rows) == 1
    ask(night, "resume")
    thread.join(10)
    assert len(night.rows) == 2


def test_a_request_that_another_tag_took_in_is_none_of_this_one(night: Night) -> None:
    made = ask(night, "hint", "once")
    night.bench.program()
    with night.loop.ledger.transaction() as db:
        db.execute("UPDATE steers SET tag = 'other'")
    night.loop.recorder.texts._known.clear()
    folder = night.home.tag("t").parent.parent / "asked" / "t"
    (folder / "2.json").write_text(made.model_dump_json())
    assert night.bench.program()["hints"] == []
    assert "not_asked" in [event for event, _ in night.events]
    assert any("no session wrote" in one for one in night.verified().failures)


def test_a_notebook_that_no_session_wrote_does_not_verify(night: Night) -> None:
    night.bench.write_notes("mine")
    assert night.verified().failures == []
    with night.loop.ledger.transaction() as db:
        db.execute("INSERT INTO notebooks (tag, text) VALUES ('other', '{}')")
    assert any("a notebook of other" in one for one in night.verified().failures)
    with night.loop.ledger.transaction() as db:
        db.execute("DELETE FROM notebooks WHERE tag = 'other'")
        db.execute("UPDATE notebooks SET text = 'x'")
    assert any("a malformed notebook of t" in one for one in night.verified().failures)
