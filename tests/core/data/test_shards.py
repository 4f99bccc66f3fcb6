"""Parquet shards, honest and hostile: a file that decodes to more than it should costs a message, not the machine."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runner.core.base.errors import ArtifactError
from runner.core.base.mountable import SOURCE
from runner.core.data import confine, shards


def wrote(path: Path, texts: list[str | None], rows: int = 100, **options: object) -> Path:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path, row_group_size=rows, **options)
    return path


def test_documents_come_in_their_groups(tmp_path: Path) -> None:
    texts = [f"text {n} \u00e9\u4e2d" * (n % 7) for n in range(250)]
    path = wrote(tmp_path / "a.parquet", [*texts, None])
    assert shards.describe(path).documents == 251
    found = [*shards.groups(path)]
    assert [len(group) for group in found] == [100, 100, 51]
    assert [text for group in found for text in group] == [*texts, ""]
    assert [*shards.groups(path)] == found


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_every_usual_kind_of_shard_is_read(tmp_path: Path, compression: str, kind: pa.DataType) -> None:
    table = pa.table({"id": [1, 2], "text": pa.array(["a", "b"]).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet", compression=compression)
    assert [*shards.groups(tmp_path / "a.parquet")] == [["a", "b"]]


def bomb(path: Path, value: int, rows: int) -> Path:
    """Few bytes that stand for rows x value: one value in a dictionary, repeated."""
    column = pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array(["lorem ipsum " * (value // 12)])
    )
    options = {"use_dictionary": True, "dictionary_pagesize_limit": 1 << 30, "row_group_size": 1 << 20}
    pq.write_table(pa.table({"text": column}), path, compression="zstd", store_schema=False, **options)
    return path


def test_a_small_file_that_stands_for_twenty_gigabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.parquet", 1 << 20, 20_000)
    assert path.stat().st_size < 8000
    code = (
        "import sys; from pathlib import Path; from runner.core.data import shards; from runner.core.base.errors import ArtifactError\n"
        "import resource\n"
        "try:\n    [None for _ in shards.groups(Path(sys.argv[1]))]\n"
        "except ArtifactError as error: print(error.what)\n"
        "print(max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    what, peak = done.stdout.splitlines()
    assert what == "not a readable shard: more text, or larger row groups, than a shard of its size has"
    assert int(peak) < 1500, peak  # MiB


@pytest.mark.parametrize("size", [shards.MAX_VALUE, shards.MAX_VALUE + 1])
def test_a_document_has_a_longest_length(tmp_path: Path, size: int) -> None:
    path = wrote(tmp_path / "a.parquet", [os.urandom(size // 2).hex() + "x" * (size % 2)], compression="none")
    if size == shards.MAX_VALUE:
        assert [len(text) for (text,) in shards.groups(path)] == [size]
        return
    with pytest.raises(ArtifactError, match="more text"):
        [*shards.groups(path)]


@pytest.mark.parametrize(("limit", "value"), [("MAX_GROUP", 600), ("_MAX_DOCUMENTS", 9), ("_SMALL", 600)])
def test_a_group_and_a_file_have_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    path = wrote(tmp_path / "a.parquet", ["x" * 30] * 10)
    assert len([*shards.groups(path)]) == 1
    monkeypatch.setattr(shards, "MAX_RATIO", 0)
    monkeypatch.setattr(shards, limit, value)
    with pytest.raises(ArtifactError, match="more text"):
        [*shards.groups(path)]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"PAR1", "no parquet file with text"),
        (b"PAR1" + bytes(100) + b"PAR1", "no parquet file with text"),
        (b"not parquet" * 100, "no parquet file with text"),
        (b"<!doctype html><title>Sign in</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 100\n", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_shard_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ArtifactError, match=what):
        shards.describe(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"content": ["a"]}, r"content \(BYTE_ARRAY\)"),
        ({"text": [1]}, r"text \(INT64\)"),
        ({"text": [["a"]]}, r"text\.list\.element"),
        ({"text": [{"text": "a"}]}, r"text\.text"),
        ({f"column {n}": [n] for n in range(40)}, r"column 11 \(INT64\) \(fix"),  # no more than so many
        ({"\x1b[31m" + "x" * 500: ["a"]}, r"it has: \?\[31mx{55} \(fix"),
    ],
)
def test_a_file_without_such_a_column_says_what_it_has(tmp_path: Path, table: dict[str, Any], told: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(ArtifactError) as caught:
        shards.describe(path)
    assert re.search(told, str(caught.value)), str(caught.value)


def test_a_column_that_calls_itself_text_and_is_not_utf8(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"caf\xe9"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match="not UTF-8"):
        [*shards.groups(tmp_path / "a.parquet")]


def test_the_column_is_the_one_of_that_name_at_the_top(tmp_path: Path) -> None:
    table = pa.table({"meta": [{"text": 1}], "text": ["a"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [*shards.groups(tmp_path / "a.parquet")] == [["a"]]


def test_documents_without_text_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wrote(tmp_path / "a.parquet", [None] * 1000, rows=1000)
    assert [len(group) for group in shards.groups(path)] == [1000]
    monkeypatch.setattr(shards, "_SMALL", 63 * 1000)
    with pytest.raises(ArtifactError, match="more text"):
        [*shards.groups(path)]


@pytest.mark.parametrize(
    "head", ['{"documents": Infinity, "text_bytes": 1}', '{"documents": 1e999, "text_bytes": 1}', "[" * 4000,
             '{"documents": -5, "text_bytes": 1}', '{"documents": 1}', "1"]
)  # fmt: skip
def test_a_reader_that_was_taken_over_says_nothing_that_hurts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    path = wrote(tmp_path / "a.parquet", ["x"])
    frame = len(head).to_bytes(4, "big") + head.encode()

    @contextmanager
    def reading(*_: object) -> Iterator[io.BytesIO]:
        yield io.BytesIO(frame)

    monkeypatch.setattr(shards, "_reading", reading)
    with pytest.raises(ArtifactError, match="no parquet file with text"):
        shards.describe(path)


def test_bytes_that_are_no_text_and_a_file_cut_short_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([b"\xff\xfe"], pa.binary())}), tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match="not UTF-8"):
        [*shards.groups(tmp_path / "a.parquet")]
    path = wrote(tmp_path / "b.parquet", [os.urandom(3000).hex() for _ in range(200)], compression="zstd")
    data = bytearray(path.read_bytes())
    data[100_000:200_000] = bytes(100_000)
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="not a readable shard"):
        [*shards.groups(path)]


def test_a_link_and_a_pipe_are_not_read(tmp_path: Path) -> None:
    wrote(tmp_path / "a.parquet", ["x"])
    (tmp_path / "b.parquet").symlink_to("a.parquet")
    os.mkfifo(tmp_path / "c.parquet")
    for name in ("b", "c"):
        with pytest.raises(ArtifactError, match="not a readable shard"):
            shards.describe(tmp_path / f"{name}.parquet")


ATTEMPTS = {
    "a file": "open('/etc/hostname').read()",
    "a file to write": "open('/tmp/confined', 'w')",
    "a connection": "import socket; socket.socket()",
    "a local connection": "import socket; socket.socket(socket.AF_UNIX)",
    "a process": "import os; os.fork()",
    "a program": "import os; os.execv('/bin/true', ['true'])",
    "a signal": "import os; os.kill(os.getppid(), 0)",
    "a signal to a thread": "import ctypes, os; c = ctypes.CDLL(None); "
    "p = os.getppid(); n = 234 if os.uname().machine == 'x86_64' else 131; c.syscall(n, p, p, 0) and 1 / 0",
    "another thread": "waiting.set(); done.wait(); assert found == ['open']",
    "memory": "bytearray(3 << 30)",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("confined", [True, False])
def test_whoever_takes_the_reader_over_has_nothing(attempt: str, confined: bool) -> None:
    code = (
        "import sys, os, socket, threading\nfrom runner.core.data.confine import confine\n"
        "waiting, done, found = threading.Event(), threading.Event(), []\n"
        "def look():\n"
        "    waiting.wait()\n"
        "    try: found.append(open('/etc/hostname') and 'open')\n"
        "    except OSError: pass\n"
        "    done.set()\n"
        "threading.Thread(target=look, daemon=True).start()\n"
        + ("confine(2 << 30, 60)\n" if confined else "")
        + f"try:\n    {ATTEMPTS[attempt]}\nexcept (OSError, MemoryError, ZeroDivisionError, AssertionError):\n    os._exit(9)\nos._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, timeout=60, check=False
    )
    assert done.returncode == (9 if confined else 0)


def test_no_system_call_is_listed_under_two_names() -> None:
    for column in (0, 1):
        numbers = [numbers[column] for numbers in confine._CALLS.values()]
        assert len(set(numbers)) == len(numbers)
