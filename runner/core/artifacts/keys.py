"""Ed25519 signing keys of a bench, and the trust root that names the public ones. TRUSTED.

policies/trust.yaml lists who may sign, how many must, and who no longer may. Private keys live in keys/NAME.pem
with mode 0600, encrypted if GLOVEBOX_KEY_PASSPHRASE_FILE names a file with a passphrase. A key that is rotated
or revoked stays listed under `revoked`, so that what it signed is refused by name.
"""

from __future__ import annotations

import hmac
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, model_validator
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from runner.core.base import files
from runner.core.base.errors import ArtifactError, PolicyError
from runner.core.base.home import Home
from runner.core.base.strict_yaml import Strict, load_yaml

FIRST = "bench"  # name of the key `glovebox init` makes
NAME_PATTERN = r"[a-z0-9][a-z0-9_-]{0,39}"
MAX_KEYS = 20
Name = Annotated[str, Field(pattern=rf"^{NAME_PATTERN}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_HEADER = (
    "# Who may sign the artifacts of this bench: `threshold` of `keys`, none of `revoked`, and no serial below\n"
    "# `minimum_serial`. Written by glovebox keys; read before every run.\n"
)


class TrustedKey(Strict):
    """One public key, and its id as securesystemslib computes it."""

    name: Name
    keyid: Hex
    public: Hex


class RevokedKey(Strict):
    """A key whose signatures count no more."""

    name: Name
    keyid: Hex
    on: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Trust(Strict):
    """policies/trust.yaml."""

    scheme: Literal["ed25519"]
    threshold: Annotated[int, Field(ge=1, le=10)]
    minimum_serial: Annotated[int, Field(ge=0)]
    keys: Annotated[list[TrustedKey], Field(min_length=1, max_length=MAX_KEYS)]
    revoked: Annotated[list[RevokedKey], Field(max_length=200)]
    audit: Hex  # public key of the audit chain's checkpoints

    @model_validator(mode="after")
    def _consistent(self) -> Trust:
        for what in ("name", "keyid", "public"):
            if len({getattr(key, what) for key in self.keys}) != len(self.keys):
                raise ValueError(f"two keys with the same {what}")
        if self.threshold > len(self.keys):
            raise ValueError("threshold is larger than the number of keys")
        if {key.keyid for key in self.keys} & {key.keyid for key in self.revoked}:
            raise ValueError("a key is both trusted and revoked")
        return self

    def public(self) -> list[Key]:
        """The trusted keys as verifiers."""
        return [SSlibKey(key.keyid, "ed25519", self.scheme, {"public": key.public}) for key in self.keys]


class Listed(NamedTuple):
    """One line of `glovebox keys list`."""

    name: str
    keyid: str
    state: str  # trusted, or revoked DATE
    private: str  # encrypted, plain, or "" where it is not here


def create(home: Home) -> None:
    """A first signing key and a trust root that accepts it; nothing is overwritten."""
    key = _generate(home, FIRST)
    audit = create_audit_key(home)
    _write(home, Trust(scheme="ed25519", threshold=1, minimum_serial=0, keys=[key], revoked=[], audit=audit))


def trust(home: Home) -> Trust:
    """The trust root; raises PolicyError."""
    return load_yaml(home.trust, Trust)


def only(public: str) -> Trust:
    """A trust root of one named key (64 hexadecimal digits); raises ArtifactError."""
    public = public.lower()
    key = TrustedKey(name="named", keyid=_keyid(public), public=public)
    return Trust(scheme="ed25519", threshold=1, minimum_serial=0, keys=[key], revoked=[], audit=public)


def new(home: Home, name: str) -> TrustedKey:
    """One more signing key, trusted from now on."""
    root = trust(home)
    _proper(name, root)
    if name in {key.name for key in root.keys} | {key.name for key in root.revoked}:
        raise ArtifactError(f"there is a key {name} already", where=str(home.trust), fix="choose another name")
    key = _generate(home, name)
    _write(home, root.model_copy(update={"keys": [*root.keys, key]}))
    return key


def add(home: Home, name: str, public: str) -> TrustedKey:
    """Trust somebody else's public key (64 hexadecimal digits)."""
    root, public = trust(home), public.lower()
    _proper(name, root)
    key = TrustedKey(name=name, keyid=_keyid(public), public=public)
    taken = {x for k in root.keys for x in (k.name, k.keyid)} | {x for k in root.revoked for x in (k.name, k.keyid)}
    if {key.name, key.keyid} & taken:
        raise ArtifactError("that name or key is listed already", where=str(home.trust), fix="see: glovebox keys list")
    _write(home, root.model_copy(update={"keys": [*root.keys, key]}))
    return key


def revoke(home: Home, name: str) -> Trust:
    """Count this key's signatures no more; refused if too few keys would remain."""
    root = trust(home)
    gone = next((key for key in root.keys if name in (key.name, key.keyid)), None)
    if gone is None:
        raise ArtifactError(f"no trusted key {name}", where=str(home.trust), fix="see: glovebox keys list")
    kept = [key for key in root.keys if key is not gone]
    if len(kept) < root.threshold:
        fix = "add another key first: glovebox keys new NAME"
        raise ArtifactError(
            f"{len(kept)} keys would remain, {root.threshold} must sign", where=str(home.trust), fix=fix
        )
    dead = RevokedKey(name=gone.name, keyid=gone.keyid, on=f"{datetime.now(UTC):%Y-%m-%d}")
    changed = root.model_copy(update={"keys": kept, "revoked": [*root.revoked, dead]})
    _write(home, changed)
    return changed


def rotate(home: Home, name: str, successor: str) -> TrustedKey:
    """A new key in place of an old one, which is revoked; what the old one signed must be signed again."""
    if name not in {key.name for key in trust(home).keys}:
        raise ArtifactError(f"no trusted key {name}", where=str(home.trust), fix="see: glovebox keys list")
    key = new(home, successor)
    revoke(home, name)
    return key


def set_threshold(home: Home, threshold: int) -> None:
    """How many keys must sign; raises PolicyError when there are fewer."""
    root = trust(home)
    if threshold > len(root.keys):
        fix = "add keys first: glovebox keys new NAME"
        raise ArtifactError(f"there are {len(root.keys)} keys", where=str(home.trust), fix=fix)
    _write(home, root.model_copy(update={"threshold": threshold}))


def listing(home: Home) -> list[Listed]:
    """Every key, trusted and revoked."""
    root = trust(home)
    rows = [Listed(key.name, key.keyid, "trusted", _private(home, key.name)) for key in root.keys]
    return rows + [Listed(key.name, key.keyid, f"revoked {key.on}", _private(home, key.name)) for key in root.revoked]


def signers(home: Home) -> list[CryptoSigner]:
    """Every trusted key whose private half is here; raises ArtifactError if there is none."""
    found = [_load(path_of(home, key.name)) for key in trust(home).keys if path_of(home, key.name).exists()]
    if not found:
        raise ArtifactError("no signing key", where=str(home.keys), fix="run: glovebox keys new NAME")
    return found


def path_of(home: Home, name: str) -> Path:
    """File of a private key."""
    return home.keys / f"{name}.pem"


def _proper(name: str, root: Trust) -> None:
    """Raise ArtifactError for a name that cannot be one (it becomes a file name), or one key too many."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ArtifactError(f"not a name: {name[:40]!r}", where="key name", fix="use lower case letters, digits, _ -")
    if len(root.keys) >= MAX_KEYS:
        raise ArtifactError(f"there are {MAX_KEYS} keys already", where="policies/trust.yaml", fix="revoke one first")


def _private(home: Home, name: str) -> str:
    path = path_of(home, name)
    if not path.exists():
        return ""
    return "encrypted" if b"ENCRYPTED" in path.read_bytes() else "plain"


def _generate(home: Home, name: str) -> TrustedKey:
    home.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = Ed25519PrivateKey.generate()
    passphrase = _passphrase()
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    path = path_of(home, name)
    try:
        files.write(path, pem, mode=0o600, replace=False)
    except FileExistsError:
        fix = "restore trust.yaml, or move the key away"
        raise ArtifactError("a signing key that trust.yaml does not list", where=str(path), fix=fix) from None
    public = CryptoSigner(private).public_key
    return TrustedKey(name=name, keyid=public.keyid, public=public.keyval["public"])


def _load(path: Path) -> CryptoSigner:
    try:
        data = path.read_bytes()
        key = serialization.load_pem_private_key(data, _passphrase() if b"ENCRYPTED" in data else None)
    except (ValueError, TypeError):
        fix = "set GLOVEBOX_KEY_PASSPHRASE_FILE to its passphrase"
        raise ArtifactError("the signing key cannot be read", where=str(path), fix=fix) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ArtifactError("not an Ed25519 key", where=str(path), fix="run: glovebox keys new NAME")
    return CryptoSigner(key)


def _keyid(digits: str) -> str:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(digits))
    except ValueError:
        fix = "pass the 64 digits that glovebox keys list --json prints"
        raise ArtifactError("not an Ed25519 public key", where="public key", fix=fix) from None
    return SSlibKey.from_crypto(public).keyid


def _write(home: Home, root: Trust) -> None:
    home.trust.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = _HEADER + yaml.safe_dump(root.model_dump(), sort_keys=False)
    files.write(home.trust, text)


def _passphrase() -> bytes | None:
    path = os.environ.get("GLOVEBOX_KEY_PASSPHRASE_FILE")
    if not path:
        return None
    try:
        phrase = Path(path).read_bytes().strip()
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=path, fix="check the passphrase file") from None
    if not phrase:
        raise ArtifactError("the passphrase file is empty", where=path, fix="write a passphrase into it")
    return phrase


def create_audit_key(home: Home) -> str:
    """A new audit key; returns its public half in hexadecimal digits."""
    private = Ed25519PrivateKey.generate()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem = private.private_bytes(encoding, form, serialization.NoEncryption())
    files.write(home.audit_key, pem, mode=0o600, replace=False)
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return private.public_key().public_bytes(*raw).hex()


def secret(home: Home, label: str) -> bytes:
    """32 bytes that only this bench knows, the same for the same label: HMAC-SHA-256 under its audit key."""
    try:
        key = home.audit_key.read_bytes()
    except OSError as error:
        fix = "restore it from a backup, or begin a new bench: glovebox init"
        raise PolicyError(f"cannot be read: {error.strerror}", where=str(home.audit_key), fix=fix) from None
    return hmac.digest(key, f"glovebox secret 1\n{label}".encode(), "sha256")
