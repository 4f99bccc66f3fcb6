"""Upstream's model, loader, metric and train.py against ours.

With GLOVEBOX_UPSTREAM=DIR the published files are used; without it what bench/upstream.py restates.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench import upstream
from runner.core.artifacts.profiles import shipped
from runner.core.data import corpus
from tests.evaluator.conftest import Load
from trainer.evaluator import score
from trainer.evaluator.causality import prove
from trainer.wire.packing import Documents, pack_rows

SMALL = upstream.Config(sequence_len=64, vocab_size=256, n_layer=4, n_head=2, n_kv_head=2, n_embd=64)
published = pytest.mark.skipif(
    upstream.checkout() is None, reason="compares with the published files: set GLOVEBOX_UPSTREAM"
)


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_upstreams_model_is_proved_and_scores_as_upstream_scores_it(autocast: bool, through_files: Load) -> None:
    gpt = upstream.model(SMALL)
    if not autocast:
        gpt = gpt.float()
        for name in ("cos", "sin"):
            setattr(gpt, name, getattr(gpt, name).float())
    rows = torch.randint(0, SMALL.vocab_size, (8, SMALL.sequence_len + 1))
    token_bytes = torch.randint(0, 6, (SMALL.vocab_size,))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        batches = ((r[:, :-1].contiguous(), r[:, 1:].contiguous()) for r in rows.split(2))
        expected = upstream.evaluate_bpb(gpt, batches, token_bytes)
        prog = through_files(gpt, rows=2, seq_len=SMALL.sequence_len, vocab=SMALL.vocab_size)
    proof = prove(prog)
    assert proof.proved, proof
    found = score.score(
        prog, rows, token_bytes, token_bytes, proof.obligations.watch(), lambda _: proof.obligations.discharge()
    )
    assert found.upstream == pytest.approx(expected, rel=2e-4 if autocast else 1e-6)


@pytest.fixture(scope="module")
def theirs(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Upstream's prepare.py over the demo corpus and our tokenizer, its device lines changed for a CPU."""
    folder = upstream.checkout()
    assert folder is not None
    home = tmp_path_factory.mktemp("cache")
    cache = home / ".cache" / "autoresearch"
    for name in ("data", "tokenizer"):
        (cache / name).mkdir(parents=True)
    source = corpus.demo(b"")
    val = [text for group in source.val.groups() for text in group]
    for name, texts in (("shard_00000.parquet", list(source.texts())), ("shard_06542.parquet", val)):
        table = pa.table({"text": texts})
        pq.write_table(table, cache / "data" / name, row_group_size=len(table))
    patch = pytest.MonkeyPatch()
    patch.setenv("GLOVEBOX_ARTIFACTS", str(artifact))
    patch.setenv("HOME", str(home))
    import importlib

    import trainer.prepare as ours

    ours = importlib.reload(ours)
    with (cache / "tokenizer" / "tokenizer.pkl").open("wb") as file:
        pickle.dump(ours.Tokenizer.from_directory().enc, file)
    torch.save(ours.get_token_bytes(), cache / "tokenizer" / "token_bytes.pt")
    text = (
        (folder / "prepare.py")
        .read_text()
        .replace('device="cuda"', 'device="cpu"')
        .replace("pin_memory=True", "pin_memory=False")
    )
    text = re.sub(r"^MAX_SEQ_LEN = .*", "MAX_SEQ_LEN = 256", text, flags=re.MULTILINE)
    text = re.sub(r"^EVAL_TOKENS = .*", f"EVAL_TOKENS = {shipped('demo').eval_tokens}", text, flags=re.MULTILINE)
    space: dict[str, Any] = {"__name__": "upstream_prepare"}
    exec(compile(text, "prepare.py", "exec"), space)
    yield {**space, "ours": ours}
    patch.undo()


@published
def test_training_batches_are_upstreams_bit_for_bit(theirs: dict[str, Any]) -> None:
    ours = theirs["ours"]
    for rows, length in ((4, 256), (3, 100), (16, 31)):
        left = ours.make_dataloader(ours.Tokenizer.from_directory(), rows, length, "train")
        right = theirs["make_dataloader"](theirs["Tokenizer"].from_directory(), rows, length, "train")
        for _ in range(40):
            (x, y, epoch), (other_x, other_y, other_epoch) = next(left), next(right)
            assert torch.equal(x, other_x)
            assert torch.equal(y, other_y)
            assert epoch == other_epoch


@published
def test_the_evaluator_equals_upstreams_own_evaluate_bpb(
    theirs: dict[str, Any], artifact: Path, through_files: Load
) -> None:
    config = upstream.Config(sequence_len=256, vocab_size=1024, n_layer=2, n_head=2, n_kv_head=2, n_embd=64)
    gpt = upstream.model(config).float()
    gpt.cos, gpt.sin = gpt.cos.float(), gpt.sin.float()
    expected = theirs["evaluate_bpb"](gpt, theirs["Tokenizer"].from_directory(), 4)
    prog = through_files(gpt, rows=4, seq_len=256, vocab=1024)
    rows = torch.from_numpy(np.load(artifact / "val" / "rows.npy").astype(np.int64))
    table = torch.from_numpy(np.load(artifact / "tokenizer" / "token_bytes.npy").astype(np.int64))
    found = score.score(prog, rows, table, table, {}, lambda _: None)
    assert found.upstream == pytest.approx(expected, rel=1e-6)


def test_the_packed_validation_rows_are_the_loaders(artifact: Path) -> None:
    """Restated: rows in loader order, independent of the batch they are read in."""
    packed = np.load(artifact / "val" / "rows.npy")
    assert packed.shape == (shipped("demo").eval_rows, 257)
    tokens = np.concatenate([packed[0], packed[1]])
    rows = Documents([(tokens.astype(np.uint16), np.array([257, 257], dtype=np.int32), np.array([2]))])
    again: Iterator[Any] = pack_rows(rows, 257, buffer_size=1)
    assert np.array_equal(next(again)[0], packed[0].astype(np.int64))
    assert math.isfinite(float(packed.mean()))


@pytest.mark.engine
@pytest.mark.slow
def test_upstreams_train_py_runs_and_scores(loop: Any, work: Path) -> None:
    """Published: device lines patched for a CPU, sizes for its speed. Restated: tests/upstream_like.py."""
    folder = upstream.checkout()
    work.write_text(
        _on_cpu(folder / "train.py") if folder else (Path(__file__).parents[1] / "upstream_like.py").read_text()
    )
    feedback = loop.experiment(work, "upstream's train.py")
    log = loop.home.run(loop.ledger.experiments(loop.tag)[-1].run) / "trainer.log"
    assert feedback.status in ("keep", "discard"), log.read_text()[-3000:]
    assert feedback.causality == "proved"
    assert feedback.val_bpb is not None
    assert 1.0 < feedback.val_bpb < 6.0
    assert len(feedback.telemetry.curve) > 2


def _on_cpu(path: Path) -> str:
    text = path.read_text()
    for old, new in (
        ("cap = torch.cuda.get_device_capability()", "cap = (9, 0)"),
        ("torch.cuda.manual_seed(42)", ""),
        ("torch.cuda.synchronize()", ""),
        ('torch.device("cuda")', 'torch.device("cpu")'),
        ('device_type="cuda"', 'device_type="cpu"'),
        ("torch.cuda.max_memory_allocated()", "0"),
        (
            'os.environ["PYTORCH_ALLOC_CONF"]',
            'os.environ["TORCHDYNAMO_DISABLE"] = "1"\nos.environ["PYTORCH_ALLOC_CONF"]',
        ),
        ("DEPTH = 8 ", "DEPTH = 2 "),
        ("TOTAL_BATCH_SIZE = 2**19 ", "TOTAL_BATCH_SIZE = 2**11 "),
        ("DEVICE_BATCH_SIZE = 128 ", "DEVICE_BATCH_SIZE = 8 "),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text
