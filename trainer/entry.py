"""Runs /work/train.py inside the trainer container. UNTRUSTED at run time: it shares a process with it.

It only reports: the exception class and the line in train.py go to telemetry, the exit code to the
engine. Whether a run counts is decided from the engine's state and from what the evaluator computes.
What every train.py needs is imported before there is one: the container may have been started ahead. One that sets
variables which libraries read while they are imported (TORCHINDUCTOR_*) gets a process that has imported nothing.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
import tempfile
import traceback
from pathlib import Path
from types import ModuleType

from trainer import kernels_offline, telemetry
from trainer.wire import device, release

SCRIPT = Path(os.environ.get("GLOVEBOX_TRAIN_PY", "/work/train.py")).absolute()
CACHE, WARM, KEPT = Path("/cache"), Path("/warm.tar"), Path("/out/cache.tar")  # compiled code: here, to begin with, out
_VARIABLES = {"seed": "GLOVEBOX_SEED", "budget": "GLOVEBOX_TIME_BUDGET"}
_UNPREPARED = "GLOVEBOX_UNPREPARED"  # set in a process that is to import nothing ahead
_READ_ON_IMPORT = re.compile(
    rb"""["'](TORCH|PYTORCH|AOT|PARTITIONER|TRITON|CUDA|CUBLAS|CUDNN|NVIDIA|OMP|MKL|KMP|GOMP|OPENBLAS|NUMEXPR|DNNL|ONEDNN)"""
    rb"""[A-Z0-9]*_[A-Z0-9_]+["']|environ\.update\("""
)
_READ_LATER = frozenset({b"PYTORCH_ALLOC_CONF", b"PYTORCH_CUDA_ALLOC_CONF"})  # by the first allocation on a GPU


def main() -> int:
    """Execute the script as __main__; 0 on success, 1 on an exception, the script's own exit code.

    NO_DEVICE where the bench promised a GPU and there is none: before any script is read, or before it runs.
    """
    kernels_offline.install()
    if _UNPREPARED in os.environ:
        return _run() if device.openable() else device.NO_DEVICE
    if not device.there():
        return device.NO_DEVICE
    _prepare()
    telemetry.phase("ready")
    for name, value in release.wait().items():
        if value is not None:
            os.environ[_VARIABLES[name]] = str(value)
    if not device.openable():  # taken away since: an engine that was reloaded, a driver that fell over
        return device.NO_DEVICE
    if reads_on_import(SCRIPT.read_bytes()):
        os.environ[_UNPREPARED] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "trainer.entry"])  # noqa: S606 - the same program once more
    return _run()


def reads_on_import(source: bytes) -> bool:
    """Whether a script names a variable that counts only if it is set before a library is imported."""
    return any(match[0][1:-1] not in _READ_LATER for match in _READ_ON_IMPORT.finditer(source))


def _prepare() -> None:
    from trainer import hand_over  # noqa: PLC0415 - imports torch, which an unprepared process does not

    hand_over.rehearse()
    if WARM.exists():
        with tarfile.open(WARM) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
            archive.extractall(CACHE)  # noqa: S202 - signed, and into a folder that dies with this room


def _run() -> int:
    telemetry.begin()
    sys.stdout = telemetry.Tee(sys.stdout)
    sys.path.insert(0, str(Path(__file__).parent))  # `import prepare`, as upstream's train.py does
    sys.argv = [str(SCRIPT)]
    _scratch()
    module = ModuleType("__main__")
    module.__file__ = str(SCRIPT)
    sys.modules["__main__"] = module
    try:
        code = compile(SCRIPT.read_bytes(), str(SCRIPT), "exec")
        exec(code, module.__dict__)
    except SystemExit as stop:
        if stop.code is not None and not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exc()
        telemetry.crash(error, _line(error))
        return 1
    telemetry.phase("done")
    if KEPT.exists():
        with tarfile.open(KEPT, "w") as archive:
            for path in sorted(CACHE.iterdir()):
                archive.add(path, path.name)
    return 0


def _scratch() -> None:
    """A working directory that can be written to, with train.py in it: scripts leave logs and checkpoints there."""
    folder = Path(tempfile.mkdtemp(prefix="run-"))
    (folder / SCRIPT.name).symlink_to(SCRIPT)
    os.chdir(folder)


def _line(error: BaseException) -> int:
    if isinstance(error, SyntaxError) and error.filename == str(SCRIPT):
        return error.lineno or 0
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(SCRIPT)]
    return lines[-1] or 0 if lines else 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads and atexit hooks of the script must not keep the container alive
