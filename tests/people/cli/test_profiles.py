"""`glovebox profile`: looking at scales, and one of one's own that nothing else comes with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from runner.core.artifacts import profiles
from runner.core.base.home import Home

Glovebox = Callable[..., tuple[int, str, str]]


def test_all_are_listed_and_one_is_estimated(glovebox: Glovebox, home: Home) -> None:
    code, out, _ = glovebox("profile", "list", "--json")
    assert (code, sorted(json.loads(out)["profiles"])) == (0, profiles.names(home.policies))
    code, out, _ = glovebox("profile", "check", "small", "--json")
    told = json.loads(out)
    assert (code, told["settings"]["max_seq_len"]) == (0, 512)
    assert told["estimate"]["passes"] == 256
    assert "rows of 512 tokens" in glovebox("profile", "check", "small")[1]


def test_ones_own_is_written_checked_and_used(glovebox: Glovebox, home: Home) -> None:
    settings = ["--set", "vocab_size=300", "--set", "about=mine: of my own"]
    code, _, err = glovebox("profile", "new", "mine", "--from", "demo", *settings)
    assert code == 3  # a colon within a value is another key to YAML
    assert "mine.yaml" in err
    assert not (home.policies[0] / "profiles" / "mine.yaml").exists()
    settings[-1] = "about=mine"
    assert glovebox("profile", "new", "mine", "--from", "demo", *settings)[0] == 0
    made = profiles.load(home.policies, "mine")
    assert (made.vocab_size, made.about, made.max_seq_len) == (300, "mine", 256)
    assert "mine" in glovebox("profile", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["mine", "--set", "vocab=1"], 3, "no setting 'vocab'"),
        (["mine", "--set", "vocab_size"], 3, "vocab_size"),
        (["mine", "--set", "eval_tokens=33"], 3, "multiple of max_seq_len"),
        (["mine", "--set", "about=x\ngpu_gib: 9"], 3, "gpu_gib"),
        (["demo"], 2, "there is a profile"),
        (["kernels"], 3, "no name for a profile"),
        (["../x"], 3, "no name for a profile"),
        (["mine", "--from", "none"], 3, "no profile 'none'"),
    ],
)
def test_what_is_refused_leaves_nothing(
    glovebox: Glovebox, home: Home, arguments: list[str], code: int, told: str
) -> None:
    before = sorted(home.root.rglob("*.yaml"))
    found, _, err = glovebox("profile", "new", *arguments)
    assert (found, told in err) == (code, True), err
    assert sorted(home.root.rglob("*.yaml")) == before


def test_prepare_takes_any_and_names_those_there_are(glovebox: Glovebox, home: Home) -> None:
    code, _, err = glovebox("prepare", "--profile", "nothing")
    assert code == 3
    assert "cpu-hour, demo" in err
    code, _, err = glovebox("prepare", "--profile", "demo", "--data", "x", "--shards", "y")
    assert code == 2
    code, _, err = glovebox("prepare", "--profile", "demo", "--data", "nowhere:many")
    assert code == 2


def test_a_setting_that_cannot_be_found_in_the_file_is_refused_not_passed_over(glovebox: Glovebox, home: Home) -> None:
    folder = home.policies[0] / "profiles"
    folder.mkdir()
    text = (home.policies[1] / "profiles" / "small.yaml").read_text()
    (folder / "odd.yaml").write_text(text.replace("vocab_size: 4096", "vocab_size : 4096"))
    code, _, err = glovebox("profile", "new", "mine", "--from", "odd", "--set", "vocab_size=300")
    assert (code, "in a line of its own" in err) == (3, True)
