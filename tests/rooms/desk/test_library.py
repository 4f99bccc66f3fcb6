"""What an agent looks up and writes down: its own text, bounded, and nothing else."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agent.client import Refused
from runner.core.airlock import notebook
from tests.rooms.desk.conftest import Night


def test_an_earlier_file_and_what_it_changed_can_be_looked_up(night: Night) -> None:
    night.run(1.9, "a = 1\n")
    night.run(2.1, "b = 2\n")
    assert night.bench.source(3) == "# true 2.1\nx = 1\nb = 2\n"
    assert night.bench.diff(3)["against"] == 2  # what it was made from
    assert "-a = 1\n+b = 2" in night.bench.diff(3)["diff"]
    assert "+b = 2" in night.bench.diff(3, 1)["diff"]
    assert "a = 1" not in night.bench.diff(3, 1)["diff"]
    assert night.bench.diff(1)["diff"] == ""


@pytest.mark.parametrize("number", [0, 4, -1, 10**9])
def test_an_experiment_that_is_not_there_is_a_reason(night: Night, number: int) -> None:
    for ask in (night.bench.source, night.bench.diff, night.bench.restore):
        with pytest.raises(Refused, match="no_such_experiment"):
            ask(number)


def test_a_diff_without_end_is_cut_and_says_so(night: Night) -> None:
    night.run(2.1, "".join(f"y{n} = {n}\n" for n in range(9000)))
    told = night.bench.diff(2)
    assert (told["cut"], len(told["diff"])) == (True, 60_000)
    assert night.bench.source(2).count("\n") == 9002


def test_what_goes_on_from_an_earlier_experiment_has_it_as_parent(night: Night) -> None:
    night.run(1.9, "a = 1\n")
    night.run(2.1, "b = 2\n")
    assert night.bench.restore(3) == {"ok": True, "parent": 3}
    assert night.home.work.read_text() == night.bench.source(3)
    night.run(1.95, "b = 2\nc = 3\n")
    night.run(1.97)
    assert [row.parent for row in night.rows] == [None, 1, 2, 3, 2]
    assert night.bench.restore() == {"ok": True, "parent": 2}
    assert night.verified().failures == []


def test_notes_and_ideas_are_kept_and_every_row_names_them_as_they_were(night: Night) -> None:
    night.run(2.1)
    night.bench.write_notes("softcap helps\n")
    night.bench.add_idea("a larger batch")
    night.bench.add_idea("no warmup")
    night.run(2.2)
    night.bench.edit_notes("helps", "hurts")
    night.bench.close_idea(1, "drop")
    night.run(2.3)
    assert night.bench.notebook()["notes"] == "softcap hurts\n"
    texts, digests = night.loop.recorder.texts, [row.notebook for row in night.rows]
    assert digests[:2] == [None, None]
    books = [texts.read_notebook(digest) for digest in digests[2:] if digest]
    assert [book.notes for book in books] == ["softcap helps\n", "softcap hurts\n"]
    assert [[idea.text for idea in book.ideas] for book in books] == [["a larger batch", "no warmup"], ["no warmup"]]
    assert night.verified().failures == []


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (lambda b: b.write_notes("x" * (notebook.NOTES_BYTES + 1)), "notes_too_large"),
        (lambda b: b.write_notes("a\u200bb"), "invisible_text"),
        (lambda b: b.edit_notes("nowhere", "x"), "not_once"),
        (lambda b: b.close_idea(7, "done"), "no_such_idea"),
        (lambda b: b.close_idea(1, "won"), "bad_request"),
        (lambda b: b._ask({"verb": "notebook", "tag": "other"}), "bad_request"),
        (lambda b: b._ask({"verb": "diff", "experiment": True}), "bad_request"),
        (lambda b: b._ask({"verb": "write_notes", "text": 7}), "bad_request"),
    ],
)
def test_what_does_not_fit_changes_nothing(night: Night, ask: Callable[[Any], object], reason: str) -> None:
    night.bench.write_notes("as it was")
    with pytest.raises(Refused, match=reason):
        ask(night.bench)
    assert night.bench.notebook()["notes"] == "as it was"


def test_notes_of_the_largest_size_fit_however_they_are_escaped(night: Night) -> None:
    for text in ("x" * notebook.NOTES_BYTES, "\n" * notebook.NOTES_BYTES, "é" * (notebook.NOTES_BYTES // 2)):
        night.bench.write_notes(text)
        assert night.bench.notebook()["notes"] == text


def test_a_request_beyond_the_cap_is_hung_up_on(night: Night) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(night.bench._path)
        sock.settimeout(10)
        try:
            sock.sendall(json.dumps({"verb": "write_notes", "text": "x" * (256 << 10)}).encode() + b"\n")
            assert sock.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert night.bench.notebook()["notes"] == ""


def test_what_an_agent_says_beforehand_is_recorded_and_compared_with_what_came(night: Night) -> None:
    night.run(1.9, hypothesis="more\nsteps", expected=0.05, kind="batch")
    night.run(2.0, expected=0.02)
    night.run(2.5, expected=-0.1)
    said = night.rows[1].proposal
    assert said is not None
    assert (said.hypothesis, said.expected, said.kind) == ("more steps", 0.05, "batch")
    told = night.bench.history()["calibration"]
    assert (told["proposed"], told["kept"], told["foretold"]) == (3, 1, 3)
    assert (told["promised"], told["gained"]) == (2, 1)
    assert told["expected"] == pytest.approx(-0.01)
    assert told["found"] == pytest.approx((0.1 - 0.1 - 0.6) / 3, rel=0.05)


@pytest.mark.parametrize(
    "said", [{"expected": 2}, {"expected": "0.1"}, {"expected": True}, {"kind": "magic"}, {"x": 1}]
)
def test_words_that_do_not_fit_run_nothing(night: Night, said: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="bad_request"):
        night.run(1.9, **said)
    assert len(night.rows) == 1


def test_a_budget_that_is_used_up_before_anything_changed_costs_no_run(night: Night) -> None:
    ran = len((night.home.root / "ran.log").read_text().splitlines())
    night.home.work.write_text("half an edit")
    assert night.bench.pass_over() == {"ok": True, "done": False}
    row = night.rows[-1]
    assert (row.status, row.reason, row.parent) == ("rejected", "nothing_proposed", 1)
    assert row.snapshot == night.rows[0].snapshot
    assert len((night.home.root / "ran.log").read_text().splitlines()) == ran
    assert night.home.work.read_bytes() == night.loop.best_source()
    assert night.verified().failures == []


def test_history_names_baseline_best_and_line_however_many_rows_there_are(night: Night) -> None:
    for number in range(16):
        night.run(1.9 - number / 100)
    for _ in range(5):
        night.run(2.5)
    told = night.bench.history()
    assert told["experiments"] == 22
    assert [row["id"] for row in told["line"]] == [1, *range(6, 18)]
    assert told["facts"]["sequence_length"] == 256
    assert told["facts"]["vocabulary"] == 1024
    assert told["facts"]["device"].startswith("CPU, ")
    assert told["facts"]["training_tokens_m"] > 0


def test_no_verb_tells_a_byte_of_what_trainers_left_behind(night: Night) -> None:
    """Answers of every verb are the same, whatever lies in the folders of the runs they are about."""
    canary = "CANARY-5d1f"
    night.run(1.9, "a = 1\n", expected=0.1, hypothesis="h")
    night.run(None)
    night.bench.write_notes("n")

    def every() -> str:
        asked = [night.bench.history(), night.bench.program(), night.bench.notebook(), night.bench.brief()]
        per = [
            (night.bench.source(n), night.bench.diff(n), night.bench.diff(n, 1), night.bench.telemetry(n))
            for n in (1, 2, 3)
        ]
        return json.dumps([asked, per, night.bench.restore(3), night.bench.restore()])

    before = every()
    for row in night.rows:
        folder = night.home.run(row.run)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("trainer.log", "evaluator.log", "telemetry.jsonl", "score.json", "graph.json", "train.py"):
            (folder / name).write_text(json.dumps({"kind": "loss", "step": 1, "loss": 1.5, "error": canary}) + canary)
    assert every() == before
    assert canary not in before
