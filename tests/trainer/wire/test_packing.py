"""Packing is bit for bit upstream's: the algorithm restated here as upstream wrote it, a list and two scans."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.wire.packing import Documents, pack_rows


def reference(
    docs: list[list[int]], groups: list[int], capacity: int, buffer_size: int
) -> Iterator[tuple[list[int], int]]:
    """The packing rule by plain scans: longest that fits, first of equals; else the shortest, cropped."""

    def batches() -> Iterator[tuple[list[list[int]], int]]:
        epoch = 1
        while True:
            first = 0
            for size in groups:
                group = docs[first : first + size]
                first += size
                for i in range(0, len(group), 128):
                    yield group[i : i + 128], epoch
            epoch += 1

    source, buffer, epoch = batches(), [], 1
    while True:
        row: list[int] = []
        while len(row) < capacity:
            while len(buffer) < buffer_size:
                batch, epoch = next(source)
                buffer.extend(batch)
            room = capacity - len(row)
            best, best_len = -1, 0
            for i, doc in enumerate(buffer):
                if best_len < len(doc) <= room:
                    best, best_len = i, len(doc)
            if best < 0:
                best = min(range(len(buffer)), key=lambda i: len(buffer[i]))
            row += buffer.pop(best)[:room]
        yield row, epoch


def arrays(docs: list[list[int]], groups: list[int], shards: int = 1) -> Documents:
    """The documents in `shards` shards; a shard ends with a row group."""
    bounds = np.linspace(0, len(groups), shards + 1).astype(int)
    parts, first = [], 0
    for a, b in itertools.pairwise(bounds.tolist()):
        last = first + sum(groups[a:b])
        tokens = np.array([t for doc in docs[first:last] for t in doc], dtype=np.uint16)
        lengths = np.array([len(doc) for doc in docs[first:last]], dtype=np.int32)
        parts.append((tokens, lengths, np.array(groups[a:b], dtype=np.int64)))
        first = last
    return Documents(parts)


def documents(rng: np.random.Generator, count: int, longest: int) -> list[list[int]]:
    return [[7, *rng.integers(0, 1000, rng.integers(0, longest)).tolist()] for _ in range(count)]


@pytest.mark.parametrize(("capacity", "longest"), [(33, 20), (129, 400), (257, 300), (65, 65)])
def test_a_thousand_rows_equal_upstreams(capacity: int, longest: int) -> None:
    docs = documents(np.random.default_rng(capacity), 700, longest)
    groups = [300, 1, 129, 270]
    ours = pack_rows(arrays(docs, groups, shards=3), capacity, buffer_size=200)
    theirs = reference(docs, groups, capacity, 200)
    for _ in range(1000):
        (row, epoch), (expected, expected_epoch) = next(ours), next(theirs)
        assert row.tolist() == expected
        assert epoch == expected_epoch


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_corpus_packs_as_upstream_does(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=60))
    docs = [[i % 1000] * n for i, n in enumerate(lengths)]
    cut = data.draw(st.integers(0, len(docs)))
    groups = [n for n in (cut, len(docs) - cut) if n]
    capacity, buffer = data.draw(st.integers(2, 50)), data.draw(st.integers(1, 80))
    ours, theirs = pack_rows(arrays(docs, groups), capacity, buffer), reference(docs, groups, capacity, buffer)
    for _ in range(20):
        (row, epoch), (expected, expected_epoch) = next(ours), next(theirs)
        assert (row.tolist(), epoch) == (expected, expected_epoch)
