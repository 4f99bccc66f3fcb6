"""What the model is told: bounded, and a function of typed records alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent import context
from runner.core.airlock import telemetry_file as filter_
from runner.core.airlock.description import clean
from runner.core.airlock.notebook import Notebook
from runner.core.base.values import Crash, Experiment, Status, Telemetry
from runner.core.policy.policy_files import Policies
from tests.samples import experiment

FIELDS = {"id", "status", "val_bpb", "claimed", "description", "snapshot_size", "reason", "crash"}


def brief(policies: Policies) -> dict[str, Any]:
    return {"tag": "night", **policies.agent.model_dump(mode="json")}


def history(rows: list[Experiment], left: int | None = None) -> dict[str, Any]:
    shown = [row.model_dump(mode="json", include=FIELDS) for row in rows]
    budget = {"night": {"dollars": 12.345, "requests": 100.0, "tokens": 1.0, "seconds": 60.0}}
    kept = [row for row in shown if row["status"] == "keep"]
    line = kept[:1] + kept[1:][-12:]
    return {"rows": shown, "line": line, "experiments": len(rows), "experiments_left": left, "budget": budget}


def opened(policies: Policies, rows: list[Experiment], source: str = "x\n", left: int | None = None) -> str:
    """An opening with nothing in the notebook, as one text."""
    told = history(rows, left)
    return "\n\n".join(context.opening(brief(policies), told, Notebook().model_dump(mode="json"), [], source))


def some(number: int) -> Experiment:
    kinds = (Status.KEEP, Status.DISCARD, Status.DISCARD, Status.CRASH, Status.NON_CAUSAL)
    status = kinds[number % len(kinds)]
    crash = Crash(error="ValueError", line=7) if status is Status.CRASH else None
    scored = status in (Status.KEEP, Status.DISCARD)
    return experiment(
        number,
        status=status,
        crash=crash,
        reason="exception" if crash else None,
        val_bpb=2 - number / 1e4 if scored else None,
        claimed=(0.001 if status is Status.KEEP else -number / 1e3) if scored else None,
        description="d" * 200,
    )


def test_the_first_opening_asks_for_a_change_not_for_the_baseline(policies: Policies) -> None:
    told = opened(policies, [some(1)], "x = 1\n")
    assert "Propose and run the next experiment." in told
    assert "x = 1" in told


def test_records_are_told_as_frontier_recent_near_misses_and_dead_ends(policies: Policies) -> None:
    rows = [some(n) for n in range(1, 60)]
    told = opened(policies, rows, left=7)
    for words in ("Kept line", "Most recent", "Near misses", "Dead ends", "experiments left: 7", "$12.35"):
        assert words in told, words
    best = [row for row in rows if row.status is Status.KEEP][-1]
    assert f"best val_bpb: {best.val_bpb:.6f} (experiment {best.id}" in told
    assert "ValueError in line 7" in told


def test_a_night_of_any_length_fits(policies: Policies) -> None:
    source = "x = 1\n" * 100_000
    sizes = [len(opened(policies, [some(n) for n in range(1, count)], source)) for count in (80, 400, 2000)]
    assert max(sizes) - min(sizes) < 200  # the numbers get longer, nothing else does
    assert max(sizes) < policies.agent.context_chars / 4
    assert "view shows the rest" in opened(policies, [], source)


WORDS = st.text(max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, min_size=2, max_size=6), st.sampled_from(["x", "loss", "crash", "summary", "not_exportable"]))
def test_whatever_a_trainer_writes_equal_records_make_equal_requests(
    tmp_path_factory: Any, policies: Policies, words: list[str], kind: str
) -> None:
    """Two trainers say different things; where the filter makes equal records of it, the model is told the same."""
    told: dict[str, str] = {}
    ours = opened(policies, [some(3)]) + policies.errors.model_dump_json()
    ours += json.dumps(Telemetry().model_dump(mode="json"))
    for word in words:
        path: Path = tmp_path_factory.mktemp("run") / "telemetry.jsonl"
        lines = [
            {"kind": kind, kind: word, "error": word, "reason": word, "line": 3},
            {word: word},
            {"step": 1, "loss": word},
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + word)
        passed = filter_.read(path, policies.metrics, policies.errors)
        row = some(3).model_copy(
            update={"crash": passed.crash, "reason": passed.not_exportable, "curve": passed.telemetry.curve}
        )
        record = json.dumps(
            [row.model_dump(mode="json"), passed.telemetry.model_dump(mode="json", exclude={"dropped_lines"})]
        )
        opening = opened(policies, [row])
        assert told.setdefault(record, opening) == opening
        shown = json.dumps(Telemetry().model_dump(mode="json")) + opening
        assert len(word.strip()) < 8 or word in ours or word not in shown  # hypothesis tries words of our own too
    assert len(told) >= 1


@given(st.text(max_size=400))
def test_a_description_is_one_bounded_line_in_the_records(text: str) -> None:
    row = some(1).model_copy(update={"description": clean(text, 200)})
    told = context.line(row.model_dump(mode="json", include=FIELDS))
    assert len(told.splitlines()) <= 1
    assert len(told) < 400
