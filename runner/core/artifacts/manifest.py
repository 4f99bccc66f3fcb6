"""The signed manifest: a DSSE envelope around an in-toto statement. TRUSTED; reads files of any origin.

Statement subjects are all files with their SHA-256; the predicate adds sizes, profile, version, serial,
expiry and provenance. A folder verifies only if it holds exactly the listed regular files.
"""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, ValidationError
from securesystemslib.signer import CryptoSigner

from runner.core.artifacts import signing
from runner.core.artifacts.keys import Trust
from runner.core.artifacts.parallel import in_parallel
from runner.core.artifacts.progress import Advance
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file
from runner.core.base.launching import Sha256, Version
from runner.core.base.strict_yaml import Strict
from trainer.wire import strict_json

NAME = "manifest.dsse.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://glovebox.invalid/artifact/v1"
MAX_FILES = 50_000
LIFETIME = timedelta(days=365)
_DATA = r"(tokenizer|train|val|holdout|cache)/[a-z0-9_]{1,40}\.[a-z]{1,10}"
_KERNEL = r"kernels/[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(/[A-Za-z0-9_][A-Za-z0-9_.+-]{0,119}){1,8}"
FilePath = Annotated[str, Field(pattern=rf"^({_DATA}|{_KERNEL})$")]  # no part begins with a dot


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
    signers: list[CryptoSigner],
    *,
    profile: dict[str, int | str],
    version: str,
    serial: int,
    provenance: dict[str, str],
    made: datetime,
    advance: Advance = lambda _: None,
) -> None:
    """Hash everything in `folder`, in parallel, and write its manifest; the same files give the same bytes."""
    for leftover in folder.rglob("*.partial"):
        leftover.unlink()
    names = sorted(list_files(folder), key=lambda name: -(folder / name).stat().st_size)

    def hashed(name: str) -> tuple[str, str, int]:
        digest, size = hash_file(folder / name)
        advance(size)
        return name, digest, size

    found = sorted(in_parallel(hashed, names))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest, _ in found],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "profile": profile,
            "version": version,
            "serial": serial,
            "expires": (made + LIFETIME).isoformat(timespec="seconds"),
            "sizes": {name: size for name, _, size in found},
            "provenance": provenance | {"made": made.isoformat(timespec="seconds")},
        },
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    _statement(folder / NAME, payload)  # never publish what would be refused
    signing.write(folder / NAME, payload, signers)


def read(folder: Path, trust: Trust) -> Statement:
    """The statement, if enough trusted keys signed it and it is neither expired nor rolled back."""
    return verified(folder, trust)[0]


def verified(folder: Path, trust: Trust, at: datetime | None = None) -> tuple[Statement, bytes]:
    """What `read` returns, and exactly the bytes of the manifest it was read from; `at`: as of then, not of now."""
    path = folder / NAME
    payload, data = signing.verified(path, trust)
    statement = _statement(path, payload)
    if statement.predicate.expires <= (at or datetime.now(UTC)):
        raise ArtifactError(
            f"expired {statement.predicate.expires:%Y-%m-%d}", where=str(path), fix="run: glovebox prepare"
        )
    if statement.predicate.serial < trust.minimum_serial:
        raise ArtifactError("older than trust.yaml minimum_serial", where=str(path), fix="run: glovebox prepare")
    return statement, data


def _statement(path: Path, payload: bytes) -> Statement:
    try:
        strict_json.loads(payload, max_bytes=signing.MAX_MANIFEST)
        statement = Statement.model_validate_json(payload)
    except (strict_json.StrictJsonError, ValidationError):
        raise ArtifactError("malformed statement", where=str(path), fix="run: glovebox prepare again") from None
    names = [subject.name for subject in statement.subject]
    if len({name.casefold() for name in names}) != len(names):
        raise ArtifactError("file names that differ in case only", where=str(path), fix="run: glovebox prepare again")
    if set(names) != set(statement.predicate.sizes):
        raise ArtifactError("files without a size", where=str(path), fix="run: glovebox prepare again")
    return statement
