"""A headless Chromium, driven over the DevTools protocol through a pipe: what a page does, shows and asks for.

https://chromedevtools.github.io/devtools-protocol/ ; no driver and no port: file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
_EVENTS = ("Network.requestWillBeSent", "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


@dataclass
class Seen:
    """What happened while a page was open."""

    requests: list[str] = field(default_factory=list)  # addresses, but the page's own
    complaints: list[str] = field(default_factory=list)  # console, log and exceptions


class Page:
    """One tab."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number, self._session = write, read, 0, ""
        self._buffer = b""
        self.seen = Seen()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{domain}.enable")

    def open(self, what: Path | str, *, width: int = 1100, dark: bool = False) -> Seen:
        """Load a file, or an address and what it leads to, at a width, light or dark; returns what it did meanwhile."""
        self.seen = Seen()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        address = what if isinstance(what, str) else what.absolute().as_uri()
        self._ask("Page.navigate", url=address)
        deadline = time.monotonic() + 30
        while self.evaluate("document.readyState") != "complete" or not self._there(what, address):
            assert time.monotonic() < deadline, "the page did not load"
        time.sleep(0.2)  # what a page does once it is there
        self.evaluate("1")
        self.seen.requests = [url for url in self.seen.requests if url != address]
        return self.seen

    def _there(self, what: Path | str, address: str) -> bool:
        here = str(self.evaluate("location.href"))
        return here.startswith("http") if isinstance(what, str) else here == address

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        told = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        request = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._write, json.dumps(request).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                answer: dict[str, Any] = message["result"]
                return answer
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") not in _EVENTS:
            return
        told = message["params"]
        if message["method"] == "Network.requestWillBeSent":
            self.seen.requests.append(told["request"]["url"])
        else:
            self.seen.complaints.append(json.dumps(told)[:500])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


def program() -> str:
    """The browser; its absence is a failure, never a skip."""
    names = (os.environ.get("GLOVEBOX_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    assert found, "no Chromium (fix: make browser)"
    return found


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A tab in a fresh browser."""
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    # Descriptors 3 and 4 are the browser's ends, whatever numbers the pipes got here.
    command = ["bash", "-c", f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"', "browser"]
    browser = subprocess.Popen(
        [*command, program(), *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(write, read)
    finally:
        browser.terminate()
        browser.wait(30)
        os.close(write)
        os.close(read)
