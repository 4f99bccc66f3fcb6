"""Every error a person may meet: what happened, where, how to fix it, and the exit code. TRUSTED.

Exit codes: 0 success, 1 internal failure, 2 wrong usage, 3 policy or settings, 4 artifacts or keys,
5 engine or images (doctor: any failed check), 6 busy (already running), 7 train.py refused, 8 verification failed,
9 the agent gave up, 10 a proof was contradicted, 130 interrupted.
"""

from __future__ import annotations

GAVE_UP_CODE = 9  # of a session whose agent cannot go on
TOLD_CODE = 11  # of a session whose tag has no bits left to tell
FINAL_CODES = (0, 2, 3, 4, 7, 8, GAVE_UP_CODE, 10, TOLD_CODE, 130)  # what another start would only repeat


class GloveboxError(Exception):
    """One clear line: what, where, how to fix."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line} (fix: {self.fix})" if self.fix else line
        return "".join(c if c.isprintable() else "?" for c in line)  # a file name may hold terminal escapes


class UsageError(GloveboxError):
    """What a person asked for is not there, or may not be asked for here."""

    exit_code = 2


class PolicyError(GloveboxError):
    """A policy or settings file is missing, unreadable or says something it may not say."""

    exit_code = 3


class ArtifactError(GloveboxError):
    """Artifacts or keys are missing, altered, expired or not trusted."""

    exit_code = 4


class EngineError(GloveboxError):
    """No usable container engine, or an image is missing."""

    exit_code = 5


class BusyError(GloveboxError):
    """Something else already holds this bench."""

    exit_code = 6


class SnapshotError(GloveboxError):
    """train.py is not a file we are willing to read; `reason` is a closed code that may go to the agent."""

    exit_code = 7

    def __init__(self, reason: str, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


class BaselineError(GloveboxError):
    """The file a tag begins with gave no score, so there is nothing to measure a candidate by."""

    exit_code = 7


class VerifyError(GloveboxError):
    """Recorded evidence does not add up."""

    exit_code = 8


class ContradictedError(GloveboxError):
    """The audit saw a proved model look ahead: prover or evaluator is wrong, and no score is to be trusted."""

    exit_code = 10


class RelayedError(GloveboxError):
    """An error another of our processes met and put into words, with its exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


class DoorError(GloveboxError):
    """A peer on a socket sent something we do not accept, or hung up."""
