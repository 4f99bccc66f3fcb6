"""Upstream's pickled tokenizer is read without unpickling: the real one passes, every hostile one is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.artifacts.profiles import SPECIAL_TOKENS, SPLIT_PATTERN, Profile
from runner.core.base.errors import ArtifactError
from runner.core.data import upstream_cache

PROFILE = Profile("small", 64, 1, 300, 64, 1, 1000, 100)
RANKS = {bytes([i]): i for i in range(256)} | {b"a" * n: 254 + n for n in range(2, 42)}
SPECIALS = {name: 296 + i for i, name in enumerate(SPECIAL_TOKENS)}


def encoding(**changes: Any) -> tiktoken.Encoding:
    fields = {"name": "rustbpe", "pat_str": SPLIT_PATTERN, "mergeable_ranks": RANKS, "special_tokens": SPECIALS}
    return tiktoken.Encoding(**(fields | changes))


def cached(folder: Path, data: bytes) -> Path:
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "tokenizer.pkl").write_bytes(data)
    return folder


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_upstream_writes_is_read(tmp_path: Path, protocol: int) -> None:
    folder = cached(tmp_path, pickle.dumps(encoding(), protocol))
    if protocol < 3:  # bytes are then built by a function call
        with pytest.raises(ArtifactError, match=r"not tiktoken's|operation"):
            upstream_cache.ranks(folder, PROFILE)
    else:
        assert upstream_cache.ranks(folder, PROFILE) == RANKS


class Runs:
    """Unpickling this runs a command."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "hostile",
    [
        pickle.dumps(Runs(os.system, "touch /tmp/glovebox-pwned")),
        pickle.dumps({"mergeable_ranks": Runs(eval, "1")}),
        pickle.dumps(encoding()).replace(b"tiktoken.core", b"posixpath.os"),
        b"cos\nsystem\n(S'touch /tmp/glovebox-pwned'\ntR.",
        b"\x80\x04ctiktoken.core\nEncoding\n)\x81}b.",
        b"\x80\x04ctiktoken.core\nEncoding\n)R.",
        b"\x80\x04\x82\x01.",
        b"\x80\x04Pid\n.",
        pickle.dumps(RANKS),
        pickle.dumps([1, 2]),
        b"}p0\n.",
        b"(u.",
        b"",
        b"\x80",
        b".",
    ],
)
def test_a_pickle_that_could_do_anything_else_is_refused_and_does_nothing(tmp_path: Path, hostile: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        upstream_cache.ranks(cached(tmp_path, hostile), PROFILE)
    assert "--shards" in str(caught.value)
    assert not Path("/tmp/glovebox-pwned").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pat_str": r"\w+"}, "split pattern"),
        ({"special_tokens": {"<|evil|>": 296}}, "special tokens"),
        ({"mergeable_ranks": {k: v for k, v in RANKS.items() if v != 295}}, "not 296 tokens"),
        ({"mergeable_ranks": {k: v for k, v in RANKS.items() if k != b"z"} | {b"zz": RANKS[b"z"]}}, "byte without"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        upstream_cache.ranks(cached(tmp_path, pickle.dumps(encoding(**changes))), PROFILE)


def test_no_cache_at_all(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"prepare\.py"):
        upstream_cache.ranks(tmp_path, PROFILE)


GOOD = pickle.dumps(encoding())


@settings(deadline=None)
@given(st.binary(max_size=200) | st.integers(0, len(GOOD) - 1).map(lambda i: GOOD[:i] + b"\x93" + GOOD[i + 1 :]))
def test_any_bytes_are_refused_or_a_tokenizer(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    try:
        found = upstream_cache.ranks(cached(tmp_path_factory.mktemp("c"), data), PROFILE)
    except ArtifactError:
        return
    assert sorted(found.values()) == list(range(296))
