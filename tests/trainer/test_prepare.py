"""trainer/prepare.py: upstream's interface over signed artifacts."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiktoken
import torch

from runner.core.artifacts.profiles import shipped
from tests.trainer.wire.test_packing import reference
from trainer.wire import packing


@pytest.fixture(scope="module")
def prepare(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    patch = pytest.MonkeyPatch()
    patch.setenv("GLOVEBOX_ARTIFACTS", str(artifact))
    patch.setenv("GLOVEBOX_OUT", str(tmp_path_factory.mktemp("out")))
    import trainer.prepare as module

    yield importlib.reload(module)
    patch.undo()


def test_the_profile_sets_the_constants(prepare: ModuleType) -> None:
    demo = shipped("demo")
    assert (
        256,
        demo.time_budget_s,
        demo.eval_tokens,
    ) == (prepare.MAX_SEQ_LEN, prepare.TIME_BUDGET, prepare.EVAL_TOKENS)


def test_the_upstream_profile_has_upstreams_numbers() -> None:
    up = shipped("upstream")
    assert (up.max_seq_len, up.time_budget_s, up.vocab_size, up.eval_tokens) == (2048, 300, 8192, 40 * 524288)
    assert up.eval_rows == 10_240


def test_the_tokenizer_round_trips_and_prepends(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.from_directory()
    text = "Hello world! Numbers: 123. 你好"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    bos = tokenizer.get_bos_token_id()
    assert tokenizer.encode(text, prepend=bos)[0] == bos
    assert tokenizer.encode([text, "x"], prepend="<|reserved_0|>")[1][0] == bos
    assert tokenizer.get_vocab_size() == 1024
    assert isinstance(tokenizer.enc, tiktoken.Encoding)
    with pytest.raises(ValueError, match="Invalid input"):
        tokenizer.encode(7)


def test_batches_have_upstreams_shape_and_shift(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.from_directory()
    loader = prepare.make_dataloader(tokenizer, 3, 50, "train")
    for _ in range(5):
        x, y, epoch = next(loader)
        assert x.shape == y.shape == (3, 50)
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(x[:, 1:], y[:, :-1])
        assert (x[:, 0] == tokenizer.get_bos_token_id()).all()
        assert epoch >= 1


@pytest.mark.parametrize(("rows", "length"), [(1, 64), (4, 256), (3, 1000)])
def test_a_thousand_batches_equal_upstreams_algorithm(
    prepare: ModuleType, artifact: Path, rows: int, length: int
) -> None:
    """Documents taken from the artifact, packed by the restated rule; the buffer is upstream's 1,000 documents."""
    tokens, lengths, groups = (np.load(artifact / "train" / f"{part}_00000.npy") for part in packing.PARTS)
    ends = np.cumsum(lengths)
    docs = [tokens[end - size : end].tolist() for end, size in zip(ends, lengths, strict=True)]
    expected = reference(docs, groups.tolist(), length + 1, 1000)
    loader = prepare.make_dataloader(prepare.Tokenizer.from_directory(), rows, length, "train")
    for _ in range(1000):
        x, y, epoch = next(loader)
        for row in range(rows):
            wanted, last = next(expected)
            assert x[row].tolist() == wanted[:-1]
            assert y[row].tolist() == wanted[1:]
        assert epoch == last


def test_asking_for_validation_data_names_evaluate_bpb(prepare: ModuleType) -> None:
    with pytest.raises(ValueError, match="evaluate_bpb"):
        prepare.make_dataloader(prepare.Tokenizer.from_directory(), 1, 8, "val")


def test_no_validation_row_occurs_in_the_training_tokens(prepare: ModuleType, artifact: Path) -> None:
    train = np.load(artifact / "train" / "tokens_00000.npy").astype(np.uint16).tobytes()
    rows = np.load(artifact / "val" / "rows.npy")
    assert not any(row[:64].astype(np.uint16).tobytes() in train for row in rows[::8])


def test_token_bytes_count_what_upstream_counts(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.from_directory()
    table = prepare.get_token_bytes()
    for token in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([token])
        special = token >= tokenizer.get_vocab_size() - 4
        assert table[token] == (0 if special else len(text.encode()))


@pytest.mark.parametrize("given", [{"B": 0}, {"T": 0}, {"B": -1}, {"buffer_size": 0}])
def test_a_loader_of_nothing_says_which_argument(prepare: ModuleType, given: dict[str, int]) -> None:
    """T=0 trained on nothing, B=0 failed inside the loader."""
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        prepare.make_dataloader(None, **({"B": 2, "T": 8, "split": "train"} | given))


def test_a_loader_takes_a_device_and_evaluation_whatever_else_there_is(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import hand_over

    asked: list[object] = []
    monkeypatch.setattr(hand_over, "hand_over", lambda model, out, **given: asked.append(given["batch"]))
    x, y, _ = next(prepare.make_dataloader(None, 2, 8, "train", device="cpu"))
    assert np.isnan(prepare.evaluate_bpb(torch.nn.Identity(), None, 4, device="cuda", steps=3))
    (batch,) = asked
    assert torch.equal(batch.inputs, x)
    assert torch.equal(batch.targets, y)
