"""People's own text: every kind of file, mixed, split, and refused with what to do."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.artifacts import keys, profiles, store
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.home import Home
from runner.core.data import heaps, near_duplicates, own_data, pack, prepare, shards, splitting
from runner.core.data.own_data import Data
from runner.core.data.scored_text import Kept
from runner.core.data.shard_reader import MAX_TEXT

TINY = profiles.Profile("mine", 32, 5, 300, 32 * 16, 4, 100_000, 10_000, holdout_tokens=32 * 8, validation_ppm=100_000)
ROOMY = replace(TINY, eval_tokens=32 * 400, holdout_tokens=32 * 400)  # nothing of what may be scored is left out


class Told(Stages):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def texts(count: int = 400, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 7))) for _ in range(200)]
    return [" ".join(chance.choices(words, k=chance.randint(10, 60))) for _ in range(count)]


def packed(data: bytes, how: str) -> bytes:
    return gzip.compress(data) if how == "gz" else pa.compress(data, codec="zstd", asbytes=True) if how else data


def write(folder: Path, name: str, documents: list[str]) -> Path:
    """Documents as the name says."""
    folder.mkdir(parents=True, exist_ok=True)
    path, how = folder / name, name.rsplit(".", 1)[-1] if name.endswith((".gz", ".zst")) else ""
    if ".jsonl" in name:
        path.write_bytes(packed("".join(json.dumps({"text": t}) + "\n" for t in documents).encode(), how))
    elif ".txt" in name:
        path.write_bytes(packed("<|endoftext|>".join(documents).encode(), how))
    else:
        pq.write_table(pa.table({"text": documents}), path, row_group_size=50)
    return path


def made(
    tmp_path: Path,
    *sources: Data,
    profile: profiles.Profile = ROOMY,
    stages: Stages | None = None,
    ppm: int | None = None,
):
    profile = profile if ppm is None else replace(profile, validation_ppm=ppm)
    return own_data.corpus(sources, profile, "text", tmp_path / "heaps", stages or Stages())


def all_of(shards_: list) -> list[str]:
    return [text for shard in shards_ for group in shard.groups() for text in group]


@pytest.mark.parametrize(
    "name",
    ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.txt", "a.txt.gz", "a.txt.zst"],
)
def test_every_kind_of_file_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    documents = texts()
    found = made(tmp_path, Data(write(tmp_path / "in", name, documents)))
    every = all_of(found.train) + all_of([found.val]) + all_of([found.holdout])
    assert sorted(every) == sorted(documents)
    assert found.told["train_documents"] == str(len(all_of(found.train)))


def test_no_document_is_on_two_sides_however_often_it_is_there(tmp_path: Path) -> None:
    documents = texts()
    write(tmp_path / "in", "a.jsonl", documents)
    write(tmp_path / "in" / "deeper", "b.parquet", [f"  {text.upper()}\n" for text in documents])
    found = made(tmp_path, Data(tmp_path / "in"))
    sides = [{splitting.key(text) for text in all_of(part)} for part in (found.train, [found.val], [found.holdout])]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert len(all_of([found.val])) == len(sides[1])  # what is scored is scored once
    assert "repeated" in found.told["validation_documents"]


def test_sources_are_mixed_and_the_same_files_give_the_same_shards(tmp_path: Path) -> None:
    one = write(tmp_path / "in", "a.jsonl", [f"one {t}" for t in texts(300, 1)])
    two = write(tmp_path / "in", "b.jsonl", [f"two {t}" for t in texts(300, 2)])
    found, again = (made(tmp_path / str(n), Data(one), Data(two)) for n in range(2) if not (tmp_path / str(n)).mkdir())
    order = [text[:3] for text in all_of(found.train)]
    assert sum(a != b for a, b in itertools.pairwise(order)) > 100  # 0 or 1 if one came after the other
    assert [s.sha256 for s in found.train] == [s.sha256 for s in again.train]
    assert all_of(found.train) == all_of(again.train)


def test_a_weight_repeats_documents_apart_from_each_other_and_scores_them_once(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.jsonl", texts())
    once = made(tmp_path, Data(path))
    once_texts = all_of(once.train)
    thrice = made(tmp_path, Data(path, 3.0))
    repeated = all_of(thrice.train)
    assert len(repeated) == 3 * len(set(repeated))
    assert sum(a == b for a, b in itertools.pairwise(repeated)) < len(repeated) // 20
    assert sorted(set(repeated)) == sorted(once_texts)
    assert all_of([thrice.val]) == all_of([once.val])
    half = made(tmp_path, Data(path, 0.5))
    assert 0.3 * len(once_texts) < len(all_of(half.train)) < 0.7 * len(once_texts)


@pytest.mark.parametrize(
    ("given", "path", "weight"),
    [("a.jsonl", "a.jsonl", 1.0), ("a:0.5", "a", 0.5), ("x:y:2", "x:y", 2.0), ("hf:a/b", "hf:a/b", 1.0), ("hf:a/b@v:3", "hf:a/b@v", 3.0)],
)  # fmt: skip
def test_a_weight_stands_behind_a_colon(given: str, path: str, weight: float) -> None:
    assert own_data.named(given) == Data(Path(path), weight)


def test_a_file_whose_name_ends_like_a_weight_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:2").write_text("x")
    assert own_data.named("a:2") == Data(Path("a:2"))


@pytest.mark.parametrize("given", ["", "a:0", "a:-1", "a:1000", "a:nan", "a:inf", "a:many"])
def test_a_weight_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        own_data.named(given)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"story": "x", "id": 1}\n', r"line 1: no column 'text' of plain text; it has: story, id"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', r"line 2: no column 'text' of plain text; it has: text \(int\)"),
        ("a.jsonl", b'{"text": "x"}\nnot json\n', "line 2: no JSON object"),
        ("a.jsonl", b'["x"]\n', "line 1: no JSON object"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "document 1 is not UTF-8"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1: no JSON object"),
        ("a.jsonl", b"[" * 100_000, "line 1: no JSON object"),
        ("a.jsonl.gz", b"no gzip", "no jsonl.gz file"),
        ("a.jsonl.zst", b"(\xb5/\xfd rubbish", "no jsonl.zst file"),
        ("a.txt", b"\xff\xfe text", "not UTF-8"),
        ("a.parquet", b"PAR1", "no parquet file"),
        ("a.csv", b"text\nx\n", "no kind of file that is read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=told):
        made(tmp_path, Data(tmp_path / name))


def test_nulls_empty_lines_and_a_windows_mark_are_no_fault(tmp_path: Path) -> None:
    documents = texts(300)
    lines = "".join(json.dumps({"text": text}) + "\r\n\r\n" for text in documents) + '{"text": null}\n{"text": ""}'
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found = made(tmp_path, Data(tmp_path / "a.jsonl"))
    assert sorted(all_of([*found.train, found.val, found.holdout])) == sorted(documents)


@given(st.permutations(range(60)), st.integers(1, 40))
def test_what_may_be_scored_is_the_same_whatever_came_first(order: list[int], parts: int) -> None:
    """A few long documents among short ones: which were kept depended on when they came."""
    documents = [(splitting.key(f"document {n}").order, "x" * (50 + 400 * (n % 7 == 0) + n)) for n in range(60)]
    most = sum(len(text) for _, text in documents) // parts
    found, again = (Kept(most) for _ in range(2))
    for kept, numbers in ((found, range(60)), (again, order)):
        for n in numbers:
            kept.add(*documents[n])
        kept.settle()
    assert found.texts == again.texts
    assert found.texts == dict(sorted(documents)[: len(found.texts)])  # the first of them, none left out between


def test_one_long_document_does_not_empty_what_is_scored() -> None:
    kept = Kept(100_000)
    for n in range(1000):
        kept.add(n + 1, "short " * 50)
    kept.add(0, "long " * 100_000)
    kept.settle()
    assert len(kept.texts) > 200
    assert len(kept.texts[0]) <= 2000  # its beginning


def test_a_book_is_enough_for_a_profile(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n\n".join(texts(60_000, 8)))
    found = made(tmp_path, Data(tmp_path / "book.txt"), profile=profiles.shipped("demo"), ppm=200_000)
    assert found.val.documents
    assert found.holdout.documents


def test_copies_are_counted_whatever_came_between(tmp_path: Path) -> None:
    documents = texts(2000)
    write(tmp_path / "in", "a.jsonl", documents)
    write(tmp_path / "in", "b.jsonl", documents)
    found = made(tmp_path, Data(tmp_path / "in"))
    kept, _, seen, _, repeated, _ = found.told["validation_documents"].replace(",", "").split()
    assert (int(kept), int(seen)) == (int(repeated), 2 * int(repeated))


def test_of_two_spellings_of_one_document_it_is_the_same_whichever_came_first(tmp_path: Path) -> None:
    one = Data(write(tmp_path / "in", "a.jsonl", texts()))
    two = Data(write(tmp_path / "in", "b.jsonl", [f" {text.upper()}" for text in texts()]))
    assert made(tmp_path, one, two).val.sha256 == made(tmp_path, two, one).val.sha256


def test_a_mark_at_the_beginning_of_a_text_makes_no_other_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfsome words of a document")
    form = shards.form(tmp_path / "a.txt")
    assert form is not None
    assert [*shards.groups(tmp_path / "a.txt", form)] == [["some words of a document"]]


def test_two_sources_in_either_order_score_the_same(tmp_path: Path) -> None:
    one, two = (Data(write(tmp_path / "in", f"{n}.jsonl", texts(1500, n))) for n in (1, 2))
    found, again = made(tmp_path, one, two, profile=TINY), made(tmp_path, two, one, profile=TINY)
    assert (found.val.sha256, found.holdout.sha256) == (again.val.sha256, again.holdout.sha256)


def test_another_edition_of_a_long_text_is_cut_at_the_same_places(tmp_path: Path) -> None:
    """Cut by length alone every piece of it was another document, on whatever side."""
    paragraphs = texts(60_000, 9)
    (tmp_path / "one.txt").write_text("\n\n".join(paragraphs))
    (tmp_path / "two.txt").write_text("\n\n".join([*texts(300, 10), *paragraphs]))
    form = shards.form(tmp_path / "one.txt")
    assert form is not None
    one, two = ({t for group in shards.groups(tmp_path / f"{n}.txt", form) for t in group} for n in ("one", "two"))
    assert len(one & two) >= len(one) // 2


def test_a_file_that_is_written_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "in", "a.jsonl", texts())
    real = shards.groups

    def slow(*arguments):
        yield from real(*arguments)
        with path.open("a") as file:
            file.write('{"text": "more"}\n')

    monkeypatch.setattr(shards, "groups", slow)
    with pytest.raises(ArtifactError, match="changed while it was read"):
        made(tmp_path, Data(path))


def test_a_disk_that_fills_up_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "in", "a.jsonl", texts())
    monkeypatch.setattr(heaps, "LOOK_EVERY", 100)
    monkeypatch.setattr(heaps, "DISK_LEFT", 1 << 60)
    with pytest.raises(ArtifactError, match="the disk is full but for"):
        made(tmp_path, Data(path))


def test_a_name_that_is_not_utf8_and_what_is_no_file_stop_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.jsonl", texts())
    os.rename(folder / "a.jsonl", os.fsencode(folder) + b"/\xff.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    assert made(tmp_path, Data(folder)).train


@pytest.mark.parametrize("words", ["x" * 1001, "half a \ud800 character"])
def test_words_that_cannot_be_signed_are_refused_before_the_work(tmp_path: Path, words: str) -> None:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    keys.create(home)
    with pytest.raises(ArtifactError, match="1000 characters, or not UTF-8"):
        prepare.prepare(home, TINY, prepare.Source(data=(Data(tmp_path),), license=words))


def test_a_million_blanks_in_a_row_are_tokenized(tmp_path: Path) -> None:
    """The split pattern's engine ran out of stack, which no one can catch by name."""
    documents = ["a" + blank * 1_000_000 + "b" for blank in (" ", "\t", "\u00a0")]
    path = write(tmp_path / "in", "a.jsonl", [*documents, *texts(3000)])
    found = made(tmp_path, Data(path))
    pack.build(found, TINY, tmp_path / "files", Stages())
    assert (tmp_path / "files" / "tokenizer" / "tokenizer.json").exists()


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.jsonl", texts())
    (folder / "b.csv").write_text("x")
    (folder / ".hidden.jsonl").write_text("not json")
    (folder / "link.jsonl").symlink_to("/etc/passwd")
    (folder / "linked").symlink_to("/etc")
    stages = Told()
    made(tmp_path, Data(folder), stages=stages)
    (note,) = [line for line in stages.said if "left out" in line]
    assert "1 .csv" in note
    assert "1 links" in note


@pytest.mark.parametrize("empty", [True, False])
def test_a_place_without_documents_is_refused(tmp_path: Path, empty: bool) -> None:
    place = tmp_path / "in"
    if empty:
        place.mkdir()
    with pytest.raises(ArtifactError, match="no file of documents" if empty else "is not there"):
        made(tmp_path, Data(place))


def test_too_few_documents_are_refused_and_no_heap_is_left(tmp_path: Path) -> None:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    keys.create(home)
    path = write(tmp_path / "in", "a.jsonl", ["only one"])
    with pytest.raises(ArtifactError, match="too few documents"):
        prepare.prepare(home, TINY, prepare.Source(data=(Data(path),)))
    assert not list(home.artifacts.glob(".work*"))


def test_a_bomb_is_cut_off(tmp_path: Path) -> None:
    """Two gigabytes of one letter in 70 KB."""
    with pa.CompressedOutputStream(pa.OSFile(str(tmp_path / "a.txt.zst"), "wb"), "zstd") as out:
        for _ in range(1024):
            out.write(b"a" * (1 << 20))
    with pytest.raises(ArtifactError, match="more text"):
        made(tmp_path, Data(tmp_path / "a.txt.zst"))


def test_a_long_text_is_cut_between_paragraphs_and_no_word_is_lost(tmp_path: Path) -> None:
    paragraphs = texts(30_000, 3)
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    form = shards.form(tmp_path / "a.txt")
    assert form is not None
    pieces = [text for group in shards.groups(tmp_path / "a.txt", form) for text in group]
    assert len(pieces) > 3
    assert all(len(piece.encode()) <= MAX_TEXT for piece in pieces)
    assert [p for piece in pieces for p in piece.split("\n\n")] == paragraphs


def test_text_without_a_space_is_cut_within_no_character(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("中" * (MAX_TEXT + 1))
    form = shards.form(tmp_path / "a.txt")
    assert form is not None
    pieces = [text for group in shards.groups(tmp_path / "a.txt", form) for text in group]
    assert "".join(pieces) == "中" * (MAX_TEXT + 1)


def test_an_artifact_of_own_data_is_signed_with_where_it_came_from_and_has_a_holdout(tmp_path: Path) -> None:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    keys.create(home)
    path = write(tmp_path / "in", "a.jsonl", texts(3000))
    source = prepare.Source(data=(Data(path, 1.5),), license="CC0", origin="made up")
    version = prepare.prepare(home, TINY, source)
    statement = store.admit(home, version)
    told = statement.predicate.provenance
    assert (told["license"], told["origin"], told["sources"]) == ("CC0", "made up", "a.jsonl x 1.5")
    assert told["holdout_sha256"] != told["validation_sha256"]
    val, holdout = (np.load(home.store / version / part / "rows.npy") for part in ("val", "holdout"))
    assert (val.shape, holdout.shape) == ((16, 33), (8, 33))
    assert not {row.tobytes() for row in val} & {row.tobytes() for row in holdout}
    assert not list(home.artifacts.glob(".work*"))


def test_a_profile_without_a_holdout_has_none(tmp_path: Path) -> None:
    home = Home(tmp_path / "bench")
    home.root.mkdir()
    keys.create(home)
    path = write(tmp_path / "in", "a.jsonl", texts(3000))
    without = profiles.Profile("mine", 32, 5, 300, 32 * 16, 4, 100_000, 10_000, validation_ppm=100_000)
    version = prepare.prepare(home, without, prepare.Source(data=(Data(path),)))
    assert not (home.artifacts / version / "holdout").exists()
    assert "holdout_sha256" not in store.admit(home, version).predicate.provenance


@pytest.mark.parametrize("size", [1000, 4000, 40_000])
@pytest.mark.parametrize("spaced", [True, False], ids=["words", "no blanks"])
def test_near_duplicates_are_found_at_any_length_in_any_script(size: int, spaced: bool) -> None:
    chance = random.Random(4)
    letters = "abcdefghijklmnop" if spaced else "的一是不了人我在有他这中大来上国"

    def document() -> str:
        words = ("".join(chance.choices(letters, k=chance.randint(2, 7))) for _ in range(size // 5))
        return (" " if spaced else "").join(words)[:size]

    scored = [document() for _ in range(20)]
    changed = [text[: size // 2] + "x" + text[size // 2 + 1 :] for text in scored]
    assert near_duplicates.share(scored, changed[:10]) == pytest.approx(0.5, abs=0.15)
    assert near_duplicates.share(scored, [document() for _ in range(50)]) == 0
    assert near_duplicates.share([], ["x"]) == 0


def test_near_duplicates_are_said_before_the_work(tmp_path: Path) -> None:
    documents = [f"{text} {text} {text}" for text in texts(400, 7)]
    write(tmp_path / "in", "a.jsonl", documents)
    write(tmp_path / "in", "b.jsonl", [f"{text} indeed" for text in documents])
    stages = Told()
    found = made(tmp_path, Data(tmp_path / "in"), stages=stages)
    assert any("nearly a training document" in line for line in stages.said)
    assert float(found.told["near_duplicates"].split()[0]) > 0.5


def test_what_pack_reads_is_what_the_heaps_say(tmp_path: Path) -> None:
    """The heaps pass through the tokenizer as any shard does."""
    found = made(tmp_path, Data(write(tmp_path / "in", "a.jsonl", texts(3000))))
    pack.build(found, TINY, tmp_path / "files", Stages())
    lengths = np.load(tmp_path / "files" / "train" / "lengths_00000.npy")
    assert len(lengths) == sum(shard.documents for shard in found.train)
