"""Whose bench it is: a stranger's, or one that a stranger could change, is not used and not made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.artifacts import keys
from runner.core.base import benches, home, ownership
from runner.core.base.errors import PolicyError
from runner.core.base.home import Home
from runner.core.evidence.git_line import GitLine
from tests import hostile_git

STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
Glovebox = Callable[..., tuple[int, str, str]]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A bench above the folder where a person works, theirs as yet."""
    share = tmp_path / "share"
    (share / "job").mkdir(parents=True)
    monkeypatch.chdir(share / "job")
    monkeypatch.delenv("GLOVEBOX_HOME", raising=False)
    made = Home(share / home.NAME)
    made.root.mkdir(mode=0o700)
    keys.create(made)
    (made.root / "work").mkdir()
    assert benches.find().root == made.root  # the control, for all tests below
    return made


def refused(match: str) -> None:
    with pytest.raises(PolicyError, match=match):
        benches.find()


@as_root
@pytest.mark.parametrize("name", [".", "policies", "keys", "work", "policies/trust.yaml", "keys/bench.pem"])
def test_a_strangers_bench_is_not_used(planted: Home, name: str) -> None:
    os.chown(planted.root / name, STRANGER, STRANGER)
    refused("belongs to user 54321")


@as_root
def test_a_strangers_folder_above_is_not_used(planted: Home) -> None:
    os.chown(planted.root.parent, STRANGER, STRANGER)
    refused("belongs to user 54321")


@as_root
def test_one_bench_can_be_named_and_no_other(planted: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(planted.root, STRANGER, STRANGER)
    for other in ("*", "1", "/", str(planted.root) + "/", str(planted.root.parent), ""):
        monkeypatch.setenv(ownership.ACCEPT, other)
        refused("belongs to")
    monkeypatch.setenv(ownership.ACCEPT, str(planted.root))
    assert benches.find().root == planted.root


@pytest.mark.parametrize("name", [".", "policies", "keys", "work", "policies/trust.yaml"])
@pytest.mark.parametrize("mode", [0o002, 0o1002])
def test_what_others_can_write_is_not_used(planted: Home, name: str, mode: int) -> None:
    path = planted.root / name
    path.chmod(path.stat().st_mode | mode)
    refused("can be written by others")


def test_a_folder_above_that_others_can_write_is_not_used_unless_they_can_only_add_to_it(planted: Home) -> None:
    planted.root.parent.chmod(0o1777)
    assert benches.find().root == planted.root
    planted.root.parent.chmod(0o777)
    refused("can be written by others.*chmod go-w")


@as_root
def test_a_group_others_are_in_counts_as_others(planted: Home) -> None:
    (planted.root / "policies").chmod(0o770)
    assert benches.find().root == planted.root  # root's own group
    os.chown(planted.root / "policies", 0, STRANGER)
    refused("can be written by others")


@pytest.mark.parametrize("name", ["policies", "keys", "line.git", "policies/broker.yaml"])
def test_a_link_inside_is_not_used(planted: Home, tmp_path: Path, name: str) -> None:
    target = tmp_path / "elsewhere"
    if (planted.root / name).exists():
        (planted.root / name).rename(target)
    (planted.root / name).symlink_to(target)
    refused("is a link")


def test_a_linked_bench_is_not_used(planted: Home, tmp_path: Path) -> None:
    planted.root.rename(tmp_path / "real")
    planted.root.symlink_to(tmp_path / "real")
    refused("is a link")


@as_root
def test_the_way_through_a_strangers_link_is_not_taken(
    planted: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(planted.root.parent)
    monkeypatch.setenv("GLOVEBOX_HOME", str(link / home.NAME))
    assert benches.find().root == planted.root  # a link of one's own is fine
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    refused("belongs to")
    os.chown(link, 0, 0, follow_symlinks=False)
    planted.root.parent.chmod(0o777)  # what the link leads to
    refused("can be written by others")


def test_a_circle_of_links_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to("a")
    monkeypatch.setenv("GLOVEBOX_HOME", str(tmp_path / "a" / "bench"))
    refused("too many links")


@as_root
def test_every_command_refuses_a_planted_bench_and_runs_nothing_of_it(
    glovebox: Glovebox, planted: Home, tmp_path: Path
) -> None:
    GitLine(planted.line)
    mark = hostile_git.plant(planted.line, tmp_path / "evil")
    hostile_git.lose_objects(planted.line)
    (planted.policies[0] / "broker.yaml").write_text("upstream: https://stranger.example\n")
    for path in (planted.root, *planted.root.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    for command in COMMANDS:
        code, out, told = glovebox(*command, env={"GLOVEBOX_HOME": str(planted.root)})
        assert code == (5 if command == ["doctor"] else 3), (command, told)
        assert "belongs to user 54321" in (out if command == ["doctor"] else told).replace("\n", " ")
    assert not mark.exists()


COMMANDS = [
    ["init"],
    ["verify"],
    ["status"],
    ["show", "1"],
    ["history"],
    ["report"],
    ["export"],
    ["gc"],
    ["backup", "b.tar.gz"],
    ["doctor"],
    ["keys", "list"],
    ["run", "--tag", "t"],
]
