"""Who signed this? DSSE signatures against the trust root, each way to fail with its own error. TRUSTED.

Source: DSSE, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import json
from pathlib import Path

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner

from runner.core.artifacts.keys import Trust
from runner.core.base.errors import ArtifactError
from runner.core.base.files import open_plain, whole
from trainer.wire import strict_json

MAX_MANIFEST = 32 << 20
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_AGAIN = "run: glovebox prepare again"


def write(path: Path, payload: bytes, signers: list[CryptoSigner]) -> None:
    """An envelope around `payload`, signed by all of `signers`."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    _save(path, envelope)


def add(path: Path, signers: list[CryptoSigner]) -> None:
    """Further signatures on an existing envelope; the payload stays as it is."""
    envelope, _ = _read(path)
    for signer in signers:
        envelope.sign(signer)
    _save(path, envelope)


def verified(path: Path, trust: Trust) -> tuple[bytes, bytes]:
    """(payload, the whole file) if `threshold` trusted keys signed exactly it; raises ArtifactError."""
    envelope, data = _read(path)
    good, bad = 0, ""
    for named, key in zip(trust.keys, trust.public(), strict=True):
        signature = envelope.signatures.get(key.keyid)
        if signature is None:
            continue
        try:
            key.verify_signature(signature, envelope.pae())
            good += 1
        except UnverifiedSignatureError:
            bad = named.name
    if good < trust.threshold:
        raise _too_few(path, envelope, trust, good, bad)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ArtifactError("unexpected payload type", where=str(path), fix=_AGAIN)
    return bytes(envelope.payload), data


def _too_few(path: Path, envelope: Envelope, trust: Trust, good: int, bad: str) -> ArtifactError:
    """The most telling reason why the signatures do not suffice."""
    revoked = [key.name for key in trust.revoked if key.keyid in envelope.signatures]
    if bad:
        return ArtifactError(f"the signature of {bad} does not match its content", where=str(path), fix=_AGAIN)
    if not envelope.signatures:
        return ArtifactError("not signed", where=str(path), fix=_AGAIN)
    if good:
        text = f"{good} of {trust.threshold} needed signatures by trusted keys"
        return ArtifactError(text, where=str(path), fix="have another key holder run: glovebox keys sign VERSION")
    if revoked:
        text = f"signed by the revoked key {revoked[0]}"
        return ArtifactError(text, where=str(path), fix="sign it again: glovebox keys sign VERSION, or prepare again")
    return ArtifactError(
        "signed by no key this bench knows", where=str(path), fix="add the signer's key: glovebox keys add NAME PUBLIC"
    )


def _save(path: Path, envelope: Envelope) -> None:
    with whole(path) as file:
        file.write(json.dumps(envelope.to_dict(), indent=1).encode())


def _read(path: Path) -> tuple[Envelope, bytes]:
    try:
        with open_plain(path) as file:
            data = file.read(MAX_MANIFEST + 1)
    except OSError:
        raise ArtifactError("no manifest", where=str(path), fix="run: glovebox prepare") from None
    try:
        return Envelope.from_dict(strict_json.loads(data, max_bytes=MAX_MANIFEST)), data
    except (strict_json.StrictJsonError, KeyError, TypeError, ValueError, AttributeError, SigningError):
        raise ArtifactError("malformed envelope", where=str(path), fix=_AGAIN) from None
