"""A tag's record as tracking tools keep it, written by their own libraries into files here. TRUSTED, offline.

One run for the tag, a step an experiment; and one for each keep, with its loss curve. What tools do with it later, on
somebody's server, is theirs; descriptions in it are agents' words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.core.base import files
from runner.core.base.errors import UsageError
from runner.core.base.home import SOURCE
from runner.core.base.values import Experiment, Status
from runner.core.decision import standing

MOST_KEEPS = 200  # of the kept line, the newest
PROJECT = "glovebox"
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
    for row in rows:
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
        done = subprocess.run(
            command, input=text, env=_environment(partial), cwd=partial, capture_output=True, text=True, check=False
        )
        if done.returncode == _MISSING:
            raise UsageError(f"{tool} is not installed", where=f"--{tool}", fix=_INSTALL)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
            raise UsageError(f"{tool}'s library failed: {why}", where=f"--{tool}", fix=_INSTALL)
    return len(found)


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


def _mlflow(found: Sequence[Series], folder: Path) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - an optional dependency
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment(found[0].name, artifact_location="mlflow-artifacts:/none")
    for one in found:
        run = client.create_run(experiment, run_name=one.name)
        metrics = [Metric(name, value, step, step) for step, values in one.points for name, value in values.items()]
        parameters = [Param(name, value[:5000]) for name, value in one.config.items()]
        for at in range(0, max(1, len(metrics)), 900):  # of a thousand in a batch
            client.log_batch(run.info.run_id, metrics[at : at + 900], parameters if not at else [])
        client.set_terminated(run.info.run_id)


def _wandb(found: Sequence[Series], folder: Path) -> None:
    import wandb  # noqa: PLC0415 - an optional dependency

    settings = wandb.Settings(
        console="off", disable_code=True, disable_git=True, x_disable_meta=True, x_disable_stats=True
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
    shutil.rmtree(folder / ".own", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
