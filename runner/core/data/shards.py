"""Files of documents, decoded by a process of its own and counted here. TRUSTED reader of a hostile file."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, cast

from pydantic import Field, ValidationError

from runner.core.base.errors import ArtifactError
from runner.core.base.files import open_plain
from runner.core.base.launching import Frozen
from runner.core.base.mountable import SOURCE
from runner.core.data.shard_reader import COLUMN, END_OF_FILE, END_OF_GROUP, PACKED, WRONG
from trainer.wire import strict_json

MAX_VALUE = 16 << 20  # bytes of one document
MAX_GROUP = 1 << 30  # bytes of text in one row group
MAX_RATIO = 20  # bytes of text per byte of file; text compresses about three times
_EACH = 64  # bytes that a document counts at least: an empty one costs us as much
_SMALL = 64 << 20  # bytes of text any file may hold
_MAX_DOCUMENTS = 1 << 22  # of a row group, however short
_MAX_HEAD = 1 << 12


_SUFFIXES = {
    **{".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"},
    **{".txt": "text", ".text": "text", ".md": "text"},
}


@dataclass(frozen=True)
class Form:
    """How a file holds documents, and under which name."""

    kind: str = "parquet"
    packed: str = ""  # gz, zst
    column: str = COLUMN

    @property
    def name(self) -> str:
        """As the reader takes it."""
        return f"{self.kind}.{self.packed}" if self.packed else self.kind


SHARD = Form()


def form(path: Path, column: str = COLUMN) -> Form | None:
    """How a file of this name holds documents; None if it is of no kind that is read."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes.pop()[1:] if suffixes and suffixes[-1][1:] in PACKED else ""
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    return None if kind is None or (packed and kind == "parquet") else Form(kind, packed, column)


class _Wrong(Frozen):
    """What the reader found wrong with a file."""

    why: Literal["column", "json", "long"]
    at: Annotated[int, Field(ge=0)]
    columns: Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=12)]


class Described(Frozen):
    """What a shard says of itself."""

    documents: Annotated[int, Field(ge=0, lt=1 << 40)]
    text_bytes: Annotated[int, Field(ge=0, lt=1 << 50)]


def describe(path: Path, how: Form = SHARD) -> Described:
    """Documents and uncompressed bytes, as a parquet file declares them; raises ArtifactError."""
    with _reading(path, how) as frames:
        return _head(frames, path, how)


def groups(path: Path, how: Form = SHARD) -> Iterator[list[str]]:
    """The documents of each row group; raises ArtifactError for what is no shard, or more text than a shard holds."""
    with _reading(path, how, "all") as frames:
        if how.kind == "parquet":
            _head(frames, path, how)
        most = max(_SMALL, MAX_RATIO * path.stat().st_size)
        documents: list[str] = []
        size = total = count = 0
        while (length := _length(frames, path, first=not total and how.kind != "parquet")) != END_OF_FILE:
            if length == WRONG:
                raise _wrong(frames, path, how)
            if length == END_OF_GROUP:
                yield documents
                documents, size = [], 0
                continue
            size, total = size + max(_EACH, length), total + max(_EACH, length)
            if length > MAX_VALUE or size > MAX_GROUP or total > most or len(documents) >= _MAX_DOCUMENTS:
                raise _unreadable(path, "more text, or larger row groups, than a shard of its size has")
            count += 1
            documents.append(_text(frames, length, path, count))


@contextmanager
def _reading(path: Path, how: Form, *wanted: str) -> Iterator[BinaryIO]:
    try:
        source = open_plain(path)
    except OSError as error:
        link = path.is_symlink()
        fix = "copy what it points to: cp -L" if link else "see what it is: ls -l"
        what = "a symbolic link" if link else str(error.strerror)
        raise ArtifactError(f"not a readable shard: {what}", where=str(path), fix=fix) from None
    environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ.get("PATH", ""), "ARROW_IO_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "runner.core.data.shard_reader", how.name, how.column, *wanted]
    with (
        source,
        subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as reader,
    ):
        try:
            yield cast("BinaryIO", reader.stdout)
        finally:
            reader.kill()  # it has said everything, or nobody listens


def _head(frames: BinaryIO, path: Path, how: Form) -> Described:
    length = _length(frames, path, first=True)
    if length == WRONG:
        raise _wrong(frames, path, how)
    try:
        text = _text(frames, min(length, _MAX_HEAD + 1), path)
        return Described.model_validate(strict_json.loads(text.encode(), max_bytes=_MAX_HEAD))
    except (strict_json.StrictJsonError, ValidationError):
        raise _unreadable(path, "no parquet file with text") from None


def _wrong(frames: BinaryIO, path: Path, how: Form) -> ArtifactError:
    """What the reader says is wrong, in our words."""
    try:
        text = _text(frames, min(_length(frames, path), _MAX_HEAD + 1), path)
        told = _Wrong.model_validate(strict_json.loads(text.encode(), max_bytes=_MAX_HEAD))
    except (strict_json.StrictJsonError, ValidationError):
        return _unreadable(path, "damaged")
    line = f"line {told.at}: " if told.at else ""
    if told.why == "column":
        names = ", ".join(told.columns) or "none"
        what, fix = f"no column {how.column!r} of plain text; it has: {names}", "name the one of text: --column NAME"
    elif told.why == "json":
        what, fix = "no JSON object", "one JSON object a line, each with the text of a document"
    else:
        what, fix = f"longer than {MAX_VALUE >> 20} MiB", "cut it"
    return ArtifactError(f"{line}{what}", where=str(path), fix=fix)


def _length(frames: BinaryIO, path: Path, *, first: bool = False) -> int:
    data = frames.read(4)
    if len(data) < 4:
        raise _no_parquet(path) if first else _unreadable(path, "damaged, or it needs too much memory")
    return int(struct.unpack(">I", data)[0])


def _text(frames: BinaryIO, length: int, path: Path, number: int = 0) -> str:
    data = frames.read(length)
    try:
        if len(data) == length:
            return data.decode("utf-8")
    except UnicodeDecodeError:
        what = f"document {number} is not UTF-8" if number else "not UTF-8"
        raise ArtifactError(what, where=str(path), fix="take it out, or convert it: iconv -t utf-8") from None
    raise _unreadable(path, "its end is missing")


def _no_parquet(path: Path) -> ArtifactError:
    """What people find in place of a shard, by how it begins."""
    try:
        with open_plain(path) as file:
            begins = file.read(64).lstrip()
    except OSError:
        begins = b""
    if begins.startswith(b"version https://git-lfs"):
        what, fix = "a pointer of Git LFS, not the file", "git lfs pull"
    elif begins[:1] == b"<":
        what, fix = "a web page, as a login or a proxy answers", "download it again, past that page"
    elif not begins:
        what, fix = "an empty file", "download it again"
    else:
        known = form(path)
        kind = known.name if known else "parquet"
        what, fix = f"no {kind} file with text, or it needs too much memory", "download it again"
    return ArtifactError(f"not a readable shard: {what}", where=str(path), fix=fix)


def _unreadable(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"not a readable shard: {what}", where=str(path), fix="download it again")
