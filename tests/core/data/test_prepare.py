"""Making an artifact: from shards, from upstream's cache, killed and continued, refused before it starts."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiktoken

from runner.core.artifacts import keys, manifest, profiles, store
from runner.core.base.errors import ArtifactError, BusyError
from runner.core.base.files import hash_file
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.data import corpus, pack, prepare

Glovebox = Callable[..., tuple[int, str, str]]
MADE = str(int(time.time()))  # the same for all of a test's runs
SMALL = profiles.Profile("upstream", 64, 5, 600, 64 * 40, 4, 300_000, 10_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four shards of real text, the last the pinned validation shard."""
    texts = list(corpus.demo(b"").texts())[:600]
    out = tmp_path / "shards"
    out.mkdir()
    for number, name in enumerate(["shard_00000", "shard_00001", "shard_00002", "shard_06542"]):
        table = pa.table({"text": texts[number * 150 : number * 150 + 150]})
        pq.write_table(table, out / f"{name}.parquet", row_group_size=60)
    return out


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    keys.create(home)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", MADE)
    return home


def test_shards_become_a_verified_artifact(bench: Home, folder: Path) -> None:
    version = prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    statement = store.admit(bench, version)
    names = [subject.name for subject in statement.subject]
    assert [n for n in names if n.startswith("train/tokens")] == [f"train/tokens_0000{i}.npy" for i in range(3)]
    assert statement.predicate.provenance["source"] == "parquet shards, validation shard_06542.parquet"
    assert set(prepare.TOOLS) <= set(statement.predicate.provenance)
    assert np.load(bench.store / version / "val" / "rows.npy").shape == (SMALL.eval_rows, SMALL.max_seq_len + 1)
    assert not list(bench.artifacts.glob(".work*"))
    kinds = {path.suffix for path in (bench.artifacts / version).rglob("*") if path.is_file()}
    assert kinds == {".npy", ".json", ".tiktoken"}  # nothing that is unpickled


def test_validation_text_is_in_no_training_file(bench: Home, folder: Path) -> None:
    version = prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    rows = np.load(bench.artifacts / version / "val" / "rows.npy").astype(np.uint16)
    train = b"".join(path.read_bytes() for path in sorted((bench.artifacts / version / "train").glob("tokens*")))
    assert not any(row[8:40].tobytes() in train for row in rows)
    assert np.load(bench.artifacts / version / "train" / "tokens_00001.npy")[50:70].tobytes() in train


def test_upstreams_cache_is_imported_with_its_tokenizer(bench: Home, folder: Path, tmp_path: Path) -> None:
    first = prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    ranks = pack.read_ranks(bench.artifacts / first / "tokenizer" / "ranks.tiktoken")
    cache = tmp_path / "cache"
    (cache / "tokenizer").mkdir(parents=True)
    shutil.copytree(folder, cache / "data")
    specials = {name: len(ranks) + i for i, name in enumerate(profiles.SPECIAL_TOKENS)}
    theirs = tiktoken.Encoding(
        "rustbpe", pat_str=profiles.SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials
    )
    (cache / "tokenizer" / "tokenizer.pkl").write_bytes(pickle.dumps(theirs))
    second = prepare.prepare(bench, SMALL, prepare.Source(upstream_cache=cache))
    assert second == "upstream-2"
    for path in sorted((bench.artifacts / first).rglob("*.npy")):
        assert hash_file(path) == hash_file(bench.artifacts / second / path.relative_to(bench.artifacts / first))
    assert store.admit(bench, second).predicate.provenance["tokenizer"].startswith("upstream's cache, ")


RUN = """
import sys
from pathlib import Path
from runner.core.artifacts import profiles
from runner.core.data import prepare
from runner.core.base.home import Home
from tests.core.data.test_prepare import SMALL
print(prepare.prepare(Home(Path(sys.argv[1])), SMALL, prepare.Source(shards=Path(sys.argv[2]))))
"""


def started(home: Home, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    words = [sys.executable, "-c", RUN, str(home.root), str(folder)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_ten_points_and_continued_it_ends_in_the_same_manifest(
    bench: Home, folder: Path, tmp_path: Path
) -> None:
    other = Home(tmp_path / "other")
    shutil.copytree(bench.root, other.root)
    begun = time.monotonic()
    process = started(bench, folder)
    assert process.wait(120) == 0, process.stderr and process.stderr.read()
    took = time.monotonic() - begun
    chance, killed = random.Random(7), 0
    while killed < 10:
        process = started(other, folder)
        try:
            begun = time.monotonic()
            assert process.wait(chance.uniform(0.2, 1.0) * took) == 0, process.stderr and process.stderr.read()
            took = min(took, time.monotonic() - begun)
            shutil.rmtree(other.artifacts)  # it finished before the kill: once more from the start
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    process = started(other, folder)
    assert process.wait(120) == 0
    ours, theirs = (home.artifacts / "upstream-1" / manifest.NAME for home in (bench, other))
    assert hashlib.sha256(ours.read_bytes()).digest() == hashlib.sha256(theirs.read_bytes()).digest()
    assert store.admit(other, "upstream-1")


def test_what_was_made_before_the_kill_is_not_made_again(
    bench: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    whole = pack.tokenize

    def dies(encoding: object, shard: corpus.Shard, advance: object) -> pack.Arrays:
        if shard.name == "shard_00002.parquet" and len(seen) < 3:
            seen.append("died")
            raise KeyboardInterrupt
        seen.append(shard.name)
        return whole(encoding, shard, advance)  # type: ignore[arg-type]

    monkeypatch.setattr(pack, "tokenize", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    monkeypatch.setattr(pack, "train_tokenizer", lambda *_: pytest.fail("trained again"))
    prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    assert seen == ["shard_00000.parquet", "shard_00001.parquet", "died", "shard_00002.parquet", "shard_06542.parquet"]


def test_other_shards_begin_from_scratch(bench: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "sign", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    monkeypatch.undo()
    (folder / "shard_00002.parquet").unlink()
    version = prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    assert not (bench.artifacts / version / "train" / "tokens_00002.npy").exists()
    assert store.admit(bench, version)


def test_a_disk_that_is_too_small_is_told_before_the_work(
    bench: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(ArtifactError, match="are needed for"):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    assert not (bench.artifacts / ".work-upstream" / "plan.json").exists()


def test_two_at_once_are_refused(bench: Home) -> None:
    from runner.core.base import locks

    with locks.hold(bench.artifacts / ".lock", "prepare"), pytest.raises(BusyError):
        prepare.prepare(bench, profiles.shipped("demo"))


@pytest.mark.parametrize("content", [b"", b"PAR1 no", b"x" * 5000])
def test_a_shard_that_is_not_parquet_is_named(bench: Home, folder: Path, content: bytes) -> None:
    (folder / "shard_00001.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"shard_00001\.parquet"):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))


def test_a_corpus_that_is_too_small_for_the_vocabulary(bench: Home, folder: Path) -> None:
    with pytest.raises(ArtifactError, match="use a larger corpus"):
        prepare.prepare(bench, replace(SMALL, vocab_size=60_000), prepare.Source(shards=folder))


def test_the_command_line_says_what_it_does(glovebox: Glovebox, home: Home) -> None:
    code, out, err = glovebox("prepare", "--profile", "demo", "--json")
    assert code == 0, err
    assert json.loads(out) == {"version": "demo-2"}
    assert "training the tokenizer" in err
    assert json.loads(glovebox("prepare", "--profile", "demo", "--if-missing", "--json")[1]) == {"version": "demo-2"}
    code, _, err = glovebox("prepare", "--from-upstream-cache", "--cache", str(home.root))
    assert code == 4
    assert "upstream's prepare.py" in err or "parquet shards" in err


def test_killed_after_it_was_published_it_is_not_made_again(
    bench: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    monkeypatch.undo()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", MADE)
    assert prepare.prepare(bench, SMALL, prepare.Source(shards=folder)) == "upstream-1"
    assert store.admit(bench, "upstream-1")
    assert not list(bench.artifacts.glob(".work*"))


def test_killed_while_the_manifest_is_written_nothing_extra_is_signed(bench: Home, folder: Path) -> None:
    half = bench.artifacts / ".work-upstream" / "files"
    half.mkdir(parents=True)
    first = prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    (bench.artifacts / first / "manifest.dsse.json.partial").write_text("{")
    arguments = {"profile": {}, "version": first, "serial": 1, "provenance": {}}
    made = manifest.datetime.now(manifest.UTC)
    manifest.sign(bench.artifacts / first, keys.signers(bench), made=made, **arguments)  # type: ignore[arg-type]
    assert store.admit(bench, first)


def test_a_shard_with_other_text_of_the_same_size_is_noticed(
    bench: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "sign", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    monkeypatch.undo()
    before = np.load(bench.artifacts / ".work-upstream" / "files" / "train" / "tokens_00000.npy")
    table = pq.read_table(folder / "shard_00000.parquet")
    pq.write_table(table.take(list(range(table.num_rows))[::-1]), folder / "shard_00000.parquet", row_group_size=60)
    version = prepare.prepare(bench, SMALL, prepare.Source(shards=folder))
    assert not np.array_equal(before, np.load(bench.artifacts / version / "train" / "tokens_00000.npy"))


def test_a_file_name_that_cannot_be_signed_is_refused_before_it_is_published(bench: Home, tmp_path: Path) -> None:
    (tmp_path / "x" / "train").mkdir(parents=True)
    (tmp_path / "x" / "train" / "odd name.npy").write_bytes(b"x")
    made = manifest.datetime.now(manifest.UTC)
    with pytest.raises(ArtifactError, match="malformed statement"):
        manifest.sign(
            tmp_path / "x", keys.signers(bench), profile={}, version="x-1", serial=1, provenance={}, made=made
        )


def write(folder: Path, name: str, texts: list[str | None]) -> None:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / name)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([""], "the validation shard has no text"),
        ([None, "", None], "the validation shard has no text"),
        (["only one short validation document"], "each would count"),
    ],
)
def test_validation_text_that_says_nothing_is_refused(
    bench: Home, folder: Path, texts: list[str | None], said: str
) -> None:
    """An empty one was signed once, and every run was rejected."""
    write(folder, sorted(path.name for path in folder.glob("*.parquet"))[-1], texts)
    with pytest.raises(ArtifactError, match=said):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))


def test_a_validation_shard_that_is_trained_on_is_refused(bench: Home, folder: Path) -> None:
    first, *_, last = sorted(folder.glob("*.parquet"))
    last.write_bytes(first.read_bytes())
    with pytest.raises(ArtifactError, match="is the training shard"):
        prepare.prepare(bench, SMALL, prepare.Source(shards=folder))


def test_what_a_mac_leaves_beside_a_file_is_no_shard_and_capitals_are(bench: Home, folder: Path) -> None:
    (folder / "._shard_00000.parquet").write_bytes(b"\0\5\x16\7")
    for path in sorted(folder.glob("shard*.parquet")):
        path.rename(path.with_suffix(".PARQUET"))
    assert prepare.prepare(bench, SMALL, prepare.Source(shards=folder)) == "upstream-1"


def test_a_holdout_that_is_trained_on_is_refused_and_one_is_held_back(bench: Home, folder: Path) -> None:
    held = replace(SMALL, holdout_tokens=64 * 8)
    version = prepare.prepare(bench, held, prepare.Source(shards=folder))
    names = [path.name for path in (bench.artifacts / version / "train").glob("tokens*")]
    assert sorted(names) == ["tokens_00000.npy", "tokens_00001.npy"]  # the last of three is held back
    assert np.load(bench.artifacts / version / "holdout" / "rows.npy").shape == (8, 65)
    (folder / "shard_00002.parquet").write_bytes((folder / "shard_00000.parquet").read_bytes())
    with pytest.raises(ArtifactError, match="is the training shard"):
        prepare.prepare(bench, held, prepare.Source(shards=folder))


def test_one_shard_is_too_few_to_hold_one_back_and_is_not_downloaded(bench: Home) -> None:
    held = replace(SMALL, holdout_tokens=64 * 8)
    with pytest.raises(ArtifactError, match="holds a shard back"):
        prepare.prepare(bench, held, prepare.Source(count=1, mirror="http://127.0.0.1:9/none"))


@pytest.mark.parametrize("name", ["upstream", "demo"])
def test_validation_text_that_is_trained_on_is_refused_from_shards(bench: Home, folder: Path, name: str) -> None:
    """Not the same file, but every document of it."""
    first, *_, last = sorted(folder.glob("*.parquet"))
    texts = pq.read_table(first)["text"].to_pylist()
    write(folder, last.name, texts[::-1])
    with pytest.raises(ArtifactError, match="150 of 150 validation documents are training documents"):
        prepare.prepare(bench, replace(SMALL, name=name), prepare.Source(shards=folder))
    assert not list(bench.artifacts.glob(f"{name}-*"))
