"""Keys: made, listed, rotated, revoked; the trust root is consistent or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.artifacts import keys, store
from runner.core.base.errors import ArtifactError, PolicyError
from runner.core.base.home import Home

Glovebox = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(tmp_path: Path) -> Home:
    home = Home(tmp_path / "bench")
    keys.create(home)
    return home


def test_a_private_key_is_for_its_owner_only(bench: Home) -> None:
    assert keys.path_of(bench, "bench").stat().st_mode & 0o777 == 0o600
    assert bench.keys.stat().st_mode & 0o777 == 0o700


def test_a_key_can_be_encrypted_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "bench")
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    monkeypatch.setenv("GLOVEBOX_KEY_PASSPHRASE_FILE", str(phrase))
    keys.create(home)
    assert b"ENCRYPTED" in keys.path_of(home, "bench").read_bytes()
    assert keys.listing(home)[0].private == "encrypted"
    assert keys.signers(home)[0].public_key.keyid == keys.trust(home).keys[0].keyid
    phrase.write_text("wrong horse\n")
    with pytest.raises(ArtifactError, match="PASSPHRASE"):
        keys.signers(home)
    monkeypatch.delenv("GLOVEBOX_KEY_PASSPHRASE_FILE")
    with pytest.raises(ArtifactError, match="PASSPHRASE"):
        keys.signers(home)


def test_an_empty_passphrase_is_not_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "phrase").write_text("\n")
    monkeypatch.setenv("GLOVEBOX_KEY_PASSPHRASE_FILE", str(tmp_path / "phrase"))
    with pytest.raises(ArtifactError, match="empty"):
        keys.create(Home(tmp_path / "a"))
    monkeypatch.setenv("GLOVEBOX_KEY_PASSPHRASE_FILE", str(tmp_path / "none"))
    with pytest.raises(ArtifactError, match="cannot be read"):
        keys.create(Home(tmp_path / "b"))


def test_the_last_needed_key_cannot_be_revoked(bench: Home) -> None:
    with pytest.raises(ArtifactError, match="0 keys would remain"):
        keys.revoke(bench, "bench")
    keys.new(bench, "second")
    keys.revoke(bench, "bench")
    assert [key.name for key in keys.trust(bench).keys] == ["second"]
    assert [(key.name, key.state[:7]) for key in keys.listing(bench)] == [("second", "trusted"), ("bench", "revoked")]


def test_a_name_is_used_once_even_after_revocation(bench: Home) -> None:
    keys.rotate(bench, "bench", "next")
    for name in ("bench", "next"):
        with pytest.raises(ArtifactError, match="already"):
            keys.new(bench, name)


def test_a_threshold_needs_as_many_keys(bench: Home) -> None:
    with pytest.raises(ArtifactError, match="there are 1 keys"):
        keys.set_threshold(bench, 2)
    keys.new(bench, "second")
    keys.set_threshold(bench, 2)
    assert keys.trust(bench).threshold == 2


@pytest.mark.parametrize("public", ["", "00", "zz" * 32, "00" * 31])
def test_a_public_key_that_is_none_is_refused(bench: Home, public: str) -> None:
    with pytest.raises((ArtifactError, PolicyError)):
        keys.add(bench, "friend", public)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("threshold: 1", "threshold: 0", "threshold"),
        ("threshold: 1", "threshold: 2", "larger than the number of keys"),
        ("scheme: ed25519", "scheme: none", "scheme"),
        ("revoked: []", "revoked: '*'", "revoked"),
        ("minimum_serial: 0", "minimum_serial: 0\nkeys: []", "duplicate key"),
    ],
)
def test_a_trust_root_that_does_not_add_up_is_refused(bench: Home, old: str, new: str, match: str) -> None:
    text = bench.trust.read_text()
    assert old in text
    bench.trust.write_text(text.replace(old, new))
    with pytest.raises(PolicyError, match=match):
        keys.trust(bench)


def test_an_absent_and_an_empty_trust_root_are_refused(bench: Home) -> None:
    bench.trust.write_text("# nothing\n")
    with pytest.raises(PolicyError, match="empty"):
        keys.trust(bench)
    bench.trust.unlink()
    with pytest.raises(PolicyError, match="no such policy file"):
        keys.trust(bench)


def test_two_holders_sign_one_artifact_through_the_command_line(glovebox: Glovebox, home: Home, tmp_path: Path) -> None:
    friend = Home(tmp_path / "friend")
    keys.create(friend)
    public = keys.trust(friend).keys[0].public
    assert glovebox("keys", "add", "friend", public)[0] == 0
    assert glovebox("keys", "threshold", "2")[0] == 0
    code, _, err = glovebox("prepare", "--profile", "demo")
    assert code == 0, err
    with pytest.raises(ArtifactError, match="1 of 2"):
        store.admit(home, "demo-2")
    (home.keys / "friend.pem").write_bytes(keys.path_of(friend, "bench").read_bytes())
    (home.keys / "bench.pem").rename(tmp_path / "bench.pem")  # the friend's machine has only the friend's key
    assert glovebox("keys", "sign", "demo-2")[0] == 0
    assert store.admit(home, "demo-2")
    listed = json.loads(glovebox("keys", "list", "--json")[1])
    assert [(key["name"], key["private"]) for key in listed["keys"]] == [("bench", ""), ("friend", "plain")]


def test_rotation_signs_what_is_there_again(glovebox: Glovebox, home: Home) -> None:
    code, out, err = glovebox("keys", "rotate", "bench", "bench2", "--json")
    assert code == 0, err
    assert json.loads(out)["signed"] == ["demo-1"]
    assert store.admit(home, "demo-1")
    assert "revoked" in glovebox("keys", "list")[1]


@pytest.mark.parametrize("name", ["../../escaped", "", "A", "x" * 41, "a/b", "-x"])
def test_a_name_that_is_no_name_writes_no_file(bench: Home, tmp_path: Path, name: str) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match="not a name"):
        keys.new(bench, name)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_one_key_too_many_and_a_key_listed_twice(bench: Home) -> None:
    public = keys.trust(bench).keys[0].public
    with pytest.raises(ArtifactError, match="listed already"):
        keys.add(bench, "again", public.upper())
    for number in range(keys.MAX_KEYS - 1):
        keys.new(bench, f"k{number}")
    with pytest.raises(ArtifactError, match="revoke one first"):
        keys.new(bench, "more")
    assert len(keys.trust(bench).keys) == keys.MAX_KEYS


def test_rotating_what_is_not_there_adds_nothing(bench: Home) -> None:
    with pytest.raises(ArtifactError, match="no trusted key nope"):
        keys.rotate(bench, "nope", "next")
    assert [key.name for key in keys.trust(bench).keys] == ["bench"]


def test_plain_and_encrypted_keys_sign_together(bench: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "phrase").write_text("correct horse")
    monkeypatch.setenv("GLOVEBOX_KEY_PASSPHRASE_FILE", str(tmp_path / "phrase"))
    keys.new(bench, "second")
    assert len(keys.signers(bench)) == 2
