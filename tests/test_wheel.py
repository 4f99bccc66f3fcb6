"""Installed from a wheel, in a folder that is no checkout, the command line finds all it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.base.mountable import SOURCE

pytestmark = pytest.mark.slow
Installed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own; what it depends on is taken from ours, without our checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(SOURCE)], check=True, capture_output=True)
    (wheel,) = folder.glob("glovebox-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv" / "lib").glob("python3*/site-packages")
    subprocess.run([sys.executable, "-m", "pip", "-q", "--python", str(python), "install", "--no-deps", str(wheel)],
                   check=True, capture_output=True)  # fmt: skip
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "elsewhere").mkdir(mode=0o700)

    def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GLOVEBOX_HOME")}
        command = [str(python.with_name(program)), *args]
        return subprocess.run(
            command, cwd=folder / "elsewhere", env=kept, capture_output=True, text=True, check=False, timeout=300
        )

    return run


def test_the_code_that_runs_is_the_wheels(installed: Installed) -> None:
    found = installed("python", "-c", "import runner, trainer, agent; print(runner.__file__)").stdout
    assert found
    assert not Path(found).is_relative_to(SOURCE)
    assert "site-packages" in found


def test_a_bench_is_made_and_data_are_prepared_and_checked(installed: Installed) -> None:
    for args in (("init",), ("prepare", "--profile", "demo")):
        done = installed("glovebox", *args)
        assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(installed("glovebox", "doctor", "--json").stdout)["checks"]}
    for name in ("policies", "bench", "artifact", "signing keys"):  # whether there is an engine is not asked here
        assert checks[name]["ok"], checks[name]


def test_what_is_only_shown_came_along_too(installed: Installed) -> None:
    assert "uid 65533" in installed("glovebox", "policy", "explain").stdout
    template = "import jinja2; jinja2.Environment(loader=jinja2.PackageLoader('runner.people.pages')).get_template"
    assert installed("python", "-c", f"{template}('report.html.j2')").returncode == 0
