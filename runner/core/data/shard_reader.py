"""Decodes one file of documents in a process that can do nothing else. UNTRUSTED from its first look at the file.

    python -m runner.core.data.shard_reader KIND COLUMN [all] < FILE

KIND is parquet, jsonl or text, with .gz or .zst behind it where the file is compressed. Writes frames, a 4-byte length
and so many bytes: first {"documents", "text_bytes"} as a parquet file declares them (nothing of other kinds); then with
`all` every document as UTF-8, END_OF_GROUP for a length behind each row group, and END_OF_FILE. What is wrong with a
file is told in a last frame behind WRONG, {"why", "at", "columns"}. A shard of 365 bytes can stand for 20 GB, so
documents are decoded a few at a time, and whoever reads the frames counts them (shards.py).
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

END_OF_GROUP, END_OF_FILE, WRONG = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
KINDS = ("parquet", "jsonl", "text")
PACKED = {"gz": "gzip", "zst": "zstd"}  # suffix: what Arrow calls it
COLUMN = "text"
BETWEEN = b"<|endoftext|>"  # documents of a text file, where it has it
MEMORY, SECONDS = 6 << 30, 3600
MAX_TEXT = 1 << 20  # bytes of a document of a text file: longer ones are cut between paragraphs
_MAX_LINE = 16 << 20
_READ = 1 << 20
_BOM = b"\xef\xbb\xbf"  # Windows writes it; Python's own codec for it is a file, which cannot be opened any more
_DOCUMENTS = 64  # decoded at a time
_PARAGRAPH = re.compile(rb"\r?\n[ \t]*\r?\n")
_GROUP = 1000  # documents, where a file has no groups of its own
_NAMES, _NAME = 12, 60  # columns that are told, and characters of each


class Wrong(Exception):
    """What is wrong with a file, in a word, and where."""

    def __init__(self, why: str, at: int = 0, columns: Iterable[Any] = ()) -> None:
        super().__init__(why)
        self.told = {"why": why, "at": at, "columns": [str(name)[:_NAME] for name in columns][:_NAMES]}


def main(argv: list[str]) -> int:
    """Exit code 0 if the file was read to its end, 1 if it is not what its name says."""
    import pyarrow as pa  # noqa: PLC0415 - slow to import, and the parent needs the constants alone
    import pyarrow.parquet  # noqa: PLC0415 - before nothing more can be opened

    from runner.core.data.confine import confine  # noqa: PLC0415

    pa.set_cpu_count(1)
    source, out = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    kind, _, packed = argv[1].partition(".")
    column, whole = argv[2], argv[3:] == ["all"]
    opened = pa.CompressedInputStream(source, PACKED[packed]) if packed else source
    confine(MEMORY, SECONDS)
    try:
        if kind == "parquet":
            _parquet(source, out, column, whole=whole)
        elif whole:
            documents = _lines(opened, column) if kind == "jsonl" else _pieces(opened)
            for number, document in enumerate(documents, 1):
                _frame(out, document)
                if number % _GROUP == 0:
                    out.write(struct.pack(">I", END_OF_GROUP))
            out.write(struct.pack(">I", END_OF_GROUP))
        out.write(struct.pack(">I", END_OF_FILE))
        out.flush()
    except Wrong as wrong:
        out.write(struct.pack(">I", WRONG))
        _frame(out, json.dumps(wrong.told).encode())
        out.flush()
        return 1
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, MemoryError, pa.ArrowException):
        return 1
    return 0


def _parquet(source: BinaryIO, out: BinaryIO, column: str, *, whole: bool) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = pq.ParquetFile(source, pre_buffer=False)
    metadata = file.metadata
    columns = [metadata.schema.column(at) for at in range(metadata.num_columns)]
    text = [at for at, one in enumerate(columns) if (one.path, one.physical_type) == (column, "BYTE_ARRAY")]
    if not text:
        raise Wrong("column", columns=[f"{one.path} ({one.physical_type})" for one in columns])
    groups = range(metadata.num_row_groups)
    size = sum(metadata.row_group(i).column(text[0]).total_uncompressed_size for i in groups)
    _frame(out, json.dumps({"documents": metadata.num_rows, "text_bytes": size}).encode())
    for index in groups if whole else ():
        for batch in file.iter_batches(_DOCUMENTS, row_groups=[index], columns=[column], use_threads=False):
            for value in batch.column(0):
                _frame(out, _text(value))
        out.write(struct.pack(">I", END_OF_GROUP))


def _text(value: Any) -> bytes:
    """A document's bytes, as they are: whether they are UTF-8 is looked at on the other side."""
    try:
        text = value.as_py()
    except UnicodeDecodeError:
        return b"\xff"  # of a column that calls itself text
    return text.encode() if isinstance(text, str) else (text or b"")


def _lines(source: Any, column: str) -> Iterator[bytes]:
    """The column of every record; nulls are left out. Raises Wrong."""
    rest = b""
    number = 0
    for chunk in _chunks(source):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE:
            raise Wrong("long", number + len(lines) + 1)
        for line in lines:
            number += 1
            yield from _record(line, column, number)
    yield from _record(rest, column, number + 1)


def _record(line: bytes, column: str, number: int) -> Iterator[bytes]:
    if not line.strip():
        return
    try:
        record = json.loads(line.removeprefix(_BOM if number == 1 else b"").decode())
    except (ValueError, RecursionError):
        raise Wrong("json", number) from None
    if not isinstance(record, dict):
        raise Wrong("json", number)
    if column not in record:
        raise Wrong("column", number, record)
    text = record[column]
    if text is None:
        return
    if not isinstance(text, str):
        raise Wrong("column", number, [f"{name} ({type(value).__name__})" for name, value in record.items()])
    yield text.encode("utf-8", "surrogatepass")  # half a character is refused on the other side


def _pieces(source: Any) -> Iterator[bytes]:
    """Documents of plain text: what stands between BETWEEN, else all of it; long ones in pieces."""
    rest, first = b"", True
    for chunk in _chunks(source):
        chunk, first = chunk.removeprefix(_BOM if first else b""), False  # noqa: PLW2901 - a chunk is longer than that
        *whole, rest = (rest + chunk).split(BETWEEN)
        for document in whole:
            yield from _cut(document)
        while len(rest) > 2 * MAX_TEXT:
            at = _end(rest)
            yield from _cut(rest[:at])
            rest = rest[at:]
    yield from _cut(rest)


def _cut(document: bytes) -> Iterator[bytes]:
    document = document.strip(b"\r\n \t")
    while len(document) > MAX_TEXT:
        at = _end(document)
        yield document[:at].rstrip()
        document = document[at:].lstrip(b"\r\n")
    if document:
        yield document


def _end(text: bytes) -> int:
    """Where a document that is too long is cut: before a paragraph, else a line, a word, a character.

    Of all paragraphs of the last half the one with the smallest checksum: another edition, with a preface before it, is
    soon cut at the same ones.
    """
    starts = [match.end() for match in _PARAGRAPH.finditer(text, MAX_TEXT // 2, MAX_TEXT)]
    if starts:
        return min(starts, key=lambda at: (zlib.crc32(text[at : at + 64]), at))
    for between in (b"\n", b" "):
        at = text.rfind(between, MAX_TEXT // 2, MAX_TEXT)
        if at > 0:
            return at
    at = MAX_TEXT
    while at and text[at] & 0xC0 == 0x80:  # not within a character
        at -= 1
    return at or MAX_TEXT


def _chunks(source: Any) -> Iterator[bytes]:
    while chunk := source.read(_READ):
        yield bytes(chunk)


def _frame(out: BinaryIO, data: bytes) -> None:
    out.write(struct.pack(">I", len(data)))
    out.write(data)


if __name__ == "__main__":
    os._exit(main(sys.argv))  # threads of the library are not waited for
