"""Datasets by name: fetched once from a stand-in for the hub, offline afterwards, refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.data import datasets
from tests.core.artifacts.hub import COMMIT, serving

REPOS = {
    ("dataset", "someone/stories"): {"train.jsonl": b'{"text": "x"}\n', "README.md": b"# x", "script.py": b"import os"}
}


@pytest.fixture
def bench(tmp_path: Path) -> Home:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    return home


def test_a_dataset_is_fetched_once_and_of_it_text_alone(bench: Home) -> None:
    with serving(REPOS) as address:
        found, told = datasets.fetch(bench, "hf:someone/stories@v1", Stages(), address)
    assert told == f"hf:someone/stories@{COMMIT}"
    assert sorted(path.name for path in found.iterdir()) == [".whole", "train.jsonl"]
    assert datasets.fetch(bench, "hf:someone/stories@v1", Stages()) == (found, told)  # the hub is gone


@pytest.mark.parametrize("name", ["hf:", "hf:x", "hf:a/b/c", "hf:../x", "hf:a/../b", "hf:a/b@../..", "hf:a/b c"])
def test_a_name_that_is_none_is_refused(bench: Home, name: str) -> None:
    with pytest.raises(ArtifactError, match="names no dataset"):
        datasets.fetch(bench, name, Stages())
    assert not (bench.root / "datasets").exists()


def test_one_that_is_not_to_be_had_is_one_line_and_nothing_is_taken_for_whole(bench: Home) -> None:
    with serving(REPOS) as address, pytest.raises(ArtifactError, match="not to be had") as caught:
        datasets.fetch(bench, "hf:someone/other@v1", Stages(), address)
    assert "\n" not in str(caught.value)
    assert not list(bench.root.rglob(".whole"))


def test_a_hub_that_asks_to_wait_is_waited_for(bench: Home) -> None:
    with serving(REPOS, [(429, {"Retry-After": "1"}), (503, {})]) as address:
        found, _ = datasets.fetch(bench, "hf:someone/stories@v1", Stages(), address)
    assert (found / "train.jsonl").is_file()
