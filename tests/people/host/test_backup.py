"""A bench in one file, and back: everything adds up, and a doctored file gets nowhere."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.artifacts import keys
from runner.core.base import locks
from runner.core.base.errors import BusyError, GloveboxError, VerifyError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence import git_shape, verify
from runner.core.policy.policy_files import Policies
from runner.people.host import backup
from tests import hostile_git
from tests.rooms.desk.test_reruns import Bench

Glovebox = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(home: Home, policies: Policies) -> Bench:
    made = Bench(home, policies)
    made.experiment("a = 1\n", s42=2.0)
    made.experiment("b = 2\n", s42=1.98)
    secret = home.key
    secret.parent.mkdir()
    secret.write_text("sk-secret-0123456789")
    return made


def test_a_bench_comes_back_as_it_was(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "bench.tar.gz"
    assert backup.write(bench.home, path) == path.stat().st_size  # the ledger is open: its log is copied too
    assert path.stat().st_mode & 0o777 == 0o600
    other = Home(tmp_path / "other")
    outcome = backup.restore(path, other)
    assert outcome.failures == []
    assert outcome.checked["ledger rows"] >= 2
    assert keys.trust(other) == keys.trust(bench.home)
    for name in ("audit.jsonl", "tags/t/results.tsv", "audit.pem"):
        assert (other.root / name).read_bytes() == (bench.home.root / name).read_bytes()
    assert not other.key.exists()
    assert not (other.root / "store").exists()


def test_artifacts_come_along_when_asked_for(bench: Bench, tmp_path: Path) -> None:
    backup.write(bench.home, tmp_path / "b", artifacts=True)
    outcome = backup.restore(tmp_path / "b", Home(tmp_path / "other"))
    assert outcome.failures == []
    assert outcome.checked["artifacts"] == 1


def test_a_restored_bench_that_was_altered_says_so(bench: Bench, tmp_path: Path) -> None:
    bench.ledger._db.execute("UPDATE experiments SET row = json_set(row, '$.val_bpb', 1.0) WHERE id = 1")
    backup.write(bench.home, tmp_path / "b")
    assert backup.restore(tmp_path / "b", Home(tmp_path / "other")).failures


def test_neither_a_bench_nor_a_file_is_written_over(bench: Bench, tmp_path: Path) -> None:
    backup.write(bench.home, tmp_path / "b")
    with pytest.raises(GloveboxError, match="exists already"):
        backup.write(bench.home, tmp_path / "b")
    with pytest.raises(GloveboxError, match="there is a bench already"):
        backup.restore(tmp_path / "b", bench.home)


def test_a_run_in_progress_is_not_backed_up(bench: Bench, tmp_path: Path) -> None:
    with locks.hold(bench.home.runner_lock, "tag t"), pytest.raises(BusyError):
        backup.write(bench.home, tmp_path / "b")


def _file(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def _link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize(
    "member",
    [
        _file("../../etc/evil"),
        _file("/etc/evil"),
        _file("glovebox/../../evil"),
        _file("elsewhere/file"),
        _link("glovebox/policies/trust.yaml", "/etc/passwd", tarfile.SYMTYPE),
        _link("glovebox/hard", "/etc/passwd", tarfile.LNKTYPE),
        _link("glovebox/fifo", "", tarfile.FIFOTYPE),
        _link("glovebox/device", "", tarfile.CHRTYPE),
    ],
)
def test_nothing_but_plain_files_below_one_root_is_unpacked(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member[0], io.BytesIO(member[1]))
    with pytest.raises(VerifyError, match="holds"):
        backup.restore(path, Home(tmp_path / "inner" / "home"))
    assert not (tmp_path / "inner" / "home").exists()


def _repacked(
    source: Path,
    target: Path,
    change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes]],
    *more: tuple[tarfile.TarInfo, bytes],
) -> Path:
    with tarfile.open(source) as before, tarfile.open(target, "w:gz") as archive:
        for member in before:
            file = before.extractfile(member)
            info, data = change(member, file.read() if file else b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info, data in more:
            archive.addfile(info, io.BytesIO(data))
    return target


@pytest.mark.parametrize("lost", [False, True])
def test_a_hostile_git_line_runs_nothing_when_restored_and_verified(
    glovebox: Glovebox, bench: Bench, tmp_path: Path, lost: bool
) -> None:
    bench.ledger.close()
    backup.write(bench.home, tmp_path / "good")
    evil = tmp_path / "copy.git"
    shutil.copytree(bench.home.line, evil)
    mark = hostile_git.plant(evil, tmp_path / "evil")
    added = [
        _file(f"glovebox/line.git/{path.relative_to(evil)}", path.read_bytes())
        for name in ("config", "hooks", "info")
        for path in (evil / name, *(evil / name).glob("*"))
        if path.is_file()
    ] + [
        _file("glovebox/line.git/commondir", str(evil).encode()),
        _file("glovebox/line.git/config.worktree"),
        _file("glovebox/line.git/objects/info/alternates", str(evil).encode()),
        _file("glovebox/line.git/refs/replace/" + "0" * 40),
        _file("glovebox/line.git/HEAD", b"ref: refs/../../x"),
    ]

    def change(info: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        gone = lost and info.isfile() and "/line.git/objects/" in info.name
        return _file(f"glovebox/snapshots/{info.name[-20:]}", data) if gone else (info, data)

    _repacked(tmp_path / "good", tmp_path / "bad", change, *added)
    place = {"GLOVEBOX_HOME": str(tmp_path / "restored")}
    code, _, told = glovebox("restore", str(tmp_path / "bad"), env=place)
    assert code == (8 if lost else 0), told
    line = tmp_path / "restored" / "line.git"
    assert (line / "config").read_text() == git_shape.CONFIG
    assert (line / "HEAD").read_text() == git_shape.HEAD
    assert {path.name for path in line.iterdir()} == {"HEAD", "config", "objects", "refs"}
    assert not [*(line / "objects").glob("info/*"), *line.glob("refs/replace")]
    for command in (["verify"], ["show", "1"], ["report"], ["export", "--output", str(tmp_path / "x")], ["gc"]):
        glovebox(*command, env=place)
    assert not mark.exists()


def test_modes_come_back_and_are_never_wider(bench: Bench, tmp_path: Path) -> None:
    bench.home.keys.chmod(0o700)
    (bench.home.root / "policies").chmod(0o750)
    bench.home.audit.chmod(0o600)
    backup.write(bench.home, tmp_path / "b")

    def wider(info: tarfile.TarInfo, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
        info.mode |= 0o6022
        return info, data

    for path, name in ((tmp_path / "b", "same"), (_repacked(tmp_path / "b", tmp_path / "w", wider), "wider")):
        other = Home(tmp_path / name)
        backup.restore(path, other)
        modes = {one: (other.root / one).stat().st_mode & 0o7777 for one in ("keys", "policies", "keys/bench.pem")}
        assert modes == {"keys": 0o700, "policies": 0o750, "keys/bench.pem": 0o600}
        assert other.audit.stat().st_mode & 0o7777 == 0o600


def test_a_backup_can_be_read_by_nobody_else_at_any_moment(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who may write into the folder made the file first, or laid a link, under every name he can guess."""
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    for name in ("b.partial", ".b", "b.tmp", "b~", "b.gz"):
        (tmp_path / name).symlink_to(theirs)
    seen: set[tuple[int, int]] = set()
    archive = backup._archive

    def watched(*args: object) -> None:
        archive(*args)  # type: ignore[arg-type]
        for path in tmp_path.glob("b*"):
            if not path.is_symlink():
                seen.add((path.stat().st_mode & 0o777, path.stat().st_nlink))

    monkeypatch.setattr(backup, "_archive", watched)
    backup.write(bench.home, tmp_path / "b")
    assert seen == {(0o600, 1)}
    assert theirs.read_text() == "precious"
    (tmp_path / "c").symlink_to(theirs)
    with pytest.raises(GloveboxError, match="exists already"):
        backup.write(bench.home, tmp_path / "c")
    assert theirs.read_text() == "precious"
    assert not [*tmp_path.glob("c.*")]


def test_policies_that_came_with_a_backup_are_told(glovebox: Glovebox, bench: Bench, tmp_path: Path) -> None:
    bench.ledger.close()
    policy = (SOURCE / "policies" / "broker.yaml").read_text()
    (bench.home.root / "policies" / "broker.yaml").write_text(
        policy.replace("upstream: https://api.anthropic.com", "upstream: https://stranger.example")
    )
    backup.write(bench.home, tmp_path / "b")
    code, out, _ = glovebox("restore", str(tmp_path / "b"), env={"GLOVEBOX_HOME": str(tmp_path / "new")})
    assert code == 0
    assert "broker.upstream: https://stranger.example (usually https://api.anthropic.com)" in out.replace("\n", " ")


@pytest.mark.parametrize("moment", ["1e300", "inf", "-1e30", "nan", "1.5"])
def test_a_time_no_file_can_have_is_refused(bench: Bench, tmp_path: Path, moment: str) -> None:
    path = tmp_path / "odd.tar.gz"
    backup.write(bench.home, tmp_path / "b")
    with tarfile.open(tmp_path / "b") as before, tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for member in before:
            member.pax_headers = {"mtime": moment}
            member.mtime = 0
            archive.addfile(member, before.extractfile(member))
    if moment == "1.5":
        assert backup.restore(path, Home(tmp_path / "other")).failures == []
        return
    with pytest.raises(VerifyError, match="cannot be unpacked"):
        backup.restore(path, Home(tmp_path / "other"))


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\x1f\x8b\x08\x00cut"])
def test_what_is_not_a_backup_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(VerifyError):
        backup.restore(tmp_path / "b", Home(tmp_path / "other"))


def test_the_commands(glovebox: Glovebox, bench: Bench, tmp_path: Path) -> None:
    bench.ledger.close()
    path = str(tmp_path / "b.tar.gz")
    assert glovebox("backup", path)[0] == 0
    place = {"GLOVEBOX_HOME": str(tmp_path / "new")}
    code, out, err = glovebox("restore", path, env=place)
    assert (code, "everything adds up" in out) == (0, True), err
    assert glovebox("status", env=place)[0] == 0
    assert verify.verify(Home(tmp_path / "new")).failures == []


def _contents(root: Path) -> dict[str, bytes]:
    """Every file by its name, but what SQLite keeps beside a database that is open."""
    kept = (path for path in root.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path.relative_to(root)): path.read_bytes() for path in kept}


def test_a_flipped_bit_in_a_backup_is_noticed_or_changes_no_byte_of_the_bench(bench: Bench, tmp_path: Path) -> None:
    """Deflate can say the same in two ways (RFC 1951: a match may point at either of two equal stretches), and the
    header of gzip holds a time: such a bit changes nothing that is restored. About three in a hundred do."""
    backup.write(bench.home, tmp_path / "b")
    backup.restore(tmp_path / "b", Home(tmp_path / "whole"))
    expected, data, noticed = _contents(tmp_path / "whole"), (tmp_path / "b").read_bytes(), 0
    spots = range(0, len(data), len(data) // 100)
    for at in spots:
        (tmp_path / "bent").write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        other = Home(tmp_path / f"other-{at}")
        try:
            backup.restore(tmp_path / "bent", other)
        except VerifyError:
            noticed += 1
        else:
            assert _contents(other.root) == expected, at
    assert noticed > len(spots) // 2


def test_a_folder_that_is_not_there_and_a_half_written_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GloveboxError, match="no such folder"):
        backup.write(bench.home, tmp_path / "none" / "b")

    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_database", full)
    with pytest.raises(GloveboxError, match="No space left"):
        backup.write(bench.home, tmp_path / "b")
    assert not list(tmp_path.glob("b*"))
