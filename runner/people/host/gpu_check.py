"""`glovebox doctor --gpu UUID`: would a run on this GPU work? And what every doctor says of the GPUs here. TRUSTED.

Driver, card, image and engine are compared on the host; then both rooms are started on the GPU as production starts
them. Every failed line says what to do about it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from runner.core.artifacts import profiles
from runner.core.base import cuda, gpus, nvidia
from runner.core.base.errors import EngineError
from runner.core.base.home import Home
from runner.core.base.launching import Lane
from runner.core.base.mountable import SHIPPED
from runner.core.policy.policy_files import Policies
from runner.people.host.checks import Check, guarded, safely
from runner.people.redteam.probes import Room
from runner.people.redteam.stage import Stage, stage
from runner.rooms.launcher import gpu as lending
from runner.rooms.launcher.engine import Client

DEVICES = Path("/dev")
_SAID = "GLOVEBOX SAYS "
_BUILT = f"import torch; print({_SAID!r} + str(torch.version.cuda))"
_ROOMS: dict[Room, str] = {  # what each must be able to do on the GPU
    "trainer": (
        "import sys, torch; from trainer.wire import device\n"
        "sys.exit(device.NO_DEVICE) if not device.there() else None\n"
        "x = torch.ones(256, 256, device='cuda', requires_grad=True)\n"
        "(x @ x).sum().backward(); torch.cuda.synchronize()\n"
        f"print({_SAID!r} + torch.cuda.get_device_name())"
    ),
    "evaluator": (
        "import sys, torch; from trainer.wire import device; from trainer.evaluator.model import kernels\n"
        "sys.exit(device.NO_DEVICE) if not device.there() else kernels.settle()\n"
        "kernels.warm(torch.device('cuda')); torch.cuda.synchronize()\n"
        f"print({_SAID!r} + 'its kernels answer')"
    ),
}
_SECONDS = 180.0  # of a room: a driver may take long to start
_LAST = 300  # characters of what a room that failed said


def of_host(client: Client, policies: Policies) -> Iterator[Check]:
    """Of every doctor: the GPUs here and what they need; nothing runs on them."""
    driver, cards = nvidia.driver(), gpus.cards()
    if driver is None and "nvidia" not in (client.info().get("Runtimes") or {}):
        yield Check("GPU", True, "none: CPU only")
        return
    if driver is None:
        yield Check("GPU", False, "NVIDIA's runtime, but no driver answers", "install the driver; check: nvidia-smi -L")
        return
    yield _toolkit(policies)
    for card in cards:
        yield _card(driver, card, _folders(None))


def on(gpu: str, client: Client, policies: Policies, home: Home | None) -> Iterator[Check]:
    """Everything about one GPU, what it takes to run on it included; raises EngineError if there is no such GPU."""
    card, driver = gpus.card(gpu), nvidia.driver()
    if driver is None:
        raise EngineError("the driver does not answer", where=gpu, fix="check: nvidia-smi -L")
    yield _card(driver, card, _folders(home))
    yield _toolkit(policies)
    yield _files()
    yield _lock(gpu)
    yield _idle(gpu, policies)
    yield _asked(client, gpu)
    yield Check("processors", True, _near(card))
    with stage(client, policies, home.root if home else None) as made:
        fits = guarded("image", partial(_image, made), lambda found: _said_of(found, driver))
        why = "" if fits[0] is None else cuda.unfit(fits[0] or None, driver, card)
        yield fits[1] if not why else Check("image", False, why, _rebuild(driver, card))
        if fits[1].ok and not why:
            yield from safely("rooms on the GPU", _rooms(made, gpu, policies))


def _folders(home: Home | None) -> tuple[Path, ...]:
    """Where profiles are looked for."""
    return home.policies if home else (SHIPPED / "policies",)


def _card(driver: nvidia.Driver, card: gpus.Card, folders: tuple[Path, ...]) -> Check:
    capability = ".".join(map(str, card.capability or ())) or "unknown"
    memory = "" if card.memory_mib is None else f", {card.memory_mib / 1024:.0f} GiB"
    detail = f"{card.name}{memory}, compute capability {capability}, driver {driver.version}"
    build = cuda.build_for(driver, card)
    if build is None:
        return Check(f"GPU {card.uuid}", False, f"{detail}: no build of torch runs here", cuda.remedy(card))
    fitting = profiles.fitting(folders, (card.memory_mib or 0) / 1024 + 1)  # a card of 8 GB tells a little less
    profile = "" if fitting is None else f"; profile {fitting}"
    return Check(f"GPU {card.uuid}", True, f"{detail}; torch {build.name}{profile}")


def _toolkit(policies: Policies) -> Check:
    minimum = policies.sandbox.minimum_toolkit
    return guarded("GPU toolkit", lambda: nvidia.check_toolkit(minimum), lambda found: ".".join(map(str, found)))[1]


def _files() -> Check:
    """Containers open the device files as a user of their own."""
    fix = "set NVreg_DeviceFileMode=0666 for the nvidia module (/etc/modprobe.d) and load it again"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in DEVICES.glob("nvidia[0-9]*")}
    shut = [f"{path} {mode:o}" for path, mode in modes.items() if mode & 0o006 != 0o006]
    return Check("device files", not shut, ", ".join(shut) or "open to containers' users", fix)


def _lock(gpu: str) -> Check:
    folder = lending.lock_path(gpu).parent
    return Check("GPU lock", os.access(folder, os.W_OK), str(lending.lock_path(gpu)), f"let everybody write {folder}")


def _idle(gpu: str, policies: Policies) -> Check:
    return guarded("GPU idle", lambda: lending.check_idle(gpu, policies.sandbox.gpu_idle_mib), lending.told)[1]


def _asked(client: Client, gpu: str) -> Check:
    if lending.request(client.info(), gpu).get("Driver") == "cdi":
        return Check("GPU request", True, "through CDI")
    detail = "through the container toolkit's hook: a reload of systemd takes the GPU from containers that run"
    return Check("GPU request", True, f"{detail}. Better: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")


def _near(card: gpus.Card) -> str:
    if not card.processors:
        return "the driver does not say which are near"
    return f"near the GPU: --cores {_listed(card.processors)}"


def _listed(processors: frozenset[int]) -> str:
    """As --cores takes them: 0-7,16."""
    runs: list[list[int]] = []
    for one in sorted(processors):
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _image(made: Stage) -> str:
    """The CUDA that torch in the trainer's image was built with; empty if it is for CPUs."""
    found = _said(made, "trainer", _BUILT, Lane())
    return "" if found == "None" else found


def _said_of(found: str, driver: nvidia.Driver) -> str:
    return f"torch with CUDA {found or 'none'}; driver {driver.version} serves up to {'.'.join(map(str, driver.cuda))}"


def _rebuild(driver: nvidia.Driver, card: gpus.Card) -> str:
    build = cuda.build_for(driver, card)
    return cuda.remedy(card) if build is None else f"GLOVEBOX_TORCH={build.name} make images (docs/gpu.md)"


def _rooms(made: Stage, gpu: str, policies: Policies) -> Iterator[Check]:
    with lending.lent(gpu, policies.sandbox.gpu_idle_mib):
        for role, source in _ROOMS.items():
            yield guarded(f"{role} on the GPU", partial(_said, made, role, source, Lane(gpu=gpu)), str)[1]


def _said(made: Stage, role: Room, source: str, lane: Lane) -> str:
    """What a room says; raises EngineError with its last words if it does not."""
    spec = made.specification("trainer", lane=lane)  # makes the files that an evaluator finds
    if role == "evaluator":
        spec = made.specification("evaluator", lane=lane)
    ended, output = made.run(spec, source, seconds=_SECONDS)
    text = output.decode(errors="replace")
    said = [line.removeprefix(_SAID) for line in text.splitlines() if line.startswith(_SAID)]
    if ended.exit_code or not said:
        last = " ".join(text[-_LAST:].split())
        raise EngineError(f"ended with {ended.exit_code}: {last}", where=role, fix="see docs/gpu.md")
    return said[-1][:100]
