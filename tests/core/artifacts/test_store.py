"""Artifacts: what verifies goes into the store, everything else is refused by name of the attack."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from runner.core.artifacts import keys, manifest, signing, store
from runner.core.artifacts import resign as artifacts_resign
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file
from runner.core.base.home import Home

VERSION = "demo-1"


@pytest.fixture
def bench(prepared: Home, tmp_path: Path) -> Home:
    """A bench whose artifact is prepared but not yet in the store."""
    home = Home(tmp_path / "bench")
    shutil.copytree(prepared.root, home.root, ignore=shutil.ignore_patterns("store"))
    return home


def folder(home: Home) -> Path:
    return home.artifacts / VERSION


def refused(home: Home, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        store.admit(home, VERSION)
    assert caught.value.exit_code == 4
    assert caught.value.fix
    assert not (home.store / VERSION).exists()


def test_an_honest_artifact_is_copied_read_only(bench: Home) -> None:
    statement = store.admit(bench, VERSION)
    assert statement.predicate.version == VERSION
    for subject in statement.subject:
        path = bench.store / VERSION / subject.name
        assert hash_file(path)[0] == subject.digest.sha256
        assert path.stat().st_mode & 0o777 == 0o444
    assert store.admit(bench, VERSION) == statement


def test_flipped_byte(bench: Home) -> None:
    path = folder(bench) / "val" / "rows.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(bench, "does not match the signed manifest")


def test_appended_byte(bench: Home) -> None:
    with (folder(bench) / "train" / "tokens_00000.npy").open("ab") as file:
        file.write(b"x")
    refused(bench, "larger than the signed manifest")


def test_truncated_file(bench: Home) -> None:
    path = folder(bench) / "train" / "tokens_00000.npy"
    os.truncate(path, path.stat().st_size - 1)
    refused(bench, "does not match")


def test_unlisted_file(bench: Home) -> None:
    (folder(bench) / "train" / "extra.npy").write_bytes(b"x")
    refused(bench, "does not list")


def test_unlisted_git_file(bench: Home) -> None:
    (folder(bench) / ".gitattributes").write_bytes(b"x")
    refused(bench, "does not list")


def test_missing_file(bench: Home) -> None:
    (folder(bench) / "train" / "lengths_00000.npy").unlink()
    refused(bench, "missing")


def test_symlink_in_place_of_a_file(bench: Home, tmp_path: Path) -> None:
    path = folder(bench) / "train" / "lengths_00000.npy"
    copy = tmp_path / "copy.npy"
    shutil.move(path, copy)
    path.symlink_to(copy)
    refused(bench, "not a regular file")


def test_symlinked_directory(bench: Home, tmp_path: Path) -> None:
    shutil.move(folder(bench) / "train", tmp_path / "train")
    (folder(bench) / "train").symlink_to(tmp_path / "train")
    refused(bench, "not a regular file")


def test_fifo_in_place_of_a_file(bench: Home) -> None:
    path = folder(bench) / "val" / "rows.npy"
    path.unlink()
    os.mkfifo(path)
    refused(bench, "not a regular file")


def test_signature_by_a_stranger(bench: Home) -> None:
    resign(bench, CryptoSigner(Ed25519PrivateKey.generate()))
    refused(bench, "no key this bench knows")


def test_signature_by_a_revoked_key(bench: Home) -> None:
    keys.new(bench, "second")
    keys.revoke(bench, "bench")
    refused(bench, "revoked key bench")
    signing.add(folder(bench) / manifest.NAME, keys.signers(bench))
    assert store.admit(bench, VERSION)


def test_below_threshold(bench: Home) -> None:
    keys.new(bench, "second")
    keys.set_threshold(bench, 2)
    refused(bench, "1 of 2 needed signatures")
    signing.add(folder(bench) / manifest.NAME, keys.signers(bench))
    assert store.admit(bench, VERSION)


def test_one_key_signing_twice_is_one_signature(bench: Home) -> None:
    keys.new(bench, "second")
    keys.set_threshold(bench, 2)
    path = folder(bench) / manifest.NAME
    envelope = json.loads(path.read_text())
    envelope["signatures"].append({**envelope["signatures"][0], "keyid": keys.trust(bench).keys[1].keyid})
    path.write_text(json.dumps(envelope))
    refused(bench, "signature of second does not match")
    envelope["signatures"] = [envelope["signatures"][0]] * 2
    path.write_text(json.dumps(envelope))
    refused(bench, "malformed envelope")


def test_edited_payload(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b'"serial": 1', b'"serial": 9')
    envelope["payload"] = base64.b64encode(payload).decode()
    path.write_text(json.dumps(envelope))
    refused(bench, "signature of bench does not match")


def test_another_payload_type_under_the_same_signature(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    path.write_text(path.read_text().replace(signing.PAYLOAD_TYPE, "application/json"))
    refused(bench, "does not match its content")


def test_no_signature_at_all(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    envelope = json.loads(path.read_text())
    envelope["signatures"] = []
    path.write_text(json.dumps(envelope))
    refused(bench, "not signed")


def resign(home: Home, signer: CryptoSigner | None = None, **changes: object) -> None:
    """Sign the artifact again with some parameters changed."""
    arguments = {"profile": {"time_budget_s": 6}, "version": VERSION, "serial": 1, "provenance": {}} | changes
    signers = [signer] if signer else keys.signers(home)
    manifest.sign(folder(home), signers, made=datetime.now(UTC), **arguments)  # type: ignore[arg-type]


def test_case_colliding_names(bench: Home, tmp_path: Path) -> None:
    kernels = folder(bench) / "kernels" / "attention" / "build"
    kernels.mkdir(parents=True)
    (kernels / "a.py").write_text("1")
    (kernels / "A.py").write_text("2")
    with pytest.raises(ArtifactError, match="differ in case only"):
        resign(bench)  # we would not sign it; somebody else might
    path = folder(bench) / manifest.NAME
    statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    for name in ("kernels/attention/build/a.py", "kernels/attention/build/A.py"):
        statement["subject"].append({"name": name, "digest": {"sha256": "0" * 64}})
        statement["predicate"]["sizes"][name] = 1
    signing.write(path, json.dumps(statement).encode(), keys.signers(bench))
    refused(bench, "differ in case only")


@pytest.mark.parametrize(
    "name", ["train/../../x.npy", "/etc/passwd", "train/.hidden.npy", "elsewhere/x.npy", "train/a b.npy"]
)
def test_a_signed_name_that_leads_elsewhere(bench: Home, name: str) -> None:
    path = folder(bench) / manifest.NAME
    payload = base64.b64decode(json.loads(path.read_text())["payload"])
    signing.write(path, payload.replace(b"val/rows.npy", name.encode()), keys.signers(bench))
    refused(bench, "malformed statement")


def test_rollback_by_taking_the_newer_artifact_away(bench: Home) -> None:
    shutil.copytree(folder(bench), bench.artifacts / "demo-2")
    manifest.sign(
        bench.artifacts / "demo-2", keys.signers(bench), profile={}, version="demo-2", serial=2, provenance={},
        made=datetime.now(UTC),
    )  # fmt: skip
    assert store.latest(bench) == "demo-2"
    store.admit(bench, "demo-2")
    shutil.rmtree(bench.artifacts / "demo-2")
    assert store.latest(bench) == "demo-2"  # the store still has it
    shutil.rmtree(bench.store / "demo-2")
    with pytest.raises(ArtifactError, match="rollback"):
        store.latest(bench)
    assert store.admit(bench, "demo-1")  # a run that was begun with it may go on


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "[]", "{}", '{"data": "2"}', '{"data": 2, "data": 1}', "null"]
)
def test_a_note_of_what_was_used_that_cannot_be_read_is_not_passed_over(bench: Home, text: str) -> None:
    """Without it a rollback would be none; whoever cannot write a newer artifact may be able to spoil the note."""
    store.admit(bench, VERSION)
    note = bench.store / store.HIGHEST
    kept = note.read_text()
    note.write_text(text)
    assert store.kernels_here(bench) is None  # who only looks is not kept from it
    for ask in (store.latest, store.latest_kernels, store.next_serial):
        with pytest.raises(ArtifactError, match=f"which artifacts are too old .*rm {note}"):
            ask(bench)
    note.write_text(kept)
    assert store.latest(bench) == VERSION
    note.unlink()  # what a person does who is sure
    assert store.latest(bench) == VERSION


def test_a_copy_changed_in_the_store_behind_its_size(bench: Home) -> None:
    store.admit(bench, VERSION)
    path = bench.store / VERSION / "val" / "rows.npy"
    state = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # size and modification time as before
    with pytest.raises(ArtifactError, match="changed in the store"):
        store.admit(bench, VERSION)
    data[-1] ^= 1
    path.write_bytes(data)
    assert store.admit(bench, VERSION)  # what matches again is accepted, once hashed


def test_an_unchanged_copy_is_not_read_again(bench: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store.admit(bench, VERSION)
    monkeypatch.setattr(store, "hash_file", lambda path: pytest.fail(f"read {path}"))
    store.admit(bench, VERSION)


def test_lost_notes_mean_hashing_again(bench: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store.admit(bench, VERSION)
    (bench.store / f".{VERSION}.notes.json").write_text("{nonsense")
    store.admit(bench, VERSION)
    (bench.store / VERSION / "val" / "rows.npy").chmod(0o644)
    (bench.store / VERSION / "val" / "rows.npy").write_bytes(b"poison")
    (bench.store / f".{VERSION}.notes.json").unlink()
    with pytest.raises(ArtifactError, match="changed in the store"):
        store.admit(bench, VERSION)


def test_freeze_by_an_expired_manifest(bench: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "LIFETIME", timedelta(seconds=-1))
    resign(bench)
    refused(bench, "expired")


def test_rollback_below_the_minimum_serial(bench: Home) -> None:
    bench.trust.write_text(bench.trust.read_text().replace("minimum_serial: 0", "minimum_serial: 2"))
    refused(bench, "minimum_serial")
    shutil.move(folder(bench), bench.artifacts / "demo-2")
    manifest.sign(
        bench.artifacts / "demo-2", keys.signers(bench), profile={}, version="demo-2", serial=2, provenance={},
        made=datetime.now(UTC),
    )  # fmt: skip
    assert store.admit(bench, "demo-2").predicate.serial == 2


def test_mix_and_match_of_two_versions(bench: Home) -> None:
    resign(bench, version="demo-9")
    refused(bench, "manifest is for demo-9")


def test_expiry_is_checked_again_for_a_copy_already_in_the_store(bench: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store.admit(bench, VERSION)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=4000)

    monkeypatch.setattr(manifest, "datetime", Later)
    with pytest.raises(ArtifactError, match="expired"):
        store.admit(bench, VERSION)


def test_a_changed_source_does_not_reach_a_copy_already_in_the_store(bench: Home) -> None:
    store.admit(bench, VERSION)
    (folder(bench) / "val" / "rows.npy").write_bytes(b"poison")
    store.admit(bench, VERSION)
    assert (bench.store / VERSION / "val" / "rows.npy").stat().st_size > 1000


def test_oversized_manifest(bench: Home) -> None:
    (folder(bench) / manifest.NAME).write_bytes(b" " * (signing.MAX_MANIFEST + 1))
    refused(bench, "malformed")


def test_duplicate_keys_in_the_envelope(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    path.write_text('{"payload": "", ' + path.read_text().lstrip()[1:])
    refused(bench, "malformed")


def test_no_artifact_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="glovebox prepare"):
        store.latest(Home(tmp_path))


def test_the_manifest_swapped_while_it_is_copied(bench: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("private")
    whole, once = store._copy_file, threading.Lock()  # files are copied in parallel

    def swapping(source: Path, *rest: object) -> None:
        path = folder(bench) / manifest.NAME
        with once:
            path.unlink(missing_ok=True)
            path.symlink_to(secret)
        whole(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_copy_file", swapping)
    store.admit(bench, VERSION)
    assert b"private" not in (bench.store / VERSION / manifest.NAME).read_bytes()
    monkeypatch.undo()
    assert store.admit(bench, VERSION)


def test_another_signed_manifest_over_the_same_copy(bench: Home) -> None:
    store.admit(bench, VERSION)
    path = folder(bench) / "val" / "rows.npy"
    path.write_bytes(b"other rows".ljust(path.stat().st_size, b"x"))
    resign(bench)
    shutil.copy(folder(bench) / manifest.NAME, bench.store / VERSION / manifest.NAME)
    with pytest.raises(ArtifactError, match="changed in the store"):
        store.admit(bench, VERSION)


def test_a_manifest_that_is_a_pipe(bench: Home) -> None:
    (folder(bench) / manifest.NAME).unlink()
    os.mkfifo(folder(bench) / manifest.NAME)
    refused(bench, "no manifest")


def test_rotation_does_not_vouch_for_what_was_refused(bench: Home) -> None:
    stranger = bench.artifacts / "demo-7"
    shutil.copytree(folder(bench), stranger)
    manifest.sign(
        stranger, [CryptoSigner(Ed25519PrivateKey.generate())], profile={}, version="demo-7", serial=7, provenance={},
        made=datetime.now(UTC),
    )  # fmt: skip
    (bench.artifacts / "demo-8").mkdir()
    (bench.artifacts / "demo-8" / manifest.NAME).write_text("nonsense")
    _, signed, skipped = artifacts_resign.rotate(bench, "bench", "next")
    assert (signed, skipped) == (["demo-1"], ["demo-7", "demo-8"])
    assert store.admit(bench, VERSION)
    with pytest.raises(ArtifactError, match="no key this bench knows"):
        store.admit(bench, "demo-7")
    with pytest.raises(ArtifactError, match="no key this bench knows"):
        artifacts_resign.countersign(bench, "demo-7")


def test_a_second_signature_reaches_the_copy_in_use(bench: Home) -> None:
    store.admit(bench, VERSION)
    keys.new(bench, "second")
    keys.set_threshold(bench, 2)
    with pytest.raises(ArtifactError, match="1 of 2"):
        store.admit(bench, VERSION)
    artifacts_resign.countersign(bench, VERSION)
    assert store.admit(bench, VERSION)


def test_nobody_signs_files_that_do_not_match(bench: Home) -> None:
    (folder(bench) / "val" / "rows.npy").write_bytes(b"poison")
    keys.new(bench, "second")
    with pytest.raises(ArtifactError, match="do not sign it"):
        artifacts_resign.countersign(bench, VERSION)


def test_taking_away_every_newer_artifact_is_a_rollback_of_any_profile(bench: Home) -> None:
    shutil.move(folder(bench), bench.artifacts / "upstream-5")
    manifest.sign(
        bench.artifacts / "upstream-5", keys.signers(bench), profile={}, version="upstream-5", serial=5, provenance={},
        made=datetime.now(UTC),
    )  # fmt: skip
    store.admit(bench, "upstream-5")
    for path in (bench.artifacts, bench.store):
        shutil.rmtree(path / "upstream-5")
    with pytest.raises(ArtifactError, match="rollback"):
        store.latest(bench)
    assert store.next_serial(bench) == 6
