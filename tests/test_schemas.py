"""docs/schemas/ and docs/json.md are of what the commands print, and every command with --json has one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer

from runner.core.base.mountable import SOURCE
from runner.people.cli.documents.registry import DOCUMENTS
from runner.people.cli.main import app
from tests import published

SCRIPT = SOURCE / "scripts" / "schemas.py"
Glovebox = Callable[..., tuple[int, str, str]]


def with_json(group: Any, path: str, parent: Any) -> Iterator[str]:
    """Every command that takes --json, as people type it."""
    context = group.make_context(path or "glovebox", [], parent=parent, resilient_parsing=True)
    if any("--json" in option.opts for option in group.params):
        yield path
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        whole = f"{path} {name}".strip()
        if hasattr(command, "list_commands"):
            yield from with_json(command, whole, context)
        elif any("--json" in option.opts for option in command.params):
            yield whole


def test_every_command_with_json_says_what_it_prints() -> None:
    assert set(with_json(typer.main.get_command(app), "", None)) == set(DOCUMENTS)


def test_the_schemas_are_of_what_is_printed() -> None:
    assert subprocess.run([sys.executable, str(SCRIPT), "--check"], check=False).returncode == 0, (
        "run scripts/schemas.py"
    )
    text = (SOURCE / "docs" / "json.md").read_text()
    for command in DOCUMENTS:
        name = f"{command.replace(' ', '-') or 'glovebox'}.json"
        assert f"](schemas/{name})" in text
        schema = json.loads((published.SCHEMAS / name).read_text())
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("change", ["edited", "gone", "stray"])
def test_a_schema_that_is_not_current_is_noticed(tmp_path: Path, change: str) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "schemas.py").write_text(SCRIPT.read_text())
    script = [sys.executable, str(tmp_path / "scripts" / "schemas.py")]
    (tmp_path / "docs").mkdir()
    subprocess.run(script, check=True)
    assert subprocess.run([*script, "--check"], check=False).returncode == 0
    path = tmp_path / "docs" / "schemas" / "version.json"
    if change == "edited":
        path.write_text(path.read_text().replace("string", "integer"))
    elif change == "gone":
        path.unlink()
    else:
        path.with_name("another.json").write_text("{}")
    assert subprocess.run([*script, "--check"], check=False).returncode == 1


def test_documents_that_are_not_as_published_are_noticed() -> None:
    published.check(["version", "--json"], '{"version": "1.0"}\n')
    published.check(["tags", "rename", "a", "b", "--json"], '{"tag": "a", "name": "b"}\n')
    published.check(["tags", "--json"], '{"tags": []}\n')
    published.check(["tags", "--json"], '{"error": {"what": "", "where": "", "fix": "", "exit_code": 2}}\n')
    for out in ('{"version": 1}', '{"version": "1.0", "more": 1}', "{}"):
        with pytest.raises(jsonschema.ValidationError):
            published.check(["version", "--json"], out)
    with pytest.raises(json.JSONDecodeError):
        published.check(["version", "--json"], "glovebox 1.0")


def test_a_bench_without_containers_prints_as_published(glovebox: Glovebox) -> None:
    """Those that need a run or an engine are looked at wherever else a test calls them (conftest.glovebox)."""
    for words in (
        "", "version", "init", "keys list", "keys new second", "keys threshold 1", "profile list", "profile check small",
        "profile new mine --from small", "policy explain", "explain", "explain keep", "program", "program use small",
        "program show", "program diff now now", "tags", "doctor --clock", "verify", "gc", "backup there.tar.gz", "stop",
        "stop --after", "prepare --profile demo --if-missing", "status", "warm --forget",
    ):  # fmt: skip
        code, out, _ = glovebox(*words.split(), "--json")
        assert out.count("\n") == 1, words
        assert code == 0 or "error" in json.loads(out), words
