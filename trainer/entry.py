"""Runs /work/train.py inside the trainer container. UNTRUSTED at run time: it shares a process with it.

It only reports: the exception class and the line in train.py go to telemetry, the exit code to the
engine. Whether a run counts is decided from the engine's state and from what the evaluator computes.
What every train.py needs is imported before there is one: the container may have been started ahead.
"""

from __future__ import annotations

import os
import sys
import tarfile
import traceback
from pathlib import Path
from types import ModuleType

from trainer import hand_over, kernels_offline, telemetry
from trainer.wire import release

SCRIPT = Path(os.environ.get("GLOVEBOX_TRAIN_PY", "/work/train.py"))
CACHE, WARM, KEPT = Path("/cache"), Path("/warm.tar"), Path("/out/cache.tar")  # compiled code: here, to begin with, out
_VARIABLES = {"seed": "GLOVEBOX_SEED", "budget": "GLOVEBOX_TIME_BUDGET"}


def main() -> int:
    """Execute the script as __main__; 0 on success, 1 on an exception, the script's own exit code."""
    kernels_offline.install()
    hand_over.rehearse()
    if WARM.exists():
        with tarfile.open(WARM) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
            archive.extractall(CACHE)  # noqa: S202 - signed, and into a folder that dies with this room
    telemetry.phase("ready")
    for name, value in release.wait().items():
        if value is not None:
            os.environ[_VARIABLES[name]] = str(value)
    telemetry.begin()
    sys.stdout = telemetry.Tee(sys.stdout)
    sys.path.insert(0, str(Path(__file__).parent))  # `import prepare`, as upstream's train.py does
    sys.argv = [str(SCRIPT)]
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
