"""Runs /work/train.py inside the trainer container. UNTRUSTED at run time: it shares a process with it.

It only reports: the exception class and the line in train.py go to telemetry, the exit code to the
engine. Whether a run counts is decided from the engine's state and from what the evaluator computes.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from trainer import kernels_offline, telemetry

SCRIPT = Path(os.environ.get("GLOVEBOX_TRAIN_PY", "/work/train.py"))


def main() -> int:
    """Execute the script as __main__; 0 on success, 1 on an exception, the script's own exit code."""
    telemetry.phase("start")
    sys.stdout = telemetry.Tee(sys.stdout)
    sys.path.insert(0, str(Path(__file__).parent))  # `import prepare`, as upstream's train.py does
    sys.argv = [str(SCRIPT)]
    kernels_offline.install()
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
