"""Files that are whole or not there, and nobody else's meanwhile; and who in the runner writes without that help."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from runner.core.base import files
from runner.core.base.mountable import SOURCE


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with files.whole(path, mode=0o640) as file:
        file.write(b"half")
        assert not path.exists()
        (partial,) = tmp_path.iterdir()
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert path.read_bytes() == b"half"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [*tmp_path.iterdir()] == [path]


def test_what_fails_leaves_nothing_and_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.write(path, "old")
    with pytest.raises(RuntimeError), files.whole(path) as file:
        file.write(b"new")
        raise RuntimeError
    with pytest.raises(RuntimeError), files.whole(tmp_path / "b", replace=False):
        raise RuntimeError
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "old"


def test_a_link_is_replaced_or_refused_but_never_followed(tmp_path: Path) -> None:
    target = tmp_path / "theirs"
    target.write_text("precious")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(target)
    files.write(tmp_path / "a", "ours")
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "b", "ours", replace=False)
    with pytest.raises(OSError, match="symbolic links"):
        files.append(tmp_path / "b")
    assert target.read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()


def test_a_folder_that_is_moved_meanwhile_does_not_send_the_file_elsewhere(tmp_path: Path) -> None:
    """Somebody puts a link in the place of the folder: the file goes where it was begun."""
    folder, theirs = tmp_path / "out", tmp_path / "theirs"
    folder.mkdir()
    theirs.mkdir()
    with files.whole(folder / "a") as file:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(theirs)
        file.write(b"secret")
    assert [*theirs.iterdir()] == []
    assert (tmp_path / "moved" / "a").read_bytes() == b"secret"


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with files.whole_folder(tmp_path / "f") as partial:
        (partial / "a").write_text("x")
        assert stat.S_IMODE(partial.stat().st_mode) == 0o700
        assert not (tmp_path / "f").exists()
    assert (tmp_path / "f" / "a").read_text() == "x"
    with pytest.raises(OSError, match="not empty"), files.whole_folder(tmp_path / "f") as partial:
        (partial / "b").write_text("y")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]


def test_what_is_published_is_on_disk_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without its content, or content without its name, is what a power cut leaves otherwise."""
    made, place = tmp_path / "work" / "made", tmp_path / "there" / "a-1"
    (made / "in").mkdir(parents=True)
    place.parent.mkdir()
    for path in (made / "a", made / "in" / "b"):
        path.write_text("x")
    seen: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        seen.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        sync(descriptor)

    def renamed(*args: Any) -> None:
        seen.append("renamed")
        rename(*args)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    files.publish(made, place)
    at = seen.index("renamed")
    assert sorted(seen[:at]) == ["work/made", "work/made/a", "work/made/in", "work/made/in/b"]
    assert sorted(seen[at + 1 :]) == ["there", "work"]
    assert (place / "in" / "b").read_text() == "x"


def test_appending_takes_regular_files_only(tmp_path: Path) -> None:
    for text in (b"a", b"b"):
        with files.append(tmp_path / "w") as file:
            file.write(text)
    assert (tmp_path / "w").read_bytes() == b"ab"
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == 0o600
    os.mkfifo(tmp_path / "p")
    with pytest.raises(OSError):  # noqa: PT011 - ENXIO without a reader, EINVAL with one
        files.append(tmp_path / "p")


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "d" / "x.partial").mkdir(parents=True)
    (tmp_path / "d" / "a.0123.partial").write_text("x")
    (tmp_path / "d" / "a").write_text("x")
    (tmp_path / "l.partial").symlink_to(tmp_path / "d")
    files.sweep(tmp_path)
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["d", "a"]


# Who writes a file in another way, and why it may.
EXEMPT = {
    "core/base/files.py": "this is the help",
    "rooms/launcher/server.py": "the log of a run and the release, in the run's own folder",
    "rooms/launcher/mounts.py": "O_EXCL and O_NOFOLLOW: what a container is to fill, at its place",
    "core/airlock/snapshot.py": "in place, since a container is mounted on it; O_NOFOLLOW",
    "core/base/locks.py": "a lock is the file itself, in the bench",
    "rooms/launcher/gpu.py": "a lock for all users of the host; O_NOFOLLOW, and looked at afterwards",
    "core/evidence/disk_reserve.py": "space, in the bench",
    "core/evidence/audit_chain.py": "cuts a torn line off the chain, in the bench",
    "people/host/importing.py": "copies in a private temporary folder",
    "people/host/tracking.py": "renames within the folder that is being made",
    "core/data/shard_reader.py": "its own standard output",
    "core/artifacts/store.py": "a copy in the bench's store, hashed while it is made",
    "core/artifacts/kernels.py": "the bench's own artifacts",
    "core/artifacts/compile_cache.py": "the bench's own artifacts",
    "people/redteam": "attacks, in a temporary bench",
}
_WRITES = {"write_text", "write_bytes", "touch", "mkstemp", "NamedTemporaryFile", "copyfile", "copy2", "copytree", "move",
           "rename", "replace", "symlink_to", "hardlink_to"}  # fmt: skip


def writes(source: str) -> list[int]:
    """Lines that may make or replace a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = (
            node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
        )
        if name in ("open", "fdopen"):
            words = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            flags = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            if any(isinstance(w, str) and set(w) & set("wax+") and set(w) <= set("rwaxbt+") for w in words) or (
                flags & {"O_WRONLY", "O_RDWR", "O_CREAT"}
            ):
                found.append(node.lineno)
        elif name in _WRITES and not (name == "replace" and (len(node.args) != 2 or owner != "os")):
            found.append(node.lineno)
    return found


def test_no_module_makes_files_in_its_own_way() -> None:
    stray, used = {}, set()
    for path in sorted((SOURCE / "runner").rglob("*.py")):
        name = str(path.relative_to(SOURCE / "runner"))
        lines = writes(path.read_text())
        reason = name if name in EXEMPT else str(Path(name).parent)
        if lines and reason in EXEMPT:
            used.add(reason)
        elif lines:
            stray[name] = lines
    assert stray == {}
    assert set(EXEMPT) == used  # no exemption that nobody needs


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("open('x', 'w')", True),
        ("path.open('ab')", True),
        ("path.open(mode='r+b')", True),
        ("os.open(p, os.O_WRONLY | os.O_CREAT)", True),
        ("p.write_text('x')", True),
        ("os.replace(a, b)", True),
        ("p.rename(q)", True),
        ("path.open('rb')", False),
        ("os.open(p, os.O_RDONLY)", False),
        ("text.replace('a', 'b')", False),
        ("launches.open(request)", False),
    ],
)
def test_the_search_finds_what_writes(source: str, found: bool) -> None:
    assert bool(writes(source)) is found
