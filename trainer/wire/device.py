"""The device the bench promised, and whether it is there. Both rooms ask; it imports no torch until it must.

A launcher that lends a GPU says so in GLOVEBOX_DEVICE. torch without a working driver says "no CUDA" and goes on on the
CPU (CUDA 13 does on drivers before 580): minutes later there would be a score that another machine computed. So a room
that was promised a GPU ends without one, before it has seen a candidate.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trainer.wire import variables

NO_DEVICE = 75  # exit code; EX_TEMPFAIL of sysexits.h


def name() -> str:
    """ "cuda" or "cpu": as promised; without a promise (a plain process) whatever torch finds."""
    import torch  # noqa: PLC0415 - see above

    return os.environ.get(variables.DEVICE) or (variables.CUDA if torch.cuda.is_available() else variables.CPU)


def there() -> bool:
    """Whether what was promised can be used; if not, says why on stderr. Creates no context on a GPU."""
    promised = os.environ.get(variables.DEVICE)
    if promised != variables.CUDA:
        return True
    import torch  # noqa: PLC0415

    if torch.version.cuda is None:
        _say("this image holds torch for CPUs only", "build it with CUDA: GLOVEBOX_TORCH=cu130 make images")
    elif not torch.cuda.is_available():
        _say(f"torch {torch.__version__} finds no GPU", "the driver may be too old for it: glovebox doctor --gpu")
    else:
        return True
    return False


def openable() -> bool:
    """Whether the GPU's device files can still be opened; if not, says so on stderr.

    A container that got its GPU through the legacy hook loses it when systemd reloads its units.
    """
    if os.environ.get(variables.DEVICE) != variables.CUDA:
        return True
    for path in sorted(Path("/dev").glob("nvidia[0-9]*")):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            _say(f"{path}: {error.strerror}", "use CDI (nvidia-ctk cdi generate): a reload of systemd leaves it alone")
            return False
    return True


def _say(what: str, fix: str) -> None:
    print(f"no GPU: {what} (fix: {fix})", file=sys.stderr, flush=True)
