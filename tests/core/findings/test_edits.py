"""Kinds of edits, told from real sources; and files made to choke on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.mountable import SOURCE
from runner.core.findings import edits
from runner.people.pages import session_report

SEED = (SOURCE / "trainer" / "train.py").read_bytes()


def changed(old: bytes, new: bytes, source: bytes = SEED) -> tuple[str, ...]:
    assert old in source
    return edits.kinds(source, source.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (b"MATRIX_LR = 0.02", b"MATRIX_LR = 0.03", "learning_rate"),
        (b"WARMDOWN = 0.4", b"WARMDOWN = 0.6", "schedule"),
        (b"2**14 ", b"2**13 ", "batch"),
        (b"DEPTH = 8", b"DEPTH = 9", "size"),
        (b"WEIGHT_DECAY = 0.1", b"WEIGHT_DECAY = 0.2", "regularization"),
        (b"momentum=0.95", b"momentum=0.9", "optimizer"),
        (b"q, k = rms(rotate(q, cos, sin))", b"q, k = rms(rotate(q, sin, cos))", "attention"),
        (b"self.embed.weight.normal_()", b"self.embed.weight.zero_()", "initialization"),
        (b"F.relu(self.up(rms(x))).square()", b"F.gelu(self.up(rms(x)))", "architecture"),
        (b"loss.backward()", b"(2 * loss).backward()", "training_loop"),
        (b"# Dials", b"# Knobs", "nothing"),
        (b"def rms(x):", b"def rms(x", "other"),
    ],
)
def test_edits_of_the_seed_are_told_apart(old: bytes, new: bytes, kind: str) -> None:
    assert changed(old, new) == (kind,)


def test_two_things_at_once_are_both_named_in_a_fixed_order() -> None:
    both = SEED.replace(b"DEPTH = 8", b"DEPTH = 9").replace(b"EMBED_LR = 0.3", b"EMBED_LR = 0.2")
    assert edits.kinds(SEED, both) == ("learning_rate", "size")


def test_upstreams_own_dials_are_told_apart() -> None:
    folder = os.environ.get("GLOVEBOX_UPSTREAM")
    restated = b"EMBEDDING_LR = 0.6  # embeddings\nASPECT_RATIO = 64  # width over depth\nDEPTH = 8\n"
    source = (Path(folder) / "train.py").read_bytes() if folder else restated
    assert changed(b"EMBEDDING_LR = 0.6", b"EMBEDDING_LR = 0.8", source) == ("learning_rate",)
    assert changed(b"ASPECT_RATIO = 64", b"ASPECT_RATIO = 57", source) == ("size",)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_kind(data: bytes) -> None:
    assert edits.kinds(SEED, data)
    assert edits.kinds(data, data) in (("nothing",), ("other",))


HUGE = (
    b"A = 0x" + b"f" * 4000,
    b"A = " + b"+".join([b"1"] * 1500),
    b"x;" * 100_000,
    b"A = " + b"(" * 150 + b")" * 150,
    b"# coding: utf-7\n+AAo-x = 1\n",
)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "source", HUGE, ids=["digits", "deep sum", "one line", "brackets", "more lines than bytes say"]
)
def test_a_file_made_to_choke_on_is_only_another_kind(source: bytes) -> None:
    """Every recorded train.py is analysed again and again: none may end a night, or take longer than a look."""
    assert edits.kinds(SEED, source)
    assert edits.kinds(source, source + b"\ny = 1\n")
    assert isinstance(session_report.dials(source), dict)
