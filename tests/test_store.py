"""Artifacts: what verifies goes into the store, everything else is refused by name of the attack."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from runner import keys
from runner.artifacts import manifest, store
from runner.errors import ArtifactError
from runner.home import Home

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
        assert manifest.hash_file(path)[0] == subject.digest.sha256
        assert path.stat().st_mode & 0o777 == 0o444
    assert store.admit(bench, VERSION) == statement


def test_flipped_byte(bench: Home) -> None:
    path = folder(bench) / "val" / "rows.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(bench, "does not match the signed manifest")


def test_appended_byte(bench: Home) -> None:
    with (folder(bench) / "train" / "tokens.npy").open("ab") as file:
        file.write(b"x")
    refused(bench, "does not match")


def test_truncated_file(bench: Home) -> None:
    path = folder(bench) / "train" / "tokens.npy"
    os.truncate(path, path.stat().st_size - 1)
    refused(bench, "does not match")


def test_unlisted_file(bench: Home) -> None:
    (folder(bench) / "train" / "extra.npy").write_bytes(b"x")
    refused(bench, "does not list")


def test_unlisted_git_file(bench: Home) -> None:
    (folder(bench) / ".gitattributes").write_bytes(b"x")
    refused(bench, "does not list")


def test_missing_file(bench: Home) -> None:
    (folder(bench) / "train" / "offsets.npy").unlink()
    refused(bench, "missing")


def test_symlink_in_place_of_a_file(bench: Home, tmp_path: Path) -> None:
    path = folder(bench) / "train" / "offsets.npy"
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
    refused(bench, "trusted keys")


def test_key_removed_from_the_trust_root(bench: Home) -> None:
    other = CryptoSigner(Ed25519PrivateKey.generate()).public_key
    text = bench.trust.read_text()
    mine = keys.signer(bench).public_key
    bench.trust.write_text(text.replace(mine.keyid, other.keyid).replace(mine.keyval["public"], other.keyval["public"]))
    refused(bench, "trusted keys")


def test_below_threshold(bench: Home) -> None:
    other = CryptoSigner(Ed25519PrivateKey.generate()).public_key
    text = bench.trust.read_text().replace("threshold: 1", "threshold: 2")
    bench.trust.write_text(text + f"- keyid: {other.keyid}\n  public: {other.keyval['public']}\n")
    refused(bench, "trusted keys")


def test_edited_payload(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    envelope = json.loads(path.read_text())
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAA=="
    path.write_text(json.dumps(envelope))
    refused(bench, "trusted keys|malformed")


def test_no_signature_at_all(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    envelope = json.loads(path.read_text())
    envelope["signatures"] = []
    path.write_text(json.dumps(envelope))
    refused(bench, "trusted keys|malformed")


def resign(home: Home, signer: CryptoSigner | None = None, **changes: object) -> None:
    """Sign the artifact again with some parameters changed."""
    arguments = {"profile": {"time_budget_s": 6}, "version": VERSION, "serial": 1, "provenance": {}} | changes
    manifest.sign(folder(home), signer or keys.signer(home), **arguments)  # type: ignore[arg-type]


def test_freeze_by_an_expired_manifest(bench: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "LIFETIME", timedelta(seconds=-1))
    resign(bench)
    refused(bench, "expired")


def test_rollback_below_the_minimum_serial(bench: Home) -> None:
    bench.trust.write_text(bench.trust.read_text().replace("minimum_serial: 0", "minimum_serial: 2"))
    refused(bench, "minimum_serial")
    resign(bench, serial=2)
    assert store.admit(bench, VERSION).predicate.serial == 2


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
    (folder(bench) / manifest.NAME).write_bytes(b" " * (manifest.MAX_MANIFEST + 1))
    refused(bench, "malformed")


def test_duplicate_keys_in_the_envelope(bench: Home) -> None:
    path = folder(bench) / manifest.NAME
    path.write_text('{"payload": "", ' + path.read_text().lstrip()[1:])
    refused(bench, "malformed")


def test_no_artifact_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="glovebox prepare"):
        store.latest(Home(tmp_path))


def test_the_private_key_is_for_its_owner_only(bench: Home) -> None:
    assert (bench.keys / keys.PRIVATE).stat().st_mode & 0o777 == 0o600


def test_a_key_can_be_encrypted_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    monkeypatch.setenv("GLOVEBOX_KEY_PASSPHRASE_FILE", str(phrase))
    keys.create(home)
    assert b"ENCRYPTED" in (home.keys / keys.PRIVATE).read_bytes()
    assert keys.signer(home).public_key.keyid
    monkeypatch.delenv("GLOVEBOX_KEY_PASSPHRASE_FILE")
    with pytest.raises(ArtifactError, match="PASSPHRASE"):
        keys.signer(home)
