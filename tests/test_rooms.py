"""Rooms do not blur: Dockerfiles, networks, secrets and dangerous calls. What may import what: test_layout.py."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runner.core.base.mountable import SOURCE


def modules(folder: str) -> list[Path]:
    return sorted((SOURCE / folder).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_runner_takes_only_trusted_modules_from_the_trainers_image() -> None:
    allowed = {"trainer.wire", "trainer.wire.refusal", "trainer.wire.packing"}
    for path in modules("runner"):
        assert {name for name in imports(path) if name.split(".")[0] == "trainer"} <= allowed, path


DANGEROUS_IMPORTS = {"pickle", "marshal", "shelve", "dill", "subprocess", "ctypes", "importlib", "runpy", "code"}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}


def dangers(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {a.name for a in node.names} | ({node.module or ""} if isinstance(node, ast.ImportFrom) else set())
            found |= {n for n in names if n.split(".")[0] in DANGEROUS_IMPORTS}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DANGEROUS_CALLS:
            found.add(node.func.id)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in (
            "torch.load",
            "torch.export.load",
            "torch.jit.load",
        ):
            found.add(ast.unparse(node))
    return found


def test_the_trusted_path_neither_unpickles_nor_evaluates() -> None:
    for path in [*modules("trainer/evaluator"), *modules("trainer/wire")]:
        assert not dangers(path.read_text()), path


@pytest.mark.parametrize(
    "source", ["import pickle", "from pickle import loads", "eval('1')", "import torch\ntorch.load('x')"]
)
def test_the_check_for_dangers_sees_them(source: str) -> None:
    assert dangers(source)


@pytest.mark.parametrize(
    ("room", "locks"), [("agent", {"agent.txt"}), ("trainer", {"trainer.txt", "torch-cuda.txt", "torch-cpu.txt"})]
)
def test_each_dockerfile_copies_only_its_own_folder(room: str, locks: set[str]) -> None:
    lines = (SOURCE / f"Dockerfile.{room}").read_text().splitlines()
    assert not lines[0].startswith("# syntax")
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    sources = {source for copy in copies for source in copy}
    assert {source for source in sources if source.split("/")[0] != room} == {f"locks/{name}" for name in locks}
    assert room in {source.split("/")[0] for source in sources}


def test_the_trusted_image_holds_no_agent_and_no_train_py_is_run_there() -> None:
    lines = (SOURCE / "Dockerfile.runner").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line}
    assert copied == {"locks/runner.txt", "runner", "trainer", "policies", "program.md"}


def test_only_the_broker_and_prepare_reach_for_a_network() -> None:
    users = {
        path.relative_to(SOURCE / "runner").as_posix()
        for path in modules("runner")
        if {name.split(".")[0] for name in imports(path)}
        & {"httpx", "requests", "urllib", "http", "aiohttp", "huggingface_hub"}
    }
    assert users == {
        "rooms/broker/__main__.py",
        "rooms/broker/upstream.py",
        "core/data/download.py",
        "core/artifacts/hub.py",
        "rooms/launcher/__main__.py",
        "rooms/launcher/containers.py",
        "rooms/launcher/server.py",
        "rooms/launcher/usage.py",
        "rooms/launcher/freezing.py",
        "people/host/notify.py",
    }  # launcher: docker's errors; notify: the webhook of the host process that follows a run


def test_only_the_broker_reads_the_api_key_and_notify_its_own_secret() -> None:
    users = {
        path.relative_to(SOURCE / "runner").as_posix()
        for path in modules("runner")
        if "reveal()" in path.read_text() and path.name != "secret_file.py"
    }
    assert users == {"rooms/broker/upstream.py", "people/host/notify.py"}
    notify = (SOURCE / "runner" / "people" / "host" / "notify.py").read_text()
    assert "address_of(home)" in notify
    assert ".key" not in notify


@pytest.mark.parametrize("room", ["trainer", "agent", "runner"])
def test_what_an_image_copies_can_be_read_whatever_the_checkouts_umask(room: str) -> None:
    """A clone under umask 077 made images that doctor passed and that could not start."""
    text = (SOURCE / f"Dockerfile.{room}").read_text().replace("\\\n", " ")
    lines = text.splitlines()
    (at,) = [n for n, line in enumerate(lines) if "chmod -R u=rwX,go=rX /opt/glovebox" in line]
    copies = [n for n, line in enumerate(lines) if line.startswith("COPY ") and " /opt/glovebox" in line]
    assert copies
    assert max(copies) < at
    assert not [line for line in lines[at:] if line.startswith("COPY ") and "--from=" not in line]


def test_only_the_launchers_modules_talk_to_the_engine() -> None:
    users = {
        str(path.relative_to(SOURCE / "runner"))
        for path in modules("runner")
        if any(n.split(".")[0] == "docker" for n in imports(path))
    }
    ours = {name for name in users if not name.startswith(("people/redteam/", "rooms/launcher/"))}
    assert ours == {"people/host/doctor.py", "people/host/housekeeping.py"}
