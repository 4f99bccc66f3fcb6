"""The policy loader refuses what is ambiguous or over-broad, and says where."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.core.base import strict_yaml
from runner.core.base.errors import PolicyError
from runner.core.policy import policy_files
from tests.conftest import POLICIES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


def edit(folder: Path, name: str, old: str, new: str) -> Path:
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def refused(folder: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        policy_files.load(folder)
    assert caught.value.exit_code == 3
    assert caught.value.fix
    return str(caught.value)


def test_the_shipped_policies_load(folder: Path) -> None:
    assert policy_files.load(folder).sandbox.runtime == "runc"


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "decision.yaml").unlink()
    assert "decision.yaml" in refused(folder)


def test_an_empty_file_is_refused_differently_from_a_missing_one(folder: Path) -> None:
    (folder / "decision.yaml").write_text("# nothing\n")
    assert "empty" in refused(folder)


def test_a_duplicate_key_is_refused_with_its_line(folder: Path) -> None:
    edit(folder, "sandbox.yaml", "runtime: runc", "runtime: runc\nruntime: runsc")
    message = refused(folder)
    assert "duplicate key 'runtime'" in message
    assert "sandbox.yaml:6" in message


def test_a_duplicate_nested_key_is_refused(folder: Path) -> None:
    edit(folder, "sandbox.yaml", "  pids: 1024", "  pids: 1024\n  pids: 4096")
    assert "duplicate key 'pids'" in refused(folder)


def test_an_unknown_key_is_refused_with_its_line(folder: Path) -> None:
    edit(folder, "sandbox.yaml", "  pids: 1024", "  privileged: true\n  pids: 1024")
    message = refused(folder)
    assert "trainer.privileged" in message
    line = (folder / "sandbox.yaml").read_text().splitlines().index("  privileged: true") + 1
    assert f"sandbox.yaml:{line}" in message
    assert "remove" in message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("uid: 65532", "uid: 0"),
        ("pids: 1024", "pids: -1"),
        ("memory_bytes: 68719476736     #", "memory_bytes: .inf #"),
        ("cpus: 64.0  ", "cpus: '*' "),
        ("pids: 1024", "pids: '1024'"),
        ("runtime: runc ", "runtime: crun "),
        ("image: glovebox/trainer:dev", "image: '*'"),
        ("open_files: 4096", "open_files: yes"),
    ],
)
def test_over_broad_and_coerced_values_are_refused(folder: Path, old: str, new: str) -> None:
    edit(folder, "sandbox.yaml", old, new)
    refused(folder)


@pytest.mark.parametrize(
    "text",
    [
        "rule: &a margin\n",
        "a: &x {b: 1}\nc: *x\n",
        "<<: {rule: margin}\n",
        "rule: !!python/name:os.system x\n",
        "? [a, b]\n: 1\n",
        "1: margin\n",
        "rule: [unclosed\n",
        "- margin\n",
        "just text\n",
    ],
)
def test_yaml_tricks_are_refused(folder: Path, text: str) -> None:
    (folder / "decision.yaml").write_text(text)
    refused(folder)


def test_an_oversize_file_is_refused(folder: Path) -> None:
    path = folder / "errors.yaml"
    path.write_text(path.read_text() + "#" * strict_yaml.MAX_BYTES)
    assert "larger than" in refused(folder)


def test_a_file_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "agent.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(folder)


def test_any_change_of_bytes_changes_the_digest(folder: Path) -> None:
    before = policy_files.load(folder).digest
    edit(folder, "agent.yaml", "history_rows: 200 ", "history_rows: 201 ")
    assert policy_files.load(folder).digest != before


def test_weights_that_may_be_scored_must_be_allowed_to_be_written(tmp_path: Path) -> None:
    text = (POLICIES / "evaluator.yaml").read_text()
    assert "weight_bytes: 2130706432" in text
    (tmp_path / "evaluator.yaml").write_text(text.replace("weight_bytes: 2130706432", "weight_bytes: 4294967296"))
    with pytest.raises(PolicyError, match="more than a trainer may write") as caught:
        policy_files.load(tmp_path, POLICIES)
    assert "evaluator.yaml" in str(caught.value.where)
    assert "trainer.file_bytes" in str(caught.value.fix)
    (tmp_path / "evaluator.yaml").write_text(text.replace("weight_bytes: 2130706432", "weight_bytes: 2147483648"))
    policy_files.load(tmp_path, POLICIES)
