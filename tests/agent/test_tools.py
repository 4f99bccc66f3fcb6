"""The agent's tools edit in place, and its proposals fit the seed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from agent import scripted
from agent.tools import EditError, Editor
from runner.core.base.mountable import SOURCE


@pytest.fixture
def editor(tmp_path: Path) -> Editor:
    path = tmp_path / "train.py"
    path.write_text("a = 1\nb = 2\n")
    return Editor(path)


def test_edits_keep_the_inode(editor: Editor) -> None:
    inode = editor.path.stat().st_ino
    editor.str_replace("a = 1", "a = 10")
    editor.insert(1, "# between")
    assert editor.text() == "a = 10\n# between\nb = 2\n"
    editor.write("c\n")
    assert editor.text() == "c\n"
    assert editor.path.stat().st_ino == inode


@pytest.mark.parametrize("old", ["nothing", "="])
def test_text_to_replace_must_occur_once(editor: Editor, old: str) -> None:
    with pytest.raises(EditError):
        editor.str_replace(old, "x")
    assert editor.text() == "a = 1\nb = 2\n"


def test_insert_outside_the_file_is_refused(editor: Editor) -> None:
    for line in (-1, 3):
        with pytest.raises(EditError):
            editor.insert(line, "x")
    editor.insert(0, "first")
    assert editor.text().startswith("first\n")


def test_every_scripted_proposal_applies_to_the_seed_and_changes_it(tmp_path: Path) -> None:
    seed = (SOURCE / "trainer" / "train.py").read_text()
    editor = Editor(tmp_path / "train.py")
    editor.path.write_text(seed)
    before = seed
    for number, proposal in enumerate(scripted.PROPOSALS):
        proposal.edit(editor)
        text = editor.text()
        ast.parse(text)
        assert text != before
        if number in (0, 1):
            before = text  # kept
        else:
            editor.write(before)  # discarded: the runner puts the best back
