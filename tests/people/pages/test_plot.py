"""The frontier as a picture: what is drawn, and for which width."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from runner.core.base.values import Experiment, Status
from runner.core.findings.analysis import Tally
from runner.people.pages import plot
from runner.people.pages.report import _below
from tests.samples import experiment


def rows() -> list[Experiment]:
    discard, crash = {"status": Status.DISCARD}, {"status": Status.CRASH, "val_bpb": None}
    return [
        experiment(1, val_bpb=1.0),
        experiment(2, val_bpb=0.9),
        experiment(3, val_bpb=0.95, **discard),
        experiment(4, val_bpb=0.85, **discard),
        experiment(5, **crash),
        experiment(6, **crash),
    ]


def marks(text: str, colour: str) -> int:
    """How many marks of a colour the picture has, its legend's among them."""
    return len(re.findall(rf"<use [^>]*{re.escape(colour)}", text))


def test_runs_without_a_score_are_on_the_picture() -> None:
    """A night of crashes looked like a night of nothing."""
    assert marks(plot.frontier(rows()[:4]), "var(--bad)") == 0
    assert marks(plot.frontier(rows()), "var(--bad)") == 2 + 1


def test_a_long_night_has_as_many_marks_as_can_be_told_apart() -> None:
    """The line goes through every keep; what is labelled has a mark, and so has the newest."""
    many = [experiment(n, val_bpb=2.0 - n / 1e4, gain=1e-4) for n in range(1, 2001)]
    many[700] = many[700].model_copy(update={"gain": 0.5})
    text = plot.frontier(many)
    assert plot.MAX_MARKS <= marks(text, "var(--good)") <= plot.MAX_MARKS + plot.MAX_LABELS + 1
    across = [float(x) for x in re.findall(r'<use [^>]*x="([0-9.]+)"[^>]*var\(--good\)', text)]
    places = {round((x - min(across)) / (max(across) - min(across)) * 1999) for x in across}
    assert {0, 700, 1999} <= places
    assert marks(plot.frontier(many[:300]), "var(--good)") == 300 + 1


def test_they_do_not_move_the_scale_and_stand_below_all_scores() -> None:
    text = plot.frontier(rows())
    heights = {
        c: [float(y) for y in re.findall(rf'<use [^>]*y="([0-9.]+)"[^>]*{re.escape(c)}', text)]
        for c in ("var(--bad)", "var(--good)")
    }
    assert min(heights["var(--bad)"][:2]) > max(heights["var(--good)"][:2])  # y grows downwards
    assert max(heights["var(--good)"][:2]) - min(heights["var(--good)"][:2]) > 60  # of 360 points


def test_one_for_a_phone_is_narrow_and_has_no_descriptions() -> None:
    wide, narrow = plot.frontier(rows()), plot.frontier(rows(), narrow=True)
    sizes = [
        [float(x) for x in re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', text).groups()] for text in (wide, narrow)
    ]  # type: ignore[union-attr]
    assert sizes[1][0] < 320 < sizes[0][0]
    assert len(narrow) < len(wide)
    assert plot.frontier([], narrow=True) == ""


def test_discards_below_the_line_are_named() -> None:
    """People took them for a mistake: a lower score that was not kept."""
    assert _below(rows()) == [4]
    assert _below(rows()[:3]) == []


def at(minutes: list[float], seconds: float = 300.0) -> list[Experiment]:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        experiment(number, started=(began + timedelta(minutes=one)).isoformat(), seconds=seconds)
        for number, one in enumerate(minutes, 1)
    ]


def test_the_picture_says_when_it_was() -> None:
    night = at([6.0 * number for number in range(100)])
    assert plot.times(night) == {21: "2 h", 41: "4 h", 61: "6 h", 81: "8 h"}
    assert plot.times(at([0, 2, 4], 60)) == {1: "1 min", 2: "3 min", 3: "5 min"} | {2: "3 min"}
    assert plot.frontier(night).count("<svg") == 1


def test_a_pause_is_one_step_and_a_clock_that_jumps_back_changes_no_order() -> None:
    """A tag that went on after a week: all days of the pause end at the experiment after it."""
    paused = plot.times(at([0, 6, 12, 7 * 24 * 60, 7 * 24 * 60 + 6]))
    assert list(paused) == [4]
    assert paused[4].endswith(" h")
    back = plot.times(at([0, 60, 10, 70]))
    assert list(back) == sorted(back)


@pytest.mark.parametrize("started", ["", "yesterday", "2026-01-01T00:00:00", "9999-12-31T23:59:59+00:00"])
def test_a_row_that_does_not_say_when_it_began_takes_the_times_off_and_nothing_else(started: str) -> None:
    some = at([0, 6, 12])
    some[1] = some[1].model_copy(update={"started": started})
    assert len(plot.times(some)) <= 60
    assert plot.frontier(some).startswith("<svg")


def test_a_picture_to_show_around_is_a_png_on_white() -> None:
    made = plot.png(rows(), 0.01)
    assert made.startswith(b"\x89PNG\r\n")
    width, height = (int.from_bytes(made[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (1500, 750)
    assert plot.png([]) == plot.png([experiment(1, val_bpb=None, status=Status.CRASH)]) == b""


def test_loss_curves_are_of_what_was_kept_the_baseline_and_the_best_named() -> None:
    curve = [(0, 3.0), (10, 2.0)]
    kept = [experiment(n, curve=curve) for n in (1, 2, 3)]
    text = plot.losses(kept)
    assert "var(--good)" in text
    assert "#5f6368" not in text  # the page's own colour, light or dark
    assert text.count("<svg") == 1
    assert plot.losses([]) == plot.losses(kept[:1]) == plot.losses([experiment(n, curve=[]) for n in (1, 2)]) == ""


def test_kinds_of_edits_are_bars() -> None:
    tallies = {"optimizer": Tally(tried=4, kept=1, failed=0, best_gain=0.1)}
    assert "<svg" in plot.kinds(tallies)
    assert plot.kinds({}) == ""
