"""Where a document goes is told from its words alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.data import splitting

WORDS = st.lists(st.text(alphabet="abcdeäß中", min_size=1, max_size=6), min_size=1, max_size=20)


@given(WORDS, st.sampled_from([" ", "\n", "\t ", "\r\n"]))
def test_white_space_and_capitals_are_no_difference(words: list[str], between: str) -> None:
    assert splitting.key(between.join(words)) == splitting.key("  " + " ".join(words).upper().lower() + "\n")


@given(st.text(max_size=200))
def test_any_text_has_a_side(text: str) -> None:
    assert splitting.side(splitting.key(text), 10_000, holdout=True) in ("train", "val", "holdout")


@pytest.mark.parametrize(("ppm", "holdout"), [(10_000, True), (100_000, False), (400_000, True)])
def test_the_shares_are_those_of_the_profile(ppm: int, holdout: bool) -> None:
    sides = [splitting.side(splitting.key(f"document {n}"), ppm, holdout=holdout) for n in range(20_000)]
    expected, spread = 20_000 * ppm / 1e6, 5 * (20_000 * ppm / 1e6) ** 0.5
    assert abs(sides.count("val") - expected) < spread
    assert abs(sides.count("holdout") - expected * holdout) < spread
    assert holdout or "holdout" not in sides


def test_without_a_holdout_its_documents_are_trained_on_and_validation_is_the_same() -> None:
    for n in range(5000):
        key = splitting.key(f"document {n}")
        with_one, without = (splitting.side(key, 50_000, holdout=holdout) for holdout in (True, False))
        assert (with_one, without) in (("train", "train"), ("val", "val"), ("holdout", "train"))


@pytest.mark.parametrize("weight", [0.001, 0.25, 1.0, 1.5, 3.0])
def test_a_weight_is_how_often_a_document_is_there_on_average(weight: float) -> None:
    counts = [splitting.copies(splitting.key(f"document {n}"), weight) for n in range(20_000)]
    assert sum(counts) / 20_000 == pytest.approx(weight, rel=0.05, abs=0.002)
    assert set(counts) <= {int(weight), int(weight) + 1}


def test_weight_and_side_are_independent() -> None:
    """Else half of a source would be that half of which nothing is scored."""
    keys = [splitting.key(f"document {n}") for n in range(40_000)]
    val = [key for key in keys if splitting.side(key, 100_000, holdout=False) == "val"]
    assert sum(splitting.copies(key, 0.5) for key in val) / len(val) == pytest.approx(0.5, abs=0.05)
