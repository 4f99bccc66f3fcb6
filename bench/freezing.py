"""What freezing costs, and what it is worth: a burning agent beside a trainer, and a trainer that talks to an agent.

    python -m bench.freezing [--rounds N] [--json]

`hold_ms`: the pause and its end, medians, which is all that an experiment pays. `products`: matrix products a trainer's
container makes a second beside an agent of four burning processes, over those it makes alone, with the agent running
and frozen. `bits_per_second`: symbols of nine bits through /proc/sys/kernel/pty/nr, as many as arrive exactly, from a
trainer's container to an agent's: with neither wall, with masked counters, frozen. Containers are those of production
but for what is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from typing import Any

import docker

from runner.core.base.mountable import SOURCE
from runner.core.policy import policy_files
from runner.people.redteam.stage import Stage, stage
from runner.rooms.launcher.freezing import Freezer

SECONDS = 6.0
SLOT, SYMBOLS = 0.02, 200
_BURN = "import os, time\nfor _ in range(3): os.fork()\nwhile True: pass"
_PRODUCTS = (
    "import time, torch\nx = torch.randn(256, 256)\nfor _ in range(200): x @ x\n"
    f"n, end = 0, time.monotonic() + {SECONDS}\nwhile time.monotonic() < end: x @ x; n += 1\nprint(n)"
)
# Both sides know the seed, and share the monotonic clock; a slot's symbol is how many terminals are open.
_SYMBOLS = f"import os, random, time\nrandom.seed(7)\nwanted = [random.getrandbits(9) for _ in range({SYMBOLS})]\n"
_SEND = _SYMBOLS + (
    "import sys\nstart = float(sys.argv[1])\nkept = []\nfor at, symbol in enumerate(wanted):\n"
    "    while len(kept) < symbol: kept.append(os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY))\n"
    "    while len(kept) > symbol: os.close(kept.pop())\n"
    f"    time.sleep(max(0, start + (at + 1) * {SLOT} - time.monotonic()))"
)
_RECEIVE = _SYMBOLS + (
    "import sys\nstart, right, base = float(sys.argv[1]), 0, None\n"
    "def number():\n    try: return int(open('/proc/sys/kernel/pty/nr').read())\n"
    "    except (OSError, ValueError): return -9999\n"
    "base = number()\nfor at, symbol in enumerate(wanted):\n"
    f"    late = start + (at + 0.8) * {SLOT} - time.monotonic()\n    if late < 0: continue\n    time.sleep(late)\n"
    f"    right += number() - base == symbol and time.monotonic() < start + (at + 1) * {SLOT}\n"
    "print(right)"
)


def main() -> None:
    """Measure; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    client = docker.from_env()
    with stage(client, policy_files.load(SOURCE / "policies"), None) as made:
        result = {
            "hold_ms": held(made, 20 * asked.rounds),
            "products": {
                "beside a burning agent": ratio(made, asked.rounds, frozen=False),
                "beside a frozen one": ratio(made, asked.rounds, frozen=True),
            },
            "bits_per_second": {
                "with neither wall": bits(made, masked=False, frozen=False),
                "masked": bits(made, masked=True, frozen=False),
                "frozen": bits(made, masked=False, frozen=True),
            },
        }
    print(json.dumps(result))


def agent(made: Stage, *, masked: bool = True) -> dict[str, Any]:
    """The agent's container as production makes it."""
    spec = made.specification("agent")
    return spec if masked else made.without(spec, ("masked counters",))


def held(made: Stage, rounds: int) -> float:
    """Milliseconds of one pause, begun and ended, of an agent that waits for an answer."""
    times = []
    with made.container(agent(made), "import time; time.sleep(600)") as one:
        one.start()
        freezer = Freezer(made.client, made.home.id)
        for _ in range(rounds):
            began = time.perf_counter()
            with freezer.hold():
                pass
            times.append(1000 * (time.perf_counter() - began))
            time.sleep(0.05)
    return round(statistics.median(times), 1)


def ratio(made: Stage, rounds: int, *, frozen: bool) -> float:
    """Matrix products beside an agent that burns, over those alone; alternating."""
    found = []
    for _ in range(rounds):
        alone = int(made.run(made.specification("trainer"), _PRODUCTS)[1])
        with made.container(agent(made), _BURN) as one, ExitStack() as stack:
            one.start()
            if frozen:
                stack.enter_context(Freezer(made.client, made.home.id).hold())
            found.append(int(made.run(made.specification("trainer"), _PRODUCTS)[1]) / alone)
    return round(statistics.median(found), 3)


def bits(made: Stage, *, masked: bool, frozen: bool) -> float:
    """Bits a second that arrive exactly."""
    start = str(time.clock_gettime(time.CLOCK_MONOTONIC) + 5.0)
    spec = agent(made, masked=masked)
    with (
        made.container(spec, _RECEIVE, start) as one,
        made.container(made.specification("trainer"), _SEND, start) as trainer,
    ):
        stream = one.attach(stdout=True, stream=True, logs=False)
        one.start()
        time.sleep(1.5)  # it has read how many there are without us
        with ExitStack() as stack:
            if frozen:
                stack.enter_context(Freezer(made.client, made.home.id).hold())
            trainer.start()
            trainer.wait(timeout=60)
        one.wait(timeout=60)
        right = int(b"".join(stream).strip() or 0)
    return round(9 * right / (SYMBOLS * SLOT), 1)


if __name__ == "__main__":
    main()
