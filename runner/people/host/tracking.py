"""A tag's record as tracking tools keep it, written by their own libraries into files here. TRUSTED, offline.

One run for the tag, a step an experiment; and one for each keep, with its loss curve. What tools do with it later, on
somebody's server, is theirs; descriptions in it are agents' words.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.core.base import files
from runner.core.base.errors import UsageError
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Experiment, Status
from runner.core.decision import standing

MOST_KEEPS = 200  # of the kept line, the newest
PROJECT = "glovebox"
_SECONDS = 1800
_NOWHERE = "mlflow-artifacts:/none"  # there are no artifacts
_MISSING = 66  # exit code: its library is not here
_INSTALL = "from the checkout: .venv/bin/pip install -e '.[tracking]'"


@dataclass(frozen=True)
class Series:
    """What becomes one run of a tool."""

    name: str
    config: dict[str, str]
    points: list[tuple[int, dict[str, float]]]  # by step


def series(rows: Sequence[Experiment], tag: str) -> list[Series]:
    """The tag's own and those of its kept line."""
    points, best = [], None
    for row in sorted(rows, key=lambda row: row.id):  # tools drop what comes out of order, and lanes end so
        if row.status is Status.KEEP and row.val_bpb is not None:
            best = row.val_bpb
        values = {"val_bpb": row.val_bpb, "best": best, "expected_gain": row.gain, "probability": row.probability}
        told = {name: float(value) for name, value in values.items() if value is not None}
        points.append((row.id, told | {"seconds": row.seconds, "memory_gb": row.memory_gb}))
    kept = [row for row in standing.line(rows)[-MOST_KEEPS:] if row.curve]
    whole = Series(tag, {"tag": tag, "experiments": str(len(rows))}, points)
    return [whole, *(_of(row, tag) for row in kept)]


def _of(row: Experiment, tag: str) -> Series:
    points = [(step, {"train_loss": loss}) for step, loss in row.curve]
    if row.val_bpb is not None:
        points.append((row.curve[-1][0] + 1, {"val_bpb": row.val_bpb}))
    config = {"tag": tag, "experiment": str(row.id), "description": row.description, "commit": row.commit}
    return Series(f"{tag}-{row.id}", config, points)


def write(tool: str, rows: Sequence[Experiment], tag: str, folder: Path) -> int:
    """Write a tag for one of TOOLS into a new folder; returns how many runs it has. Raises UsageError.

    In a process of its own: these libraries take settings when they are imported, and leave threads behind.
    """
    found = series(rows, tag)
    if os.path.lexists(folder):
        raise UsageError("is there already", where=str(folder), fix="name another folder")
    with files.whole_folder(folder) as partial:
        command = [sys.executable, "-m", __spec__.name, tool, str(partial)]
        text = json.dumps([asdict(one) for one in found])
        code, why = _ran(command, text, partial)
        if code == _MISSING:
            raise UsageError(f"{tool} is not installed", where=f"--{tool}", fix=_INSTALL)
        if code:
            raise UsageError(f"{tool}'s library failed: {why}", where=f"--{tool}", fix=_INSTALL)
        _clean(partial)
    return len(found)


def _ran(command: list[str], text: str, folder: Path) -> tuple[int, str]:
    """(exit code, last words) of a tool's process; it and what it started end with us, or when their time is up."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=_environment(folder), cwd=folder, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.communicate(text, timeout=_SECONDS)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code = 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4000))
        lines = said.read().decode(errors="replace").strip().splitlines()
    return code, (lines[-1] if lines else f"nothing came in {_SECONDS} s")[:300]


def _clean(folder: Path) -> None:
    """What tools write of this host beside the run: logs, lists of packages, links, its name in a file's."""
    for path in [*folder.rglob("*")]:
        if path.is_symlink() or path.name in ("logs", "requirements.txt", ".own", "wandb-metadata.json"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(
                missing_ok=True
            )
        elif path.name.startswith("events.out.tfevents."):
            path.rename(path.with_name("events.out.tfevents.0.glovebox"))


def _environment(folder: Path) -> dict[str, str]:
    """No questions home, no banners, and nothing of the tools' own outside of the folder."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    own = str(folder / ".own")
    return kept | {
        "PYTHONPATH": str(SOURCE), "HOME": own,
        "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_DIR": str(folder),
        "TRACKIO_DIR": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip


def _tensorboard(found: Sequence[Series], folder: Path) -> None:
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415 - an optional dependency
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415

    for one in found:
        writer = EventFileWriter(str(folder / one.name))
        for step, values in one.points:
            told = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            writer.add_event(Event(step=step, wall_time=float(step), summary=Summary(value=told)))
        writer.close()


def _mlflow(found: Sequence[Series], _: Path) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - an optional dependency
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    client = MlflowClient(tracking_uri="sqlite:///mlflow.db")  # it runs in the folder
    experiment = client.create_experiment(found[0].name, artifact_location=_NOWHERE)
    for one in found:
        run = client.create_run(experiment, run_name=one.name)
        metrics = [Metric(name, value, step, step) for step, values in one.points for name, value in values.items()]
        parameters = [Param(name, value[:5000]) for name, value in one.config.items()]
        for at in range(0, max(1, len(metrics)), 900):  # of a thousand in a batch
            client.log_batch(run.info.run_id, metrics[at : at + 900], parameters if not at else [])
        client.set_terminated(run.info.run_id)
    with closing(sqlite3.connect("mlflow.db", isolation_level=None)) as db:
        db.execute("UPDATE experiments SET artifact_location = ?", (_NOWHERE,))  # its own has this folder's path
        db.execute("VACUUM")


def _wandb(found: Sequence[Series], folder: Path) -> None:
    import wandb  # noqa: PLC0415 - an optional dependency

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        host="glovebox",
    )
    for one in found:
        run = wandb.init(
            mode="offline", dir=str(folder), project=PROJECT, group=found[0].name, name=one.name, config=one.config,
            settings=settings, reinit="finish_previous",
        )  # fmt: skip
        for step, values in one.points:
            run.log(values, step=step)
        run.finish()


def _trackio(found: Sequence[Series], _: Path) -> None:
    import trackio  # noqa: PLC0415 - an optional dependency; its folder is in the environment

    for one in found:
        run = trackio.init(project=found[0].name, name=one.name, config=dict(one.config))
        for step, values in one.points:
            run.log(values, step=step)
        trackio.finish()


TOOLS: dict[str, Callable[[Sequence[Series], Path], Any]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb-offline": _wandb,
    "trackio": _trackio,
}


def main(argv: list[str]) -> int:
    """The process: TOOL FOLDER, series as JSON on stdin."""
    tool, folder = argv[1], Path(argv[2])
    told = json.load(sys.stdin)
    found = [Series(one["name"], one["config"], [(step, values) for step, values in one["points"]]) for one in told]
    try:
        TOOLS[tool](found, folder)
    except ImportError:
        return _MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
