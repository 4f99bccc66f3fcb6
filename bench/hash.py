"""Throughput of our parallel hashing over `sha256sum` on one core times the number of cores, in one run.

    python -m bench.hash [--mib N] [--files N] [--json]

The files are in the page cache for both. Goal: at least 0.8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from runner.core.artifacts.parallel import in_parallel
from runner.core.base.files import hash_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=256, help="of each file")
    parser.add_argument("--files", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.bin" for i in range(asked.files)]
        for path in paths:
            path.write_bytes(os.urandom(1 << 20) * asked.mib)
        total = asked.mib * asked.files
        single, parallel = [], []
        for _ in range(asked.rounds):
            begun = time.perf_counter()
            told = subprocess.run(["sha256sum", paths[0]], check=True, capture_output=True, text=True).stdout
            single.append(asked.mib / (time.perf_counter() - begun))
            begun = time.perf_counter()
            found = in_parallel(hash_file, paths)
            parallel.append(total / (time.perf_counter() - begun))
            if found[0][0] != told.split()[0]:
                raise SystemExit("the hashes differ")
    cores = os.cpu_count() or 1
    one, ours = statistics.median(single), statistics.median(parallel)
    result = {
        "ratio": round(ours / (one * cores), 3),
        "mib_per_s": round(ours),
        "sha256sum_mib_per_s": round(one),
        "cores": cores,
    }
    if not asked.json:
        for name, value in result.items():
            print(f"{name:24} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
