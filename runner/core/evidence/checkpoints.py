"""Signed checkpoints of the audit chain, and a witness of them somewhere else. TRUSTED.

A checkpoint is an entry of the chain whose data names the entry before it (number and hash) with an Ed25519
signature of the bench's audit key: whoever rewrites the chain must hold that key. A witness is a file elsewhere
(another disk, a mount of another machine) that gets the same checkpoints as lines: with it a chain that was cut
off, rolled back or replaced as a whole no longer fits.

The key lies beside the bench, since the runner signs unattended: checkpoints prove nothing against somebody who
has been that runner's user. The witness does, as far as it is out of that user's reach.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runner.core.base import files
from runner.core.base.errors import GloveboxError, PolicyError, VerifyError
from runner.core.base.home import Home
from runner.core.evidence.audit_chain import AuditLog, canonical

KIND = "checkpoint"
_CONTEXT = b"glovebox audit checkpoint 1\n"  # this signature means this and nothing else
_MAX_WITNESS = 64 << 20


class Sealer:
    """Signs the head of a chain."""

    def __init__(self, home: Home, witness: str) -> None:
        self._witness = Path(witness) if witness else None
        self._bench = home.id
        try:
            key = serialization.load_pem_private_key(home.audit_key.read_bytes(), None)
        except (OSError, ValueError, TypeError):
            fix = "restore it from a backup, or begin a new bench: glovebox init"
            raise PolicyError("the audit key cannot be read", where=str(home.audit_key), fix=fix) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise PolicyError("not an Ed25519 key", where=str(home.audit_key), fix="restore it from a backup")
        self._key = key

    def draw(self, label: str) -> int:
        """A seed that only this bench can know beforehand: the same for the same label, 31 bits (RFC 8032 signatures
        are deterministic)."""
        signature = self._key.sign(b"glovebox seed 1\n" + label.encode())
        return int.from_bytes(hashlib.sha256(signature).digest()[:4], "big") >> 1

    def seal(self, log: AuditLog) -> None:
        """Append a checkpoint of everything before it, and tell the witness; raises GloveboxError."""
        number, head = log.last
        if number < 0 or log.last_kind == KIND:
            return
        data = _signed(number, head)
        signature = self._key.sign(_CONTEXT + canonical(data)).hex()
        log.append(KIND, {**data, "signature": signature})
        if self._witness is not None:
            self._tell(self._witness, {"bench": self._bench, **data, "signature": signature})

    def _tell(self, path: Path, checkpoint: dict[str, Any]) -> None:
        try:
            with files.append(path) as file:
                file.write(canonical(checkpoint) + b"\n")
                os.fsync(file.fileno())
        except OSError as error:
            fix = "mount it again, or change witness in policies/audit.yaml"
            raise GloveboxError(f"the witness cannot be written: {error.strerror}", where=str(path), fix=fix) from None


def _signed(number: int, head: str) -> dict[str, Any]:
    return {"n": number, "head": head}


def check(entries: list[dict[str, Any]], public: str) -> tuple[int, int, list[str]]:
    """(checkpoints that hold, experiments after the last of them, what is wrong) of an intact chain."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    good, unsealed, wrong = 0, 0, list[str]()
    for entry in entries:
        if entry.get("kind") != KIND:
            unsealed += entry.get("kind") == "finished"
            continue
        if _holds(key, entry.get("data")) and _signed(entry["n"] - 1, entry["prev"]).items() <= entry["data"].items():
            good, unsealed = good + 1, 0
        else:
            wrong.append(f"audit entry {entry['n']}: a checkpoint that this bench's audit key did not sign")
    return good, unsealed, wrong


def _holds(key: Ed25519PublicKey, data: Any) -> bool:
    try:
        key.verify(bytes.fromhex(data["signature"]), _CONTEXT + canonical(_signed(data["n"], data["head"])))
    except (InvalidSignature, KeyError, TypeError, ValueError):
        return False
    return True


def against_witness(home: Home, entries: list[dict[str, Any]], public: str, path: Path) -> tuple[int, list[str]]:
    """(checkpoints of this bench the witness saw, what no longer fits them); raises VerifyError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_WITNESS + 1)
    except OSError as error:
        raise VerifyError(f"the witness cannot be read: {error.strerror}", where=str(path), fix="mount it") from None
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    hashes = {entry["n"]: entry["hash"] for entry in entries}
    seen, wrong = 0, list[str]()
    for number, line in enumerate(data.splitlines(), 1):
        try:
            told = json.loads(line)
            ours = told["bench"] == home.id
        except (ValueError, KeyError, TypeError):
            wrong.append(f"{path}:{number}: not a checkpoint")
            continue
        if not ours:
            continue
        seen += 1
        if not _holds(key, told):
            wrong.append(f"{path}:{number}: not signed by this bench's audit key")
        elif hashes.get(told["n"]) != told["head"]:
            wrong.append(f"the chain was cut, rolled back or replaced: the witness saw another entry {told['n']}")
    if not seen:
        wrong.append(f"{path}: the witness knows no checkpoint of this bench")
    return seen, wrong
