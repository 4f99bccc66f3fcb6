"""A bench that a stranger made: whatever its ledger, its repository or its files say, nothing runs and nothing is told."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import zlib
from pathlib import Path

import pytest

from runner.core.base import benches, home, ownership
from runner.core.base.errors import GloveboxError, PolicyError, VerifyError
from runner.core.base.home import Home
from runner.core.evidence import verify
from runner.core.evidence.ledger import Ledger
from runner.core.policy.policy_files import Policies
from runner.people.host import backup, compose_env, export
from tests.rooms.desk.test_reruns import Bench

STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def bench(home: Home, policies: Policies) -> Bench:
    made = Bench(home, policies)
    made.experiment("a = 1\n", s42=2.0)
    made.experiment("b = 2\n", s42=1.9, s43=1.9)
    return made


def altered(bench: Bench, sql: str) -> Path:
    bench.ledger.close()
    db = sqlite3.connect(bench.home.ledger)
    db.executescript(sql)
    db.close()
    return bench.home.ledger


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("commit", "--output=/tmp/written"),  # git diff would write there, text of the commits in it
        ("commit", "HEAD"),
        ("tag", "../../elsewhere"),
        ("tag", "/absolute"),
        ("run", "/absolute"),
        ("run", "../.."),
        ("artifact", "../demo-1"),
        ("snapshot", "../x"),
    ],
)
def test_a_row_whose_words_are_paths_or_options_is_no_row(bench: Bench, field: str, value: str) -> None:
    path = altered(bench, f"UPDATE experiments SET row = json_set(row, '$.{field}', '{value}') WHERE id = 2")
    with pytest.raises(GloveboxError, match="malformed row"):
        Ledger(path, read_only=True).experiments("t")


def test_a_tag_or_an_open_row_that_leads_elsewhere_is_refused(bench: Bench) -> None:
    path = altered(bench, "UPDATE experiments SET status = NULL, run = '/absolute' WHERE id = 2;"
                          "INSERT INTO runs (tag, started, artifact, policy) VALUES ('../x', '', 'demo-1', '')")  # fmt: skip
    book = Ledger(path, read_only=True)
    with pytest.raises(GloveboxError, match="malformed row"):
        book.opened("t", 2)
    with pytest.raises(GloveboxError, match="malformed row"):
        book.tags()
    for way in (bench.home.tag, bench.home.run, bench.home.source):
        for name in ("..", "/x", "a/b", ".hidden", ""):
            with pytest.raises(GloveboxError, match="no part of a path"):
                way(name)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE experiments RENAME TO e; CREATE VIEW experiments AS SELECT * FROM e",
        "CREATE TRIGGER x AFTER UPDATE ON experiments BEGIN DELETE FROM runs; END",
        "CREATE TABLE other (x)",
        "ALTER TABLE experiments ADD COLUMN x INTEGER GENERATED ALWAYS AS (1) VIRTUAL",
        "CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    ],
)
def test_a_ledger_that_can_say_this_now_and_that_later_is_refused(bench: Bench, sql: str) -> None:
    with pytest.raises(GloveboxError, match="not a usable ledger: holds a"):
        Ledger(altered(bench, sql), read_only=True)


def objects(bench: Bench, kind: bytes) -> Path:
    for path in sorted(bench.home.line.glob("objects/??/*")):
        if zlib.decompress(path.read_bytes()).startswith(kind):
            return path
    raise AssertionError


@pytest.mark.parametrize("kind", [b"commit", b"tree"])
def test_an_object_that_is_not_what_its_name_says_is_found(bench: Bench, kind: bytes) -> None:
    """git itself does not hash what it reads: an author or a message rewritten in place went unnoticed."""
    assert verify.verify(bench.home).failures == []
    path = objects(bench, kind)
    data = zlib.decompress(path.read_bytes()).replace(b"glovebox", b"stranger").replace(b"100644", b"100755")
    path.chmod(0o644)
    path.write_bytes(zlib.compress(data))
    assert verify.verify(bench.home).failures


def test_a_branch_that_is_another_or_lies_below_its_name_is_found(bench: Bench) -> None:
    reference = bench.home.line / "refs" / "heads" / "autoresearch" / "t"
    commit = reference.read_text()
    reference.write_text("ref: refs/heads/other\n")
    (reference.parent.parent / "other").write_text(commit)
    assert verify.verify(bench.home).failures == [
        "git finds objects that are not what their names say, or a reference to none",
        "some references are no references",
        "t: the branch is not at its last keep",
    ]
    reference.unlink()
    reference.mkdir()
    (reference / "x").write_text(commit)
    assert verify.verify(bench.home).failures == [
        "a reference that is none of ours: refs/heads/other",
        "a reference that is none of ours: refs/heads/autoresearch/t/x",
        "t: the branch is not at its last keep",
    ]


def test_a_link_anywhere_in_a_repository_is_refused(bench: Bench, tmp_path: Path) -> None:
    folder = bench.home.line / "refs" / "heads" / "autoresearch"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VerifyError, match="refs/heads/autoresearch"):
        verify.verify(bench.home)


def test_a_blob_of_few_bytes_that_is_large_is_not_read(bench: Bench) -> None:
    line = bench.recorder.line
    large = line.commit("t", 9, bytes(65 << 20), "x")
    with pytest.raises(GloveboxError, match="larger than any"):
        line.content(large)


def member(name: str, size: int = 0, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(f"glovebox/{name}")
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    ("info", "why"),
    [
        (member("policies/x", 1, pax_headers={"comment": "x" * (1 << 20)}), "cannot be unpacked"),
        (member("p" * 100_000), "cannot be unpacked"),
        (
            member("tags/x", 1, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "999999999999"}),
            "holds|more than",
        ),
        (member("secrets/webhook_url", 1), "holds 'glovebox/secrets/webhook_url'"),
        (member("up.lock", 1), "holds"),
        (member("work/train.py", 1), "holds"),
        (member("tags/x", 1 << 50), "more than a bench|cannot be unpacked"),
    ],
)
def test_a_backup_that_eats_memory_or_brings_more_is_refused(tmp_path: Path, info: tarfile.TarInfo, why: str) -> None:
    path = tmp_path / "b"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"x") if info.size == 1 else None)
    with pytest.raises(VerifyError, match=why):
        backup.restore(path, Home(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_header_that_sends_the_reader_back_onto_itself_is_refused(tmp_path: Path) -> None:
    header = bytearray(member("line.git/config").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512 & (1 << 96) - 1).to_bytes(12, "big")  # a negative size, in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "b").write_bytes(zlib.compress(bytes(header) + bytes(1024), wbits=31))
    with pytest.raises(VerifyError, match="cannot be unpacked"):
        backup.restore(tmp_path / "b", Home(tmp_path / "other"))


@as_root
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_who_takes_the_place_of_a_bench_in_the_making_gets_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bench.ledger.close()
    backup.write(bench.home, tmp_path / "b")
    share = tmp_path / "share"
    share.mkdir()
    share.chmod(0o1777)
    theirs = Home(share / home.NAME)
    settle = backup.git_shape.settle

    def meanwhile(path: Path) -> None:
        settle(path)
        if kind == "folder":
            theirs.root.mkdir()
            (theirs.root / "his").touch()  # rename(2) takes the place of an empty folder, where the kernel lets it
        else:
            (tmp_path / "elsewhere").mkdir()
            theirs.root.symlink_to(tmp_path / "elsewhere")
        os.chown(theirs.root, STRANGER, STRANGER, follow_symlinks=False)

    monkeypatch.setattr(backup.git_shape, "settle", meanwhile)
    with pytest.raises(GloveboxError, match="cannot be made"):
        backup.restore(tmp_path / "b", theirs)
    assert [path.name for path in theirs.root.iterdir()] == (["his"] if kind == "folder" else [])


@as_root
def test_a_bench_is_not_made_in_a_folder_that_somebody_was_quicker_to_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Home(tmp_path / home.NAME)
    place.root.mkdir()
    os.chown(place.root, STRANGER, STRANGER)
    with pytest.raises(PolicyError, match="belongs to"):
        benches.make(place)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(PolicyError, match="by somebody else"):
        benches.make(place)


def test_a_bench_that_is_made_is_private_and_so_is_what_was_missing_above(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        benches.make(Home(tmp_path / "a" / "b" / home.NAME))
    finally:
        os.umask(before)
    for name in ("a", "a/b", f"a/b/{home.NAME}"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    (tmp_path / "c").mkdir(mode=0o755)
    benches.make(Home(tmp_path / "c"))
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


@as_root
def test_a_root_others_can_add_to_is_refused_through_a_link_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    benches.make(Home(real / home.NAME))
    (tmp_path / "link").symlink_to(real)
    ownership.check(tmp_path / "link" / home.NAME)
    (real / home.NAME).chmod(0o1777)
    with pytest.raises(PolicyError, match="can be written by others"):
        ownership.check(tmp_path / "link" / home.NAME)


@as_root
@pytest.mark.parametrize("kind", ["link", "theirs", "hard link", "fifo", "folder"])
def test_settings_beside_compose_are_read_from_a_file_of_ours_only(bench: Bench, tmp_path: Path, kind: str) -> None:
    secret, env = tmp_path / "secret", tmp_path / "place" / ".env"
    env.parent.mkdir()
    secret.write_text("TOP SECRET\n")
    compose_env.write(env, bench.home)
    assert "GLOVEBOX_HOME=" in env.read_text()
    env.unlink()
    if kind == "link":
        env.symlink_to(secret)
    elif kind == "hard link":
        env.hardlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(env)
    else:
        env.write_text("COMPOSE_FILE=theirs.yaml\n")
        os.chown(env.parent if kind == "folder" else env, STRANGER, STRANGER)
    with pytest.raises(PolicyError):
        compose_env.write(env, bench.home)


def test_what_an_export_signs_is_what_we_wrote(bench: Bench, policies: Policies, tmp_path: Path) -> None:
    """Whoever owns the folder it goes to sees it only when it is signed."""
    seen: list[list[str]] = []
    sign = export.signing.write

    def watching(path: Path, *rest: object) -> None:
        seen.append(sorted(one.name for one in (tmp_path / "out").rglob("*")))
        assert path.is_relative_to(bench.home.root)
        sign(path, *rest)  # type: ignore[arg-type]

    (tmp_path / "out").mkdir()
    export.signing.write, before = watching, sign
    try:
        export.export(bench.home, policies, "t", "CPU", tmp_path / "out" / "x")
    finally:
        export.signing.write = before
    assert seen == [[]]
    assert {one.name for one in (tmp_path / "out" / "x").iterdir()} == {*export.FILES, export.MANIFEST}
