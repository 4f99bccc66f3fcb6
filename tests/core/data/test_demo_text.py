"""The demo's language: the same everywhere, large enough, and with something to learn."""

from __future__ import annotations

import hashlib
import random
import re
import zlib
from pathlib import Path

import pytest

from runner.core.artifacts import keys, profiles, store
from runner.core.base.errors import PolicyError
from runner.core.base.home import Home
from runner.core.data import corpus, prepare
from runner.core.data.demo_text import Language

DIGEST = "ac956d67661aa2254b1204a962f0ab5d31f7a6bf4360cde94dc5fdad9919a362"


@pytest.fixture
def bench(tmp_path: Path) -> Home:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    keys.create(home)
    return home


def digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def test_training_text_is_the_same_on_every_machine_and_python() -> None:
    """It was the standard library: 969, 901 or 519 documents by Python's version, under one name."""
    assert digest(list(corpus.demo(b"any").texts())) == DIGEST


def test_no_state_of_python_changes_it() -> None:
    random.seed(1)
    one = list(Language().documents(b"x", 20_000, 500))
    random.seed(2)
    assert list(Language().documents(b"x", 20_000, 500)) == one
    assert list(Language().documents(b"y", 20_000, 500)) != one


def test_what_is_scored_is_the_benchs_own_and_stays_so(bench: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.root.mkdir()
    keys.create(other)
    texts = [next(corpus.demo(keys.secret(home, "demo validation")).val.groups()) for home in (bench, bench, other)]
    assert texts[0] == texts[1]
    assert not set(texts[0]) & set(texts[2])
    assert keys.secret(bench, "demo validation") != keys.secret(bench, "another purpose")


def test_without_its_key_a_bench_has_no_secret(bench: Home) -> None:
    bench.audit_key.unlink()
    with pytest.raises(PolicyError, match="cannot be read"):
        keys.secret(bench, "demo validation")


def test_documents_are_as_long_and_as_many_as_asked_for() -> None:
    texts = list(Language().documents(b"x", 100_000, 500))
    assert all(490 <= len(text) < 700 for text in texts)
    assert 100_000 <= sum(map(len, texts)) < 100_700


def test_there_is_something_to_learn_beyond_letters_and_words() -> None:
    """Agreement, topics and recurring names: shuffled words compress worse, shuffled letters much worse."""
    text = "".join(Language().documents(b"x", 300_000, 4000))
    words = re.findall(r"\S+|\s+", text)
    letters = list(text)
    chance = random.Random(1)
    chance.shuffle(words)
    chance.shuffle(letters)
    sizes = [len(zlib.compress("".join(one).encode(), 9)) for one in (text, words, letters)]
    assert sizes[0] < 0.8 * sizes[1]
    assert sizes[1] < 0.8 * sizes[2]


def test_seconds_of_training_are_signed(bench: Home) -> None:
    version = prepare.prepare(bench, profiles.shipped("demo"), seconds=17)
    assert store.admit(bench, version).predicate.profile["time_budget_s"] == 17
    assert store.admit(bench, prepare.prepare(bench, profiles.shipped("demo"))).predicate.profile["time_budget_s"] == 6
