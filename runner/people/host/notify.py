"""One optional webhook: a new best, crashes, a budget's end, tampering, a run's end, every morning. TRUSTED.

Told by the host process that follows a run; runner, launcher and agent have no way out. A message is a closed event
name, the person's own tag and numbers; nothing the agent or a training wrote is in it. It is sent from a thread, and a
webhook that is away is a line on stderr, never a reason to wait.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import tenacity

from runner.core.base import secret_file
from runner.core.base.errors import PolicyError
from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED
from runner.core.policy.broker import HOST
from runner.core.policy.policy_files import Notify

_ADDRESS = re.compile(rf"(https://{HOST}(:\d{{1,5}})?|http://(127\.0\.0\.1|localhost)(:\d{{1,5}})?)(/[\x21-\x7e]*)?")
_ATTEMPTS = 3
_LOOK = 20.0  # seconds between two looks at the clock
_WAITING = 100  # messages; more are dropped
_TAMPER_CODES = (4, 8)  # errors.py: artifacts or keys, verification
_BUDGETS = ("budget", "api_refused")  # why an agent left
Message = dict[str, Any]
_NOTHING: Message = {}


class Notifier:
    """Follows one run's events and sends what policy asks for."""

    def __init__(self, policy: Notify, address: str, tag: str, warn: Callable[[str], None]) -> None:
        self.policy, self.tag, self.warn = policy, tag, warn
        self._address = address
        self._queue: queue.Queue[Message | None] = queue.Queue(_WAITING)
        self._count = self._kept = 0
        self._best: float | None = None
        self._baseline: float | None = None
        self._streak = 0
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self._thread.start()

    def row(self, row: dict[str, Any], *, old: bool = False) -> None:
        """A finished experiment; `old`: one from before we followed, which only sets the scene."""
        score = row["val_bpb"]
        self._count, self._kept = self._count + 1, self._kept + (row["status"] == "keep")
        self._streak = 0 if score is not None else self._streak + (row["reason"] != INTERRUPTED)
        if row["status"] == "keep" and score is not None:
            before, self._best = self._best, score
            self._baseline = self._baseline if self._baseline is not None else score
            if before is not None and not old:
                numbers = {"val_bpb": score, "before": before, "baseline": self._baseline}
                self._tell("best", row["id"], {**numbers, "confirmed_gain": row["confirmed"]})
        if self._streak and self._streak % self.policy.crash_streak == 0 and not old:
            self._tell("crash_streak", row["id"], {"without_score": self._streak})

    def event(self, event: Message) -> None:
        """Any event of a session."""
        name = event["event"]
        if name == "finished":
            self.row(event["row"])
        elif name == "leak_budget" or (name == "agent_ended" and event["because"] in _BUDGETS):
            self._tell("budget_end", None, {})
        elif name == "contradicted":
            self._tell("contradicted", event["experiment"], {})
        elif name == "failed" and event["code"] in _TAMPER_CODES:
            self._tell("tamper", None, {"exit_code": event["code"]})
        elif name == "exit":
            self._tell("ended", None, {"exit_code": event["code"]})

    def close(self) -> None:
        """Give what is waiting a moment to leave."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_ATTEMPTS * (self.policy.seconds + 1))

    def _tell(self, name: str, experiment: int | None, numbers: dict[str, float | None]) -> None:
        if name in self.policy.events:
            self._put(self._message(name, experiment, numbers))

    def _message(self, name: str, experiment: int | None, numbers: dict[str, float | None]) -> Message:
        numbers = {label: round(value, 6) for label, value in numbers.items() if value is not None}
        said = ", ".join(f"{label.replace('_', ' ')} {value:g}" for label, value in numbers.items())
        about = f" (experiment {experiment})" if experiment is not None else ""
        text = f"glovebox {self.tag}: {name.replace('_', ' ')}{about}" + (f": {said}" if said else "")
        return {"text": text, "event": name, "tag": self.tag, "experiment": experiment, **numbers}

    def _put(self, message: Message) -> None:
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self.warn("the webhook is too slow: a notification was dropped")

    def _send_all(self) -> None:
        told = _day(self.policy.morning, datetime.now())  # of today no morning is told that was before us
        with httpx.Client(timeout=self.policy.seconds, follow_redirects=False, trust_env=False) as client:
            while True:
                try:
                    message = self._queue.get(timeout=_LOOK if self.policy.morning else None)
                except queue.Empty:
                    message = _NOTHING
                if message is None:
                    return
                self._post(client, message)
                if (day := _day(self.policy.morning, datetime.now())) > told:
                    told = day
                    self._post(client, self._morning())

    def _post(self, client: httpx.Client, message: Message) -> None:
        if not message:
            return
        try:
            _post(client, self._address, self.policy.format, message)
        except httpx.HTTPError as error:
            self.warn(f"the webhook was not told of {message['event']}: {_why(error)}")
        except Exception as error:  # noqa: BLE001 - an address that no client takes; the others are still to be sent
            self.warn(f"the webhook was not told of {message['event']}: {type(error).__name__}")

    def _morning(self) -> Message:
        numbers = {"experiments": self._count, "kept": self._kept, "val_bpb": self._best, "baseline": self._baseline}
        return self._message("morning", None, numbers)


def _day(clock: str, now: datetime) -> date:
    """The last day whose HH:MM was before `now`, by the host's own clock: once a day, whatever is done to it."""
    if not clock:
        return date.max
    hour, minute = map(int, clock.split(":"))
    passed = (now.hour, now.minute) >= (hour, minute)
    return now.date() if passed else now.date() - timedelta(days=1)


def _body(form: str, message: Message) -> dict[str, Any]:
    """A message as a service takes it; what is in it is ours, so that nothing of it can mention or format."""
    if form == "slack":
        return {"json": {"text": message["text"]}}
    if form == "discord":
        return {"json": {"content": message["text"], "allowed_mentions": {"parse": []}}}
    if form == "ntfy":
        return {"content": message["text"].encode(), "headers": {"Title": "glovebox", "Tags": message["event"]}}
    return {"json": message}


@tenacity.retry(
    stop=tenacity.stop_after_attempt(_ATTEMPTS),
    wait=tenacity.wait_exponential(multiplier=0.5, max=5),
    retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    reraise=True,
)
def _post(client: httpx.Client, address: str, form: str, message: Message) -> None:
    with client.stream("POST", address, **_body(form, message)) as answer:  # its body is nobody's business here
        if not answer.is_success:
            raise httpx.HTTPStatusError(f"status {answer.status_code}", request=answer.request, response=answer)


def _why(error: httpx.HTTPError) -> str:
    """Without the address, which is a secret and part of most of httpx's messages."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return type(error).__name__


def address_of(home: Home) -> Path:
    """The file with the address notifications go to: a secret, since whoever knows it can post there."""
    return home.root / "secrets" / "webhook_url"


def notifier(home: Home, policy: Notify, tag: str, warn: Callable[[str], None]) -> Notifier | None:
    """The webhook of a bench, None if policy has it off; raises PolicyError if its address is missing or odd."""
    if not policy.enabled:
        return None
    address = secret_file.read(address_of(home), "webhook's address").reveal()
    if not _ADDRESS.fullmatch(address):
        fix = "one line: https://HOST[:PORT]/PATH; http:// only to loopback"
        raise PolicyError("not a webhook's address", where=str(address_of(home)), fix=fix)
    return Notifier(policy, address, tag, warn)
