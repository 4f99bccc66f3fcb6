"""Decodes one parquet shard in a process that can do nothing else. UNTRUSTED from its first look at the file.

    python -m runner.core.artifacts.shard_reader [text] < SHARD

Writes frames, a 4-byte length and so many bytes: first {"documents", "text_bytes"} as the file declares them, or
{"columns"} if none of them is text; then with `text` every document as UTF-8, END_OF_GROUP for a length behind each row
group, and END_OF_FILE. A shard of 365 bytes can stand for 20 GB, so documents are decoded a few at a time, and whoever
reads the frames counts them (shards.py).
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, BinaryIO

END_OF_GROUP, END_OF_FILE = 0xFFFFFFFF, 0xFFFFFFFE
COLUMN = "text"
MEMORY, SECONDS = 6 << 30, 3600
_DOCUMENTS = 64  # decoded at a time
_NAMES, _NAME = 12, 60  # columns that are told, and characters of each


def main(argv: list[str]) -> int:
    """Exit code 0 if the file was read to its end, 1 if it is not a shard."""
    import pyarrow as pa  # noqa: PLC0415 - slow to import, and the parent needs the constants alone
    import pyarrow.parquet as pq  # noqa: PLC0415

    from runner.core.artifacts.confine import confine  # noqa: PLC0415

    pa.set_cpu_count(1)
    source, out = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    confine(MEMORY, SECONDS)
    try:
        file = pq.ParquetFile(source, pre_buffer=False)
        metadata = file.metadata
        columns = [metadata.schema.column(at) for at in range(metadata.num_columns)]
        text = [at for at, one in enumerate(columns) if (one.path, one.physical_type) == (COLUMN, "BYTE_ARRAY")]
        if not text:
            told = [f"{one.path} ({one.physical_type})"[:_NAME] for one in columns[:_NAMES]]
            _frame(out, json.dumps({"columns": told}).encode())
            out.flush()
            return 1
        column = text[0]
        groups = range(metadata.num_row_groups)
        size = sum(metadata.row_group(i).column(column).total_uncompressed_size for i in groups)
        _frame(out, json.dumps({"documents": metadata.num_rows, "text_bytes": size}).encode())
        for index in groups if argv[1:] == [COLUMN] else ():
            for batch in file.iter_batches(_DOCUMENTS, row_groups=[index], columns=[COLUMN], use_threads=False):
                for value in batch.column(0):
                    _frame(out, _text(value))
            out.write(struct.pack(">I", END_OF_GROUP))
        out.write(struct.pack(">I", END_OF_FILE))
        out.flush()
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, pa.ArrowException):
        return 1
    return 0


def _text(value: Any) -> bytes:
    """A document's bytes, as they are: whether they are UTF-8 is looked at on the other side."""
    try:
        text = value.as_py()
    except UnicodeDecodeError:
        return b"\xff"  # of a column that calls itself text
    return text.encode() if isinstance(text, str) else (text or b"")


def _frame(out: BinaryIO, data: bytes) -> None:
    out.write(struct.pack(">I", len(data)))
    out.write(data)


if __name__ == "__main__":
    os._exit(main(sys.argv))  # threads of the library are not waited for
