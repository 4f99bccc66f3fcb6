"""An artifact in figures: held against texts that are known, counted another way."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from runner.core.artifacts import keys, manifest, store
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.data import own_data, prepare, splitting, statistics
from tests.core.data.test_own_data import TINY, texts
from tests.samples import prepared


def made(folder: Path, documents: list[str]) -> tuple[Home, statistics.Statistics]:
    home = Home(folder / ".glovebox")
    home.root.mkdir()
    keys.create(home)
    (folder / "all.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    source = prepare.Source(data=(own_data.Data(folder / "all.jsonl"),), license="CC0", origin="here")
    version = prepare.prepare(home, TINY, source)
    return home, statistics.of(*store.looked_at(home, version), Stages())


def test_training_text_is_counted_whole(tmp_path: Path) -> None:
    documents = [*texts(600), "é" * 300, "one"]
    home, found = made(tmp_path, documents)
    train = [
        text for text in documents if splitting.side(splitting.key(text), TINY.validation_ppm, holdout=True) == "train"
    ]
    side = found.sides[0]
    assert (side.name, side.begun) == ("train", len(train))
    assert side.text_bytes == sum(len(text.encode()) for text in train)
    arrays = [np.load(path) for path in (home.artifacts / found.version / "train").glob("tokens_*.npy")]
    assert side.tokens == sum(map(len, arrays)) - len(train)  # each begins with a token that stands for no text
    assert side.bytes_per_token == pytest.approx(side.text_bytes / side.tokens)
    assert side.used == len(set(np.concatenate(arrays).tolist())) - 1
    lengths = [
        int(n) - 1 for path in (home.artifacts / found.version / "train").glob("lengths_*.npy") for n in np.load(path)
    ]
    powers = [int(math.log2(max(1, n))) for n in lengths]
    assert list(side.lengths) == [powers.count(at) for at in range(max(powers) + 1)]
    assert (found.provenance["license"], found.provenance["origin"]) == ("CC0", "here")


def test_of_what_is_scored_the_rows_are_counted(tmp_path: Path) -> None:
    home, found = made(tmp_path, texts(600))
    assert [side.name for side in found.sides] == ["train", "val", "holdout"]
    for side, tokens in zip(found.sides[1:], (TINY.eval_tokens, TINY.holdout_tokens), strict=True):
        rows = np.load(home.artifacts / found.version / side.name / "rows.npy")
        begins = int((rows == rows[0, 0]).sum())  # every row begins with the token that documents begin with
        assert side.begun == begins >= len(rows)
        assert side.tokens == tokens - (begins - len(rows))
        assert side.lengths == ()


def test_slices_are_counted_as_the_whole_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, found = made(tmp_path, texts(600))
    monkeypatch.setattr(statistics, "_SLICE", 7)
    again = statistics.of(*store.looked_at(home, found.version), Stages())
    assert again == found


@pytest.mark.parametrize(("length", "power"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (2**30 - 1, 29), (2**30, 30)])
def test_lengths_fall_to_their_power_of_two(length: int, power: int) -> None:
    assert statistics._powers(np.array([length])).tolist() == [power]


def test_an_artifact_without_text_is_named(tmp_path: Path) -> None:
    home = prepared(tmp_path)
    folder = home.artifacts / "kernels-9"
    (folder / "kernels" / "package").mkdir(parents=True)
    (folder / "kernels" / "package" / "file.py").write_text("")
    when = manifest.datetime.now(manifest.UTC)
    signers = keys.signers(home)
    manifest.sign(folder, signers, profile={}, version="kernels-9", serial=9, provenance={}, made=when)
    with pytest.raises(ArtifactError, match="holds no text"):
        statistics.of(*store.looked_at(home, "kernels-9"), Stages())


@pytest.mark.parametrize("kind", ["beyond the vocabulary", "one row", "objects", "no array"])
def test_arrays_that_somebody_else_signed_so_are_named(tmp_path: Path, kind: str) -> None:
    home, found = made(tmp_path, texts(600))
    folder = home.artifacts / found.version
    rows, tokens = folder / "val" / "rows.npy", next((folder / "train").glob("tokens_*.npy"))
    if kind == "beyond the vocabulary":
        np.save(tokens, np.full(50, 60_000, dtype=np.uint16))
    elif kind == "one row":
        np.save(rows, np.zeros(50, dtype=np.uint16))
    elif kind == "objects":
        np.save(rows, np.array([{}, []], dtype=object))
    else:
        rows.write_text("no array")
    statement = store.shown(home, found.version)
    said = statement.predicate
    manifest.sign(
        folder,
        keys.signers(home),
        profile=said.profile,
        version=said.version,
        serial=said.serial,
        provenance={},
        made=manifest.datetime.now(manifest.UTC),
    )
    with pytest.raises(ArtifactError, match="not as ours"):
        statistics.of(*store.looked_at(home, found.version), Stages())
