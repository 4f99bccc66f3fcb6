"""Ed25519 signing keys of a bench, and the trust root that names the public ones. TRUSTED.

trust.yaml lists public keys; the private key lives in keys/ with mode 0600, encrypted if a passphrase
file is given in GLOVEBOX_KEY_PASSPHRASE_FILE.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from runner.errors import ArtifactError
from runner.home import Home
from runner.strict_yaml import Strict, load_yaml

PRIVATE = "signing.pem"


class TrustedKey(Strict):
    """One public key, hexadecimal, and its id as securesystemslib computes it."""

    keyid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    public: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Trust(Strict):
    """trust.yaml: who may sign, how many must, and the lowest artifact serial still accepted."""

    scheme: Literal["ed25519"]
    threshold: Annotated[int, Field(ge=1, le=10)]
    minimum_serial: Annotated[int, Field(ge=0)]
    keys: Annotated[list[TrustedKey], Field(min_length=1, max_length=20)]


def create(home: Home) -> None:
    """A new signing key and a trust root that accepts it; nothing is overwritten."""
    home.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = Ed25519PrivateKey.generate()
    passphrase = _passphrase()
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        descriptor = os.open(home.keys / PRIVATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ArtifactError(
            "a signing key without its trust.yaml",
            where=str(home.keys / PRIVATE),
            fix="restore trust.yaml, or move the key away",
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    key = CryptoSigner(private).public_key
    trust = {
        "scheme": "ed25519",
        "threshold": 1,
        "minimum_serial": 0,
        "keys": [{"keyid": key.keyid, "public": key.keyval["public"]}],
    }
    home.trust.write_text("# Who may sign artifacts of this bench.\n" + yaml.safe_dump(trust, sort_keys=False))


def signer(home: Home) -> CryptoSigner:
    """The bench's signer; raises ArtifactError."""
    path = home.keys / PRIVATE
    phrase = _passphrase()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), phrase)
    except FileNotFoundError:
        raise ArtifactError("no signing key", where=str(path), fix="run: glovebox init") from None
    except (ValueError, TypeError):
        raise ArtifactError(
            "the signing key cannot be read", where=str(path), fix="set GLOVEBOX_KEY_PASSPHRASE_FILE to its passphrase"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ArtifactError("not an Ed25519 key", where=str(path), fix="run: glovebox init in a new folder")
    return CryptoSigner(key)


def trusted(home: Home) -> tuple[Trust, list[Key]]:
    """The trust root and its keys; raises PolicyError or ArtifactError."""
    trust = load_yaml(home.trust, Trust)
    keys: list[Key] = []
    for entry in trust.keys:
        keys.append(SSlibKey(entry.keyid, "ed25519", trust.scheme, {"public": entry.public}))
    if len({entry.public for entry in trust.keys}) != len(trust.keys) or trust.threshold > len(keys):
        raise ArtifactError(
            "duplicate keys or an unreachable threshold", where=str(home.trust), fix="correct trust.yaml"
        )
    return trust, keys


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
