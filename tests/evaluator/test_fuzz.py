"""Mutated graphs and weights: every one is either a working program or a clean refusal.

GLOVEBOX_FUZZ sets the number of mutants (default 1,500; 100,000 were run by hand for the release notes).
"""

from __future__ import annotations

import copy
import json
import os
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluator.build import Build
from trainer.evaluator.causality import prove
from trainer.evaluator.model import graph, ops, program, weights
from trainer.wire.refusal import Reason, Refused

COUNT = int(os.environ.get("GLOVEBOX_FUZZ", "1500"))
CPU = torch.device("cpu")
LIMITS = program.Limits(weight_bytes=1 << 20, peak_bytes=64 << 20, elements=1 << 20, total_elements=1 << 24, flops=1e9)
SEEDS: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 8, 16, 2**31, -(2**63), 2**40, 0.5, -0.0, 1e300, "none", "tanh", "x", [], [[]],
    [0, 1], [-1], {"t": 0}, {"t": 3}, {"t": 99}, {"t": -1}, {"f": "nan"}, {"f": "inf"}, {"f": "1"}, {"d": "float32"},
    {"d": "int64"}, {"d": "bool"}, {"d": "complex64"}, {"d": "float16"}, {"d": "quint8"}, {"dev": 0}, {"dev": "cuda"},
    {"mf": "contiguous_format"}, {"a": 1}, {},
]  # fmt: skip


def honest() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A small attention model with most kinds of operations."""
    b = Build(table=torch.randn(16, 8), mask=torch.ones(8, 8).tril(), head=torch.randn(16, 8))
    x = b.op("embedding.default", b.ids["table"], b.idx)
    h = b.op("rms_norm.default", x, [8])
    scores = b.op("matmul.default", h, b.op("transpose.int", h, -1, -2))
    hidden = b.op("eq.Scalar", b.ids["mask"], 0)
    weights_ = b.op("softmax.int", b.op("masked_fill.Scalar", scores, hidden, {"f": "-inf"}), -1)
    y = b.op("add.Tensor", x, b.op("matmul.default", weights_, h))
    top = b.op("topk.default", y, 2, n=2)
    y = b.op("add.Tensor", y, b.op("sum.dim_IntList", top, [-1], True))
    y = b.op("cat.default", [b.op("slice.Tensor", y, 2, 0, 4), b.op("slice.Tensor", y, 2, 4, 8)], -1)
    out = b.op("linear.default", b.op("gelu.default", y, approximate="tanh"), b.ids["head"])
    return json.loads(b.data(out)), b.weights


def mutate(document: dict[str, Any], rng: random.Random) -> bytes:
    """One to three changes of structure or value, sometimes of the text itself."""
    document = copy.deepcopy(document)
    names = [
        *ops.allowed(),
        "aten.as_strided.default",
        "aten.empty.memory_format",
        "prims.add",
        "aten.set_.source_Tensor",
    ]
    for _ in range(rng.randint(1, 3)):
        node = rng.choice(document["nodes"])
        kind = rng.randrange(9)
        if not isinstance(node["a"], list):
            continue
        if kind == 0:
            node["op"] = rng.choice(names)
        elif kind == 1 and node["a"]:
            node["a"][rng.randrange(len(node["a"]))] = copy.deepcopy(rng.choice(SEEDS))
        elif kind == 2:
            node["a"].insert(rng.randint(0, len(node["a"])), copy.deepcopy(rng.choice(SEEDS)))
        elif kind == 3 and node["a"]:
            node["a"].pop()
        elif kind == 4:
            node.setdefault("k", {})[rng.choice(["dim", "dtype", "scale", "alpha", "out", "keepdim"])] = rng.choice(
                SEEDS
            )
        elif kind == 5:
            node["n"] = rng.choice([0, 1, 2, 3, 4096, 10**6, "2"])
        elif kind == 6:
            document["nodes"].insert(rng.randint(0, len(document["nodes"])), {"op": rng.choice(names), "a": [{"t": 4}]})
        elif kind == 7:
            document[rng.choice(list(document))] = copy.deepcopy(rng.choice(SEEDS))
            return json.dumps(document).encode()
        else:
            document["output"] = rng.randrange(40)
    data = bytearray(json.dumps(document).encode())
    if rng.random() < 0.1:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


@pytest.mark.slow
def test_a_mutated_graph_is_a_program_or_a_refusal() -> None:
    torch.set_num_threads(1)
    document, tensors = honest()
    outcomes: Counter[str] = Counter()
    for seed in range(COUNT):
        data = mutate(document, random.Random(seed))
        try:
            parsed = graph.parse(data, CPU)
            assert all(str(node.op) in ops.allowed() for node in parsed.nodes)
            prog = program.prepare(parsed, tensors, rows=1, seq_len=8, vocab=16, device=CPU, limits=LIMITS)
            proof = prove(prog)
            prog(torch.zeros(1, 8, dtype=torch.int64), proof.obligations.watch())
            outcomes["program"] += 1
        except Refused as refused:
            outcomes[str(refused.reason)] += 1
        except (RuntimeError, IndexError):
            outcomes["execution"] += 1  # an operation failed on real data: __main__ turns it into a refusal
    print(dict(outcomes))
    assert outcomes["program"] > COUNT // 100
    assert {str(Reason.OP_NOT_ALLOWED), str(Reason.BAD_ARGUMENT), str(Reason.GRAPH_FORMAT)} <= set(outcomes)


def safetensors(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


GOOD = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 8 << 30) + GOOD,
        struct.pack("<Q", 2**64 - 1) + GOOD,
        safetensors(b"[]", b""),
        safetensors(GOOD[:-1] + b',"w":1}', b"\0" * 8),
        safetensors(GOOD.replace(b"[0,8]", b"[0,4]"), b"\0" * 8),
        safetensors(GOOD.replace(b"[0,8]", b"[4,12]"), b"\0" * 12),
        safetensors(GOOD.replace(b"[2]", b"[-2]"), b"\0" * 8),
        safetensors(GOOD.replace(b"[2]", b"[2.0]"), b"\0" * 8),
        safetensors(GOOD.replace(b"[2]", b"[1,1,1,1,1,1,1,1,2]"), b"\0" * 8),
        safetensors(GOOD.replace(b"F32", b"O"), b"\0" * 8),
        safetensors(GOOD, b"\0" * 7),
        safetensors(GOOD, b"\0" * 9),
        safetensors(GOOD.replace(b"F32", b"BOOL").replace(b"[0,8]", b"[0,2]"), b"\x02\x00"),
        safetensors(b"{" * 100_000, b""),
    ],
)
def test_malformed_weights_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    with pytest.raises(Refused) as caught:
        weights.load(path, 1 << 20, CPU)
    assert caught.value.reason is Reason.WEIGHTS_FORMAT


def test_well_formed_weights_load_and_agree_with_the_library(tmp_path: Path) -> None:
    import safetensors.torch as library

    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(2).bfloat16(),
        "c": torch.tensor(5),
        "d": torch.tensor([True, False]),
        "e": torch.zeros(0, 3),
    }
    path = tmp_path / "weights.safetensors"
    library.save_file(tensors, path)
    found = weights.load(path, 1 << 20, CPU)
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_as_weights_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("w") / "weights.safetensors"
    path.write_bytes(data)
    try:
        weights.load(path, 1 << 20, CPU)
    except Refused as refused:
        assert refused.reason is Reason.WEIGHTS_FORMAT
