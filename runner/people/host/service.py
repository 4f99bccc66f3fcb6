"""`python -m runner.people.host.service`: the desk under compose, and somebody who follows it. TRUSTED.

The same two as under `glovebox up`: the desk tells events, and this process shows them as lines for people and has the
page written. Signals are passed on; the exit code is the desk's. When it ends by itself, so do the other services.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from runner.core.base import benches, compose, files
from runner.core.base.errors import GloveboxError
from runner.people.host import processes
from runner.people.host.page_writer import writing
from runner.people.pages import console

_DOORS = (compose.DOORS.launch, compose.DOORS.meter)


def main() -> int:
    """Follow one desk to its end."""
    try:
        home, tag = benches.of_service(), compose.setting("GLOVEBOX_TAG")
        for door in _DOORS:
            compose.over(door).unlink(missing_ok=True)
        desk, signals, out = processes.start("runner.rooms.desk"), list[int](), console.stdout()

        def passed_on(number: int, _: object) -> None:
            signals.append(number)
            desk.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, passed_on)
        over = f"the session of tag {tag} is over"
        with writing(home, tag) as page:
            for event in processes.events(desk):
                if text := _line(event):
                    out.print(text, markup=False)
                page.event(event)
                if event["event"] == "failed":
                    over = "this service has ended"
    except GloveboxError as error:
        return compose.failed("runner", error.exit_code, str(error))
    code = desk.wait()
    if code == 0 and signal.SIGTERM not in signals:
        out.print(f"{over}, and so are all services: docker compose down --volumes", markup=False)
        for door in _DOORS:
            files.write(compose.over(door), "")
    return code


def _line(event: dict[str, Any]) -> str | None:
    return str(event["error"]) if event["event"] == "failed" else console.sentence(event)


if __name__ == "__main__":
    sys.exit(main())
