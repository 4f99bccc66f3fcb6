"""`glovebox watch`: a frame for any state and width, and the real command without a terminal."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from runner.core.base.home import Home
from runner.core.base.values import Rerun, Status
from runner.core.evidence import spending
from runner.core.evidence.ledger import Ledger
from runner.core.policy.policy_files import Policies
from runner.people.pages import watch
from runner.people.pages.watch import Running, State
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture
from tests.samples import experiment

Glovebox = Callable[..., tuple[int, str, str]]


def drawn(state: State, width: int, *, unicode: bool = True) -> str:
    out = Console(file=io.StringIO(), width=width, color_system=None)
    out.print(watch.frame(state, width, unicode=unicode))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def state(**changes: Any) -> State:
    base: dict[str, Any] = {
        "tag": "t", "rows": [], "running": [], "cost": None, "budget": 300.0, "dollars": 50.0, "away": None, "gpus": [], "hours": 1.5,
        "leak_bits": 1000.0, "leak_limit": 4000, "leak_left": 12, "paused": False, "works": False, "hints": 0,
    }  # fmt: skip
    rows = changes.get("rows", [])
    keeps = [row.val_bpb for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    return State(**{**base, "count": len(rows), "keeps": keeps, **changes})


def test_a_run_in_progress_shows_its_curve_frontier_results_and_cost() -> None:
    rows = [experiment(n) for n in range(1, 12)]
    now = Running(12, "a bolder idea", 40.0, [(0, 8.0), (10, 4.0)])
    text = drawn(
        state(rows=rows, running=[now], cost={"dollars": 1.25, "tokens": 9, "requests": 3}, gpus=["H100, 90 %"]), 100
    )
    for part in ("experiment 12", "260 s of training left", "a bolder idea", "loss 8.000", "frontier", "$1.25 of $50.00",
                 "H100", "#11", "#4", "1.9900 -> 1.8900"):  # fmt: skip
        assert part in text, part
    assert "#3 " not in text


def test_a_model_that_is_away_is_shown_until_it_is_back(bench: Home, policies: Policies) -> None:
    look = watch.Look(bench, policies, Ledger(bench.ledger, read_only=True), "t")
    assert look.now().away is None
    bench.broker.mkdir(exist_ok=True)
    spending.pause(bench.broker, 3600)
    seen = look.now()
    assert f"away: asked again at {seen.away}" in drawn(seen, 80)
    spending.pause(bench.broker, 0)
    assert look.now().away is None
    spending.pause(bench.broker, 0.0001)  # a broker that died while it waited
    time.sleep(1.1)
    assert look.now().away is None
    for text in ("", "[]", '{"until": 3}', '{"until": "2999-01-01"}', "x" * 9999):
        (bench.broker / "away.json").write_text(text)
        assert look.now().away is None


def test_nothing_yet_and_an_overdue_experiment_are_said_plainly() -> None:
    assert "nothing is running" in drawn(state(), 80)
    late = drawn(state(running=[Running(1, "slow", 400.0, [])]), 80)
    assert "left" not in late
    assert "400 s" in late


WORDS = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=200)


@given(WORDS, st.integers(20, 200), st.sampled_from(list(Status)), st.booleans())
def test_no_line_is_wider_than_the_terminal(words: str, width: int, status: Status, unicode: bool) -> None:
    rows = [experiment(1), experiment(2, status=status, description=words)]
    text = drawn(state(rows=rows, running=[Running(3, words, 3.0, [(0, 2.0), (5, 1.0)])]), width, unicode=unicode)
    from rich.cells import cell_len

    assert all(cell_len(line.rstrip()) <= width for line in text.splitlines())


def test_markup_in_a_description_is_text() -> None:
    assert "[red]x[/red]" in drawn(state(rows=[experiment(1, description="[red]x[/red]")]), 100)


def test_telemetry_in_progress_passes_the_filter(bench: Home, policies: Policies) -> None:
    ledger = Ledger(bench.ledger)
    number = ledger.open_experiment(
        "t", started="2026-01-01T00:00:00+00:00", description="now", snapshot="a" * 64, size=1, run="b" * 16
    )
    folder = bench.run("b" * 16)
    folder.mkdir(parents=True)
    lines = [
        '{"event": "step", "step": 1, "loss": 5.5}',
        '{"event": "step", "step": 2, "loss": "IGNORE"}',
        '{"event": "st',
    ]
    (folder / "telemetry.jsonl").write_text("\n".join(lines))
    seen = watch.Look(bench, policies, Ledger(bench.ledger, read_only=True), "t").now()
    assert [(now.number, now.curve) for now in seen.running] == [(number, [(1, 5.5)])]
    assert "IGNORE" not in repr(seen)


def test_every_lane_is_shown_and_what_is_run_again_for_it(bench: Home, policies: Policies) -> None:
    ledger, started = Ledger(bench.ledger), "2026-01-01T00:00:00+00:00"
    for number, letter in enumerate("bcd", 4):
        ledger.open_experiment(
            "t", started=started, description=f"idea {number}", snapshot="a" * 64, size=1, run=letter * 16
        )
    again = {"tag": "t", "seed": 43, "given": 7, "budget": 9.0, "artifact": "demo-1", "snapshot": "a" * 64}
    for during, run in ((5, "e"), (0, "f")):
        made = Rerun(id=0, experiment=3, during=during, run=run * 16, started=started, status=Status.CRASH, **again)
        ledger.open_rerun(made)
        bench.run(made.run).mkdir(parents=True)
        (bench.run(made.run) / "telemetry.jsonl").write_text('{"event": "step", "step": 1, "loss": 2.5}\n')
    seen = watch.Look(bench, policies, Ledger(bench.ledger, read_only=True), "t").now()
    assert [(now.number, bool(now.rerun), len(now.curve)) for now in seen.running] == [
        (4, False, 0), (5, True, 1), (6, False, 0), (3, True, 1),
    ]  # fmt: skip
    text = drawn(seen, 100)
    for part in ("experiment 4, ", "experiment 5, rerun of experiment 3, seed 43", "idea 5", "experiment 6, "):
        assert part in text, part


def test_the_command_without_a_terminal_prints_plain_text(glovebox: Glovebox, bench: Home) -> None:
    code, out, err = glovebox("watch", "--once")
    assert code == 0, err
    assert "\x1b" not in out
    assert "3 experiments" in out
    document = json.loads(glovebox("watch", "--once", "--json")[1])
    assert (document["tag"], document["experiments"], document["running"]) == ("t", 3, [])
