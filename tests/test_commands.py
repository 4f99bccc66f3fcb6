"""docs/commands.md is what the commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runner.core.base.mountable import SOURCE

SCRIPT, TARGET = SOURCE / "scripts" / "commands.py", SOURCE / "docs" / "commands.md"


def test_the_commands_are_documented_as_they_are() -> None:
    assert subprocess.run([sys.executable, str(SCRIPT), "--check"], check=False).returncode == 0, (
        "run scripts/commands.py"
    )
    text = TARGET.read_text()
    for command in ("init", "prepare", "serve", "profile new", "tags rename", "keys rotate", "program use"):
        assert f"## glovebox {command}\n" in text


def test_a_text_that_is_not_current_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "commands.py").write_text(SCRIPT.read_text())
    (tmp_path / "docs" / "commands.md").write_text(TARGET.read_text().replace("--port", "--door"))
    command = [sys.executable, str(tmp_path / "scripts" / "commands.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 1
