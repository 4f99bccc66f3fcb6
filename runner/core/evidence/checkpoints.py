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
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runner.core.base import files
from runner.core.base.errors import GloveboxError, PolicyError, VerifyError
from runner.core.base.home import Home
from runner.core.evidence.audit_chain import BEGUN, CHECKPOINT, FOUND, STEERED, AuditLog, canonical, ended, half
from trainer.wire import strict_json

MOST_UNSIGNED = 1  # runs that a crash may leave without a signature: each is sealed when it ends
_CONTEXT = b"glovebox audit checkpoint 1\n"  # this signature means this and nothing else
_MAX_WITNESS_LINE = 4096


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
        """Append a checkpoint of everything before it, and tell the witness; raises GloveboxError.

        What was found unsigned is signed only if a crash explains it, and the chain says so for ever.
        """
        self._take_over(log)
        number, head = log.last
        if number < 0 or log.last_kind == CHECKPOINT:
            return
        data = _signed(number, head)
        signature = self._key.sign(_CONTEXT + canonical(data)).hex()
        log.append(CHECKPOINT, {**data, "signature": signature})
        if self._witness is not None:
            self._tell(self._witness, {"bench": self._bench, **data, "signature": signature})

    def _take_over(self, log: AuditLog) -> None:
        """Before our first signature over what others wrote: raises VerifyError for what no session of ours left so."""
        newest, fix = log.checkpoint, "look at it, or restore a backup: glovebox verify"
        if newest is not None and not _covers(self._key.public_key(), newest):
            raise VerifyError("its last checkpoint is not this bench's", where=str(log.path), fix=fix)
        if log.unsigned > MOST_UNSIGNED:
            told = f"{log.unsigned} runs at its end are not signed: no session left them so"
            raise VerifyError(told, where=str(log.path), fix=fix)
        if log.inherited:
            log.append(FOUND, {})
        log.inherited, log.checkpoint = False, None

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


class Checkpoints:
    """Those of an intact chain, entry by entry."""

    def __init__(self, public: str) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        self.good = 0
        self.unsealed = 0  # runs after the last checkpoint
        self.starts = 0  # of experiments and tags, and what people asked for, after it
        self.found = 0  # runs that were signed by a session that had not seen them end
        self.found_starts = 0  # that it had not seen begin
        self._taken_over = False  # whether what comes before the next checkpoint was found there
        self.wrong: list[str] = []
        self.newest: tuple[int, str] | None = None  # number and hash of the last entry that one covers

    def take(self, entry: dict[str, Any]) -> None:
        """The next entry of the chain."""
        if entry.get("kind") != CHECKPOINT:
            self.unsealed += ended(entry)
            self.starts += entry.get("kind") in ("accepted", BEGUN, STEERED)
            self._taken_over |= entry.get("kind") == FOUND
            return
        if self._taken_over:
            self.found, self.found_starts = self.found + self.unsealed, self.found_starts + self.starts
        self._taken_over = False
        if self.unsealed > MOST_UNSIGNED:
            self.wrong.append(f"audit entry {entry['n']}: the first signature over {self.unsealed} runs")
        covered, self.unsealed, self.starts = (entry["n"] - 1, entry["prev"]), 0, 0
        if _covers(self._key, entry):
            self.good, self.newest = self.good + 1, covered
        else:
            self.wrong.append(f"audit entry {entry['n']}: a checkpoint that this bench's audit key did not sign")


def _covers(key: Ed25519PublicKey, entry: dict[str, Any]) -> bool:
    """Whether a checkpoint is signed by this key, and of just what comes before it."""
    covered = _signed(entry["n"] - 1, entry["prev"])
    return _holds(key, entry.get("data")) and covered.items() <= entry["data"].items()


def _holds(key: Ed25519PublicKey, data: Any) -> bool:
    try:
        key.verify(bytes.fromhex(data["signature"]), _CONTEXT + canonical(_signed(data["n"], data["head"])))
    except (InvalidSignature, KeyError, TypeError, ValueError):
        return False
    return True


def against_witness(
    home: Home, hashes: Mapping[int, str], public: str, path: Path, size: int, *, growing: bool = False
) -> tuple[int, list[str]]:
    """(checkpoints of this bench the witness saw, what no longer fits them); raises VerifyError.

    `hashes`: of the chain's entries by their numbers; `size`: bytes of the witness that the chain is to know. A witness
    of many benches and years may be of any size. `growing`: as a chain is (audit_chain.Follower).
    """
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    seen, wrong, ours = 0, list[str](), {home.id: True}
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_WITNESS_LINE), b""), 1):
                if file.tell() > size or (growing and half(line, _MAX_WITNESS_LINE)):
                    break
                told = _of_bench(ours, key, line)
                seen += bool(told)
                if told is None:
                    wrong.append(f"{path}:{number}: not a checkpoint")
                elif told and not _holds(key, told):
                    wrong.append(f"{path}:{number}: not signed by this bench's audit key")
                elif told and hashes.get(told["n"]) != told["head"]:
                    what = "the chain was cut, rolled back or replaced: the witness saw another entry"
                    wrong.append(f"{what} {told['n']}")
    except OSError as error:
        raise VerifyError(f"the witness cannot be read: {error.strerror}", where=str(path), fix="mount it") from None
    if not seen:
        wrong.append(f"{path}: the witness knows no checkpoint of this bench")
    return seen, wrong


def _of_bench(ours: dict[str, bool], key: Ed25519PublicKey, line: bytes) -> dict[str, Any] | None:
    """A witness's line if it is of this bench, {} if it is of another, None if it is no checkpoint.

    `ours`: by the name of a bench, whether it is this one: restored elsewhere it has another name and the same key.
    That is looked at once for each, since a witness may have millions of lines of others.
    """
    try:
        told = strict_json.loads(line, max_bytes=_MAX_WITNESS_LINE)
        bench = str(told["bench"])
        if bench not in ours:
            ours[bench] = _holds(key, told)
        return told if ours[bench] else {}
    except (ValueError, KeyError, TypeError):
        return None
