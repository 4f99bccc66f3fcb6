"""Best-fit packing of tokenized documents into rows, bit for bit as upstream packs them.

Pure numpy: prepare.py uses it inside the trainer, `glovebox prepare` uses it on the host to pack the
validation rows. Upstream tokenizes while it packs; here documents are tokenized once, ahead of time.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

TOKENIZER_BATCH = 128  # documents per refill, as upstream; batches never cross a parquet row group


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


def _document_batches(row_groups: NDArray[np.int64]) -> Iterator[tuple[range, int]]:
    """Document index ranges of at most 128, never across a row group, forever; with the epoch from 1."""
    epoch = 1
    while True:
        first = 0
        for size in row_groups.tolist():
            for start in range(first, first + size, TOKENIZER_BATCH):
                yield range(start, min(start + TOKENIZER_BATCH, first + size)), epoch
            first += size
        epoch += 1


def pack_rows(
    tokens: NDArray[np.uint16],
    offsets: NDArray[np.int64],
    row_groups: NDArray[np.int64],
    row_capacity: int,
    buffer_size: int = 1000,
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """BOS-aligned best-fit packing: endless (row int64 [row_capacity], epoch), upstream's rows exactly.

    tokens: all documents, each with its BOS, one after another; offsets: [documents + 1] starts.
    The yielded row is reused: copy it before asking for the next.
    """
    lengths = np.diff(offsets).tolist()
    starts = offsets.tolist()
    batches = _document_batches(row_groups)
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
            row[pos : pos + take] = tokens[starts[doc] : starts[doc] + take]
            pos += take
        yield row, epoch
