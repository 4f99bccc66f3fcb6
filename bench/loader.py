"""Tokens per second of our loader over upstream's, on the same shards, in one run; and are the batches equal?

    python -m bench.loader [--batches N] [--rows B] [--length T] [--json]

Upstream reads parquet, tokenizes with tiktoken and packs while it trains; ours packs memory-mapped tokens. The
shards are made from the demo's text; GLOVEBOX_UPSTREAM=DIR runs upstream's own make_dataloader,
otherwise its algorithm is restated here. Rounds alternate, the ratio is of the medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from runner.core.artifacts import keys, profiles, store
from runner.core.base.home import Home
from runner.core.data import corpus, prepare

SHARDS, GROUP = 4, 200
PROFILE = profiles.Profile("upstream", 2048, 300, 4096, 2048 * 8, 8, 20_000_000, 10_000)
Batches = Iterator[tuple[torch.Tensor, torch.Tensor, int]]


def make(folder: Path) -> tuple[Path, Path]:
    """(folder of shards, artifact made from them)."""
    texts = [
        text[at : at + size] for text in corpus.demo(b"").texts() for at, size in ((0, 1500), (1500, 900), (2400, 1600))
    ]
    texts = [text for text in texts if text]
    data = folder / "data"
    data.mkdir()
    names = [f"shard_{i:05d}.parquet" for i in range(SHARDS)] + [corpus.VAL_SHARD]
    for number, name in enumerate(names):
        pq.write_table(pa.table({"text": texts[number :: len(names)]}), data / name, row_group_size=GROUP)
    home = Home(folder / "bench")
    keys.create(home)
    version = prepare.prepare(home, PROFILE, prepare.Source(shards=data))
    store.admit(home, version)
    return data, home.store / version


def ours(artifact: Path) -> Any:
    """trainer/prepare.py over the artifact."""
    os.environ["GLOVEBOX_ARTIFACTS"] = str(artifact)
    import trainer.prepare as module  # noqa: PLC0415 - reads its constants when imported

    return module


def published(checkout: Path, data: Path) -> Callable[[Any, int, int], Batches]:
    """Upstream's own make_dataloader over the same shards."""
    spec = importlib.util.spec_from_file_location("upstream_prepare", checkout / "prepare.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"no prepare.py in {checkout}")
    sys.modules.setdefault("requests", mock.MagicMock())  # only its downloads need it
    module = importlib.util.module_from_spec(spec)
    source = (checkout / "prepare.py").read_text()
    if not torch.cuda.is_available():  # it allocates on the GPU; everything else stays as it is
        source = source.replace('device="cuda"', 'device="cpu"').replace("pin_memory=True", "pin_memory=False")
    exec(compile(source, str(checkout / "prepare.py"), "exec"), module.__dict__)  # noqa: S102 - the thing to measure
    module.DATA_DIR = str(data)  # type: ignore[attr-defined]
    return lambda tokenizer, rows, length: module.make_dataloader(tokenizer, rows, length, "train")


def restated(data: Path) -> Callable[[Any, int, int], Batches]:
    """Upstream's algorithm: tokenize while packing, a list scanned for the best fit."""

    def documents(tokenizer: Any) -> Iterator[tuple[list[list[int]], int]]:
        epoch = 1
        while True:
            for path in sorted(p for p in data.glob("*.parquet") if p.name != corpus.VAL_SHARD):
                file = pq.ParquetFile(path)
                for index in range(file.num_row_groups):
                    texts = file.read_row_group(index).column("text").to_pylist()
                    for at in range(0, len(texts), 128):
                        yield tokenizer.encode(texts[at : at + 128], prepend=tokenizer.get_bos_token_id()), epoch
            epoch += 1

    def loader(tokenizer: Any, rows: int, length: int) -> Batches:
        source, buffer, epoch, capacity = documents(tokenizer), list[list[int]](), 1, length + 1
        packed = torch.empty((rows, capacity), dtype=torch.long)
        while True:
            for row in range(rows):
                at = 0
                while at < capacity:
                    while len(buffer) < 1000:
                        batch, epoch = next(source)
                        buffer.extend(batch)
                    room, best, size = capacity - at, -1, 0
                    for i, doc in enumerate(buffer):
                        if size < len(doc) <= room:
                            best, size = i, len(doc)
                    if best < 0:
                        best = min(range(len(buffer)), key=lambda i: len(buffer[i]))
                    doc = buffer.pop(best)[:room]
                    packed[row, at : at + len(doc)] = torch.tensor(doc)
                    at += len(doc)
            yield packed[:, :-1].clone(), packed[:, 1:].clone(), epoch

    return loader


def measure(make_loader: Callable[[], Batches], batches: int) -> float:
    """Tokens per second over `batches`, after the first."""
    loader = make_loader()
    x, _, _ = next(loader)
    begun = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return batches * x.numel() / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--compare", type=int, default=1000, help="batches compared bit for bit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, artifact = make(Path(folder))
        module = ours(artifact)
        tokenizer = module.Tokenizer.from_directory()
        checkout = os.environ.get("GLOVEBOX_UPSTREAM")
        theirs = published(Path(checkout), data) if checkout else restated(data)
        shape = asked.rows, asked.length
        a, b = module.make_dataloader(tokenizer, *shape, "train"), theirs(tokenizer, *shape)
        identical = all(_same(next(a), next(b)) for _ in range(asked.compare))
        found: dict[str, list[float]] = {"ours": [], "upstream": []}
        for _ in range(asked.rounds):
            found["upstream"].append(measure(lambda: theirs(tokenizer, *shape), asked.batches))
            found["ours"].append(
                measure(lambda: module.make_dataloader(tokenizer, *shape, "train"), asked.batches * 10)
            )
    median = {name: statistics.median(values) for name, values in found.items()}
    result = {
        "ratio": round(median["ours"] / median["upstream"], 2),
        "identical": identical,
        "compared_batches": asked.compare,
        "ours_tokens_per_s": round(median["ours"]),
        "upstream_tokens_per_s": round(median["upstream"]),
        "upstream": "published" if checkout else "restated",
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {os.cpu_count()} cores",
    }
    if not asked.json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))


def _same(a: tuple[torch.Tensor, torch.Tensor, int], b: tuple[torch.Tensor, torch.Tensor, int]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2] == b[2]


if __name__ == "__main__":
    main()
