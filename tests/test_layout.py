"""Trust can be read from the tree: the contracts on imports hold, and no process loads what it must not have."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp
import pytest

from bench.layout import TOPS, cycles, loaded
from runner.core.base.mountable import SOURCE

PAGES = ("rich", "jinja2", "matplotlib", "runner.people")
SIGNATURES = ("cryptography", "securesystemslib", "runner.core.evidence", "runner.core.artifacts", "runner.core.data")
PATHS = ("runner.core.base.home", "runner.core.base.secret_file")  # a launcher cannot name a key or the ledger
NEVER = {
    "launcher": (
        *PAGES,
        *SIGNATURES,
        "httpx",
        "runner.core.airlock",
        "runner.rooms.desk",
        "runner.rooms.broker",
        *PATHS,
    ),
    "desk": (*PAGES, "docker", "httpx", "runner.rooms.launcher", "runner.rooms.broker"),
    # httpx brings rich along, for a command line of its own.
    "broker": (*PAGES[1:], "docker", "runner.core.artifacts", "runner.rooms.launcher", "runner.rooms.desk"),
}
NEEDS = {"launcher": "docker", "desk": "runner.core.evidence.ledger", "broker": "httpx"}  # else nothing was looked at


def contracts(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run(
        [*command, "--config", str(config), "--no-cache"], cwd=SOURCE, capture_output=True, text=True, check=False
    )


def test_every_contract_holds() -> None:
    done = contracts(SOURCE / ".importlinter")
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


def test_a_contract_that_does_not_hold_is_noticed(tmp_path: Path) -> None:
    text = (SOURCE / ".importlinter").read_text()
    turned = tmp_path / "turned"
    turned.write_text(text.replace("    policy\n    base\n", "    base\n    policy\n"))
    assert turned.read_text() != text
    assert contracts(turned).returncode == 1


def test_a_package_can_be_taken_in_at_a_look() -> None:
    """Modules of its own; `artifacts` had 31."""
    graph = grimp.build_graph(*TOPS, cache_dir=None)
    sizes = Counter(name.rpartition(".")[0] for name in graph.modules if "." in name)
    assert sizes["runner.core.data"]  # else nothing was looked at
    assert {name: count for name, count in sizes.items() if count > 25} == {}


def test_no_packages_need_each_other() -> None:
    graph = grimp.build_graph(*TOPS, cache_dir=None)
    assert cycles(graph) == []
    graph.add_import(importer="trainer.evaluator.model.graph", imported="trainer.evaluator.causality.proof")  # notices
    assert cycles(graph) == [["trainer.evaluator.causality", "trainer.evaluator.model"]]


@pytest.mark.parametrize("room", NEVER)
def test_a_room_loads_nothing_it_has_no_use_for(room: str) -> None:
    found = set(loaded(f"runner.rooms.{room}.__main__")["all"])
    assert NEEDS[room] in found
    assert found.isdisjoint(NEVER[room])


def test_the_evaluator_loads_the_wire_and_itself() -> None:
    own = loaded("trainer.evaluator.__main__")["own"]
    assert all(name == "trainer" or name.startswith(("trainer.evaluator", "trainer.wire")) for name in own)


def test_the_launcher_can_be_read_in_an_afternoon() -> None:
    """Whoever holds the engine's socket is root: all that it is made of fits into few, short modules."""
    own = loaded("runner.rooms.launcher.__main__")["own"]
    modules = [Path(path) for path in own.values() if Path(path).name != "__init__.py"]
    assert len(modules) <= 25
    assert sum(len(path.read_text().splitlines()) for path in modules) <= 3000


def test_a_command_waits_for_no_library_that_only_another_needs() -> None:
    """`status` took 1.4 s, two thirds of it for plots, downloads and the engine's client."""
    found = {name.split(".")[0] for name in loaded("runner.people.cli.main")["all"]}
    assert "typer" in found  # else nothing was looked at
    assert found & {"matplotlib", "numpy", "httpx", "docker", "pyarrow", "tiktoken", "torch"} == set()


@pytest.mark.parametrize(
    "package",
    sorted(path.parent for top in ("runner", "trainer", "agent") for path in (SOURCE / top).rglob("__init__.py")),
)
def test_a_package_says_what_it_holds(package: Path) -> None:
    assert (package / "__init__.py").read_text().startswith('"""')
