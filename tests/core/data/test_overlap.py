"""Shards that somebody gives: is what is scored learned, does it say the same over and over?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from runner.core.artifacts.profiles import Profile
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.data import overlap
from runner.core.data.corpus import Corpus, Shard


class Said(Stages):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def shard(name: str, texts: list[str]) -> Shard:
    half = len(texts) // 2
    sha256 = hashlib.sha256(repr(texts).encode()).hexdigest()
    return Shard(name, len(texts), sum(map(len, texts)), sha256, lambda: iter([texts[:half], texts[half:]]))


def texts(kind: str, count: int) -> list[str]:
    return [f"{kind} document {number} of some length" for number in range(count)]


def corpus(val: list[str], train: list[str], holdout: list[str] | None = None) -> Corpus:
    train_shards = [shard("a", train[::2]), shard("b", train[1::2])]
    return Corpus(train_shards, shard("val", val), "here", None if holdout is None else shard("held", holdout))


PROFILE = Profile("upstream", 64, 5, 600, 1000, 4, 300_000, 10_000, holdout_tokens=500)


def check(found: Corpus, said: Said) -> Corpus:
    return overlap.check(found, PROFILE, said)


def test_text_of_its_own_passes_without_a_word_and_that_is_signed() -> None:
    said = Said()
    found = check(corpus(texts("val", 40), texts("train", 100), texts("held", 20)), said)
    assert said.lines == []
    assert found.told == {
        "val_documents_learned": "0 of 40",
        "holdout_documents_learned": "0 of 20",
        "holdout_documents_scored": "0 of 20",
    }


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_text_that_is_trained_on_is_refused(share: float) -> None:
    val = texts("val", 40)
    with pytest.raises(ArtifactError, match=rf"{int(40 * share)} of 40 validation documents are training documents"):
        check(corpus(val, texts("train", 100) + val[: int(40 * share)]), Said())


def test_held_back_text_that_is_trained_on_is_refused() -> None:
    held = texts("held", 20)
    with pytest.raises(ArtifactError, match="20 of 20 held-back documents are training documents"):
        check(corpus(texts("val", 40), texts("train", 100) + held, held), Said())


def test_a_few_that_are_there_twice_are_said_and_signed() -> None:
    """As public corpora have."""
    said, val = Said(), texts("val", 40)
    found = check(corpus(val, texts("train", 100) + val[:2]), said)
    assert said.lines == ["note: 2 of 40 validation documents are training documents"]
    assert found.told["val_documents_learned"] == "2 of 40"


def test_what_is_long_counts_for_what_is_scored() -> None:
    """One document of many may be most of the text."""
    val = [*texts("val", 40), "long " * 10_000]
    with pytest.raises(ArtifactError, match="1 of 41 validation documents are training documents"):
        check(corpus(val, [*texts("train", 100), val[-1]]), Said())


def test_text_that_says_the_same_over_and_over_is_refused_and_twice_is_said() -> None:
    with pytest.raises(ArtifactError, match="1,000 documents to score are 1 different ones: each would count 1000"):
        check(corpus(["the same document"] * 1000, texts("train", 100)), Said())
    said = Said()
    check(corpus(texts("val", 40) * 2, texts("train", 100)), said)
    assert said.lines == ["note: val: 80 documents to score are 40 different ones"]


def test_what_is_scored_is_the_beginning_of_a_shard_however_much_follows() -> None:
    """A third of the documents, none of the scored ones, and 200 before 600 others: every scored row was learned."""
    val = texts("val", 200)
    with pytest.raises(
        ArtifactError, match=r"200 of 800 validation documents are training .* up to 100% of what is sco"
    ):
        check(corpus(val + texts("filler", 600), texts("train", 100) + val), Said())
    check(corpus(texts("filler", 6000) + val, texts("train", 100) + val), Said())  # the control: behind what is scored


def test_text_to_score_that_repeats_itself_first_is_refused_whatever_follows() -> None:
    with pytest.raises(ArtifactError, match="each would count"):
        check(corpus(["the same document"] * 500 + texts("val", 2000), texts("train", 100)), Said())


def test_held_back_text_that_is_validation_text_in_another_order_is_refused() -> None:
    val = texts("val", 40)
    with pytest.raises(ArtifactError, match="40 of 40 held-back documents are validation documents"):
        check(corpus(val, texts("train", 100), val[::-1]), Said())


@pytest.mark.parametrize("change", [str.upper, lambda text: text + "\n", lambda text: "  " + text.replace(" ", "\t ")])
def test_capitals_and_white_space_make_no_other_document(change: Callable[[str], str]) -> None:
    val = texts("val", 40)
    with pytest.raises(ArtifactError, match="40 of 40 validation documents are training documents"):
        check(corpus(val, texts("train", 100) + [change(text) for text in val]), Said())
