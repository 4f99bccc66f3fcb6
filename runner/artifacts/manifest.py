"""The signed manifest: a DSSE envelope around an in-toto statement. TRUSTED; reads files of any origin.

Statement subjects are all files with their SHA-256; the predicate adds sizes, profile, version, serial,
expiry and provenance. A folder verifies only if it holds exactly the listed regular files.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key

from runner.errors import ArtifactError
from runner.records import Sha256, Version
from runner.strict_yaml import Strict
from trainer.evaluator import strict_json

NAME = "manifest.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://glovebox.invalid/artifact/v1"
MAX_MANIFEST = 4 << 20
MAX_FILES = 10_000
CHUNK = 1 << 20
LIFETIME = timedelta(days=365)
FilePath = Annotated[str, Field(pattern=r"^(tokenizer|train|val)/[a-z0-9_.]{1,80}$")]


class Digest(Strict):
    """SHA-256 of one subject."""

    sha256: Sha256


class Subject(Strict):
    """One file."""

    name: FilePath
    digest: Digest


class Predicate(Strict):
    """What the signature says beyond the hashes."""

    profile: dict[str, int | str]
    version: Version
    serial: Annotated[int, Field(ge=1)]
    expires: AwareDatetime
    sizes: dict[FilePath, Annotated[int, Field(ge=0)]]
    provenance: dict[str, str]


class Statement(Strict):
    """in-toto Statement v1."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: Annotated[list[Subject], Field(min_length=1, max_length=MAX_FILES)]
    predicate_type: Literal["https://glovebox.invalid/artifact/v1"] = Field(alias="predicateType")
    predicate: Predicate


def hash_file(path: Path) -> tuple[str, int]:
    """(SHA-256, size) of a file, read in chunks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def list_files(folder: Path) -> list[str]:
    """Relative paths of everything below `folder`; raises ArtifactError on anything but regular files."""
    out = []
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in folders + files:
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                raise ArtifactError("not a regular file", where=str(path), fix="run: glovebox prepare again")
            if relative != NAME:
                out.append(relative)
    return sorted(out)


def sign(
    folder: Path,
    signer: CryptoSigner,
    *,
    profile: dict[str, int | str],
    version: str,
    serial: int,
    provenance: dict[str, str],
) -> None:
    """Hash everything in `folder` and write its manifest."""
    hashed = {name: hash_file(folder / name) for name in list_files(folder)}
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, (digest, _) in hashed.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "profile": profile,
            "version": version,
            "serial": serial,
            "expires": (datetime.now(UTC) + LIFETIME).isoformat(timespec="seconds"),
            "sizes": {name: size for name, (_, size) in hashed.items()},
            "provenance": provenance,
        },
    }
    envelope = Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    (folder / NAME).write_text(json.dumps(envelope.to_dict(), indent=1))


def read(folder: Path, keys: list[Key], threshold: int, minimum_serial: int) -> Statement:
    """The statement, if enough trusted keys signed it and it is neither expired nor rolled back."""
    path = folder / NAME
    envelope = _envelope(path)
    try:
        envelope.verify(keys, threshold)
    except VerificationError:
        raise ArtifactError("not signed by enough trusted keys", where=str(path), fix="check trust.yaml") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ArtifactError("unexpected payload type", where=str(path), fix="run: glovebox prepare again")
    try:
        strict_json.loads(envelope.payload, max_bytes=MAX_MANIFEST)
        statement = Statement.model_validate_json(envelope.payload)
    except (strict_json.StrictJsonError, ValidationError):
        raise ArtifactError("malformed statement", where=str(path), fix="run: glovebox prepare again") from None
    names = [subject.name for subject in statement.subject]
    if len({name.casefold() for name in names}) != len(names) or set(names) != set(statement.predicate.sizes):
        raise ArtifactError("colliding or unsized file names", where=str(path), fix="run: glovebox prepare again")
    if statement.predicate.expires <= datetime.now(UTC):
        raise ArtifactError(
            f"expired {statement.predicate.expires:%Y-%m-%d}", where=str(path), fix="run: glovebox prepare"
        )
    if statement.predicate.serial < minimum_serial:
        raise ArtifactError("older than trust.yaml minimum_serial", where=str(path), fix="run: glovebox prepare")
    return statement


def _envelope(path: Path) -> Envelope:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST + 1)
    except OSError:
        raise ArtifactError("no manifest", where=str(path), fix="run: glovebox prepare") from None
    try:
        raw: Any = strict_json.loads(data, max_bytes=MAX_MANIFEST)
        return Envelope.from_dict(raw)
    except (strict_json.StrictJsonError, KeyError, TypeError, ValueError, AttributeError):
        raise ArtifactError("malformed envelope", where=str(path), fix="run: glovebox prepare again") from None
