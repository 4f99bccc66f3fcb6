"""Every command without a bench, a tag, a file or an artifact: one line that names the way out, and a code that fits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.ledger import Ledger
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture

Glovebox = Callable[..., tuple[int, str, str]]
ON_A_BENCH = [
    ["status"], ["history"], ["show", "1"], ["watch", "--once"], ["report"], ["confirm"], ["rerun", "1"], ["export"],
    ["verify"], ["gc"], ["backup", "b.tar.gz"], ["prepare", "--profile", "demo"], ["keys", "list"],
    ["compare", "t"], ["notes"], ["hint", "x"], ["pause"], ["resume"], ["veto", "2"], ["program"], ["program", "log"],
    ["program", "show"], ["program", "diff", "now"],
    ["tags"], ["tags", "rename", "t", "x"], ["tags", "archive", "t"], ["tags", "delete", "t"], ["logs", "1"], ["best"], ["run", "--tag", "t"], ["up", "--tag", "t", "--agent", "scripted"], ["stop"], ["doctor", "--clock"],
]  # fmt: skip
OF_A_TAG = [
    ["tags"],
    ["status"],
    ["history"],
    ["show", "1"],
    ["watch", "--once"],
    ["report"],
    ["confirm"],
    ["rerun", "1"],
    ["export"],
    ["logs", "1"],
    ["best"],
    ["notes"],
    ["hint", "x"],
    ["pause"],
    ["resume"],
    ["veto", "2"],
    ["program", "log"],
]
ONE_LINE = 400


@pytest.mark.parametrize("command", ON_A_BENCH, ids=" ".join)
def test_without_a_bench(tmp_path: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner", *command],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(tmp_path / "none")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("glovebox: ")
    assert "run: glovebox init" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", OF_A_TAG, ids=" ".join)
def test_before_the_first_run(glovebox: Glovebox, command: list[str]) -> None:
    code, out, err = glovebox(*command)
    assert (code, out) == (2, "")
    assert "no experiment has been run yet" in err.replace("\n", " ")


@pytest.mark.parametrize("command", OF_A_TAG[1:], ids=" ".join)
def test_an_unknown_tag_names_the_known_ones(glovebox: Glovebox, bench: Home, command: list[str]) -> None:
    code, out, err = glovebox(*command, "--tag", "nov99")
    assert (code, out) == (2, ""), err
    assert "no tag nov99 (fix: tags: t)" in err.replace("\n", " ")
    assert Ledger(bench.ledger, read_only=True).tags() == ["t"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", "--tag", "t", "--train-py", "none.py"], "none.py: no such file"),
        (["verify", "--witness", "none"], "none: no such file"),
        (["restore", "none.tar.gz"], "none.tar.gz: no such file"),
        (["init", "--from", "none"], "none: no such folder (fix: name one that glovebox export made)"),
        (["show", "99"], "no experiment 99 in tag t (fix: experiments: 1 to 3)"),
        (["up", "--tag", "t", "--from-tag", "Bad Tag", "--agent", "scripted"], "use lower case letters"),
        (["run", "--tag", "../x"], "use lower case letters"),
        (["status", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_or_is_no_command_is_wrong_usage(
    glovebox: Glovebox, bench: Home, command: list[str], said: str
) -> None:
    code, out, err = glovebox(*command)
    assert (code, out) == (2, ""), err
    assert said in " ".join(err.split()), err
    assert "(fix: " in err or "Usage" in err
    assert "Traceback" not in err


def test_a_backup_is_not_restored_onto_a_bench(glovebox: Glovebox, bench: Home, tmp_path: Path) -> None:
    assert glovebox("backup", str(tmp_path / "b.tar.gz"))[0] == 0
    code, _, err = glovebox("restore", str(tmp_path / "b.tar.gz"))
    assert code == 2
    assert "there is a bench already" in err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["show", "99"], 2),
        (["status", "--tag", "none"], 2),
        (["verify", "--since", "x"], 8),
        (["status", "--nonsense"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_with_json_are_json(glovebox: Glovebox, bench: Home, command: list[str], code: int) -> None:
    done, out, err = glovebox(*command, "--json")
    assert done == code, err
    told = json.loads(out)["error"]
    assert told["exit_code"] == code
    assert told["what"]
    assert err == ""


def test_an_export_without_its_artifact_names_the_profile(glovebox: Glovebox, bench: Home, tmp_path: Path) -> None:
    """`prepare` alone would download upstream's data."""
    shutil.rmtree(bench.store)
    shutil.rmtree(bench.artifacts)
    code, _, err = glovebox("export", "--output", str(tmp_path / "out"))
    told = " ".join(err.split())
    assert code == 4, told
    assert "glovebox prepare --profile demo" in told
    assert not (tmp_path / "out").exists()
    assert not list(bench.root.glob("*partial*"))


@pytest.mark.parametrize("command", [["status"], ["history"], ["verify"], ["policy", "explain"]], ids=" ".join)
def test_a_full_disk_behind_the_output_is_one_line(bench: Home, command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "runner", *command],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(bench.root)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("glovebox: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < ONE_LINE


def test_help_and_version_are_commands_too(glovebox: Glovebox) -> None:
    assert glovebox("help")[1] == glovebox("-h")[1]
    assert glovebox("help", "tags", "rename")[1] == glovebox("tags", "rename", "--help")[1]
    assert glovebox("help", "nonsense")[0] == 2
    assert glovebox("version")[1] == glovebox("--version")[1]
    assert "version" in json.loads(glovebox("version", "--json")[1])


def test_help_lists_every_command_in_our_order_and_each_says_what_it_does() -> None:
    import typer

    from runner.people.cli import main

    commands = typer.main.get_command(main.app).commands  # type: ignore[attr-defined]
    assert sorted(commands) == sorted(main._ORDER)
    assert all(command.get_short_help_str(200).strip() for command in commands.values())


def test_codes_that_a_session_ends_with_are_all_in_the_help(glovebox: Glovebox) -> None:
    from runner.core.base import errors

    codes = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    told = " ".join(glovebox("--help")[1].split())
    assert all(re.search(rf"[ ,]{code} [a-z]", told) for code in codes | {errors.TOLD_CODE, 130}), told
