"""What each process of ours loads, and what each package holds: python -m bench.layout [--json].

Own: modules of this repository, with their lines. RSS: resident memory after the imports, before any work. A cycle is
a group of packages of which each needs the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import grimp

from runner.core.base.mountable import SOURCE

TOPS = ("runner", "trainer", "agent")
PROCESSES = {
    "launcher": "runner.rooms.launcher.__main__",
    "broker": "runner.rooms.broker.__main__",
    "desk": "runner.rooms.desk.__main__",
    "follower of the desk (compose)": "runner.people.host.service",
    "page": "runner.people.pages.__main__",
    "glovebox": "runner.people.cli.main",
    "evaluator": "trainer.evaluator.__main__",
}
_LOOK = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
pages = int(open('/proc/self/statm').read().split()[1])
own = {name: module.__file__ for name, module in sys.modules.items() if name.split('.')[0] in sys.argv[2:]}
print(json.dumps({'all': sorted(sys.modules), 'own': own, 'pages': pages}))
"""


def loaded(module: str, root: Path = SOURCE) -> dict[str, Any]:
    """What a fresh process holds once it has imported a module: all names, files of ours, pages of memory."""
    command = [sys.executable, "-P", "-c", _LOOK, module, *TOPS]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def process(module: str, root: Path = SOURCE) -> dict[str, int]:
    """One line of the table."""
    found = loaded(module, root)
    lines = sum(len(Path(path).read_text().splitlines()) for path in found["own"].values())
    rss = round(found["pages"] * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return {"own": len(found["own"]), "lines": lines, "all": len(found["all"]), "rss_mb": rss}


def packages(graph: grimp.ImportGraph) -> dict[str, int]:
    """Modules in each package, without what lies in packages below it."""
    modules = [name for name in graph.modules if not graph.find_children(name) and "." in name]
    return dict(sorted(Counter(name.rpartition(".")[0] for name in modules).items()))


def cycles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Groups of packages that need each other."""
    needs = defaultdict(set)
    for name in graph.modules:
        for other in graph.find_modules_directly_imported_by(name):
            needs[_package(graph, name)].add(_package(graph, other))
    reach = {package: _reach(needs, package) for package in list(needs)}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, set()) and a != b) | {a} for a in reach}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def _package(graph: grimp.ImportGraph, module: str) -> str:
    return module if graph.find_children(module) else module.rpartition(".")[0]


def _reach(needs: dict[str, set[str]], start: str) -> set[str]:
    found, ahead = set[str](), [start]
    while ahead:
        for other in needs.get(ahead.pop(), set()) - found:
            found.add(other)
            ahead.append(other)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    graph = grimp.build_graph(*TOPS)
    found: dict[str, Any] = {
        "packages": packages(graph),
        "cycles": cycles(graph),
        "processes": {name: process(module) for name, module in PROCESSES.items()},
    }
    if asked.json:
        print(json.dumps(found))
        return
    for package, count in found["packages"].items():
        print(f"{package:28} {count:3} modules")
    print(f"package cycles: {found['cycles'] or 'none'}")
    print(f"{'process':32} {'own':>4} {'lines':>6} {'all':>5} {'RSS':>7}")
    for name, line in found["processes"].items():
        print(f"{name:32} {line['own']:4} {line['lines']:6} {line['all']:5} {line['rss_mb']:4} MB")


if __name__ == "__main__":
    main()
