"""Best-fit packing of tokenized documents into rows, bit for bit as upstream packs them.

Pure numpy: prepare.py uses it inside the trainer, `glovebox prepare` uses it on the host to pack the
validation rows. Upstream tokenizes while it packs; here documents are tokenized once, ahead of time.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TOKENIZER_BATCH = 128  # documents per refill, as upstream; batches never cross a parquet row group
PARTS = ("tokens", "lengths", "groups")  # PART_00000.npy of every shard


class Documents:
    """Tokenized documents, shard after shard, in upstream's order.

    Of each shard: tokens uint16 (all documents, each with its BOS, one after another), lengths int32 (of the
    documents) and groups int64 (documents per parquet row group).
    """

    def __init__(self, shards: list[tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.int64]]]) -> None:
        self.lengths: list[int] = []
        self.groups: list[int] = []
        self._starts: list[int] = []
        self._tokens: list[NDArray[np.uint16]] = []  # per document, the array of its shard
        for tokens, lengths, groups in shards:
            plain = np.asarray(tokens)  # a memory map costs a microsecond a slice; its plain view does not
            ends = np.cumsum(lengths, dtype=np.int64)
            self.lengths += lengths.tolist()
            self._starts += (ends - lengths).tolist()
            self._tokens += [plain] * len(lengths)
            self.groups += groups.tolist()

    def copy(self, doc: int, take: int, out: NDArray[np.int64]) -> None:
        """The first `take` tokens of a document into `out`."""
        start = self._starts[doc]
        out[:] = self._tokens[doc][start : start + take]


def load(folder: Path) -> Documents:
    """The memory-mapped documents in `folder`, shards in the order of their numbers."""
    shards = []
    for path in sorted(folder.glob("tokens_*.npy")):
        number = path.stem.removeprefix("tokens")
        tokens, lengths, groups = (
            np.load(folder / f"{part}{number}.npy", mmap_mode="r", allow_pickle=False) for part in PARTS
        )
        shards.append((tokens, lengths, groups))
    return Documents(shards)


class _Buffer:
    """Upstream's document buffer with best-fit and shortest-first lookups in O(log distinct lengths).

    Upstream scans a list: the longest document that fits, and the first such in arrival order. Documents
    of equal length are therefore taken first in, first out, so one queue per length keeps its order.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lengths: list[int] = []  # distinct lengths present, ascending
        self._queues: dict[int, deque[int]] = {}

    def add(self, doc: int, length: int) -> None:
        queue = self._queues.get(length)
        if queue is None:
            bisect.insort(self._lengths, length)
            queue = self._queues[length] = deque()
        queue.append(doc)
        self.count += 1

    def take(self, remaining: int) -> int:
        """The longest document of at most `remaining` tokens, else the shortest of all."""
        at = bisect.bisect_right(self._lengths, remaining) - 1
        at = max(at, 0)
        length = self._lengths[at]
        queue = self._queues[length]
        doc = queue.popleft()
        if not queue:
            del self._queues[length]
            del self._lengths[at]
        self.count -= 1
        return doc


def _document_batches(groups: list[int]) -> Iterator[tuple[range, int]]:
    """Document index ranges of at most 128, never across a row group, forever; with the epoch from 1."""
    epoch = 1
    while True:
        first = 0
        for size in groups:
            for start in range(first, first + size, TOKENIZER_BATCH):
                yield range(start, min(start + TOKENIZER_BATCH, first + size)), epoch
            first += size
        epoch += 1


def pack_rows(
    documents: Documents, row_capacity: int, buffer_size: int = 1000
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """BOS-aligned best-fit packing: endless (row int64 [row_capacity], epoch), upstream's rows exactly.

    The yielded row is reused: copy it before asking for the next.
    """
    lengths = documents.lengths
    batches = _document_batches(documents.groups)
    buffer = _Buffer()
    epoch = 1
    row = np.empty(row_capacity, dtype=np.int64)
    while True:
        pos = 0
        while pos < row_capacity:
            while buffer.count < buffer_size:
                docs, epoch = next(batches)
                for doc in docs:
                    buffer.add(doc, lengths[doc])
            doc = buffer.take(row_capacity - pos)
            take = min(lengths[doc], row_capacity - pos)
            documents.copy(doc, take, row[pos : pos + take])
            pos += take
        yield row, epoch
