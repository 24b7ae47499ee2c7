"""Drives headless Chromium through the DevTools protocol."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
"""Seconds to wait for the browser or a page: other tests may use all cores."""
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0")


class Browser:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._count = connection, 0
        self.errors: list[str] = []
        """What the browser refused or failed to load, and errors of scripts."""
        for domain in ("Page", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, address: str, width: int = 1280, dark: bool = False) -> None:
        """Loads a page."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=address)
        self.wait_for(f"location.href === {json.dumps(address)}")

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        enter = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {"text": key}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **enter)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        return self._call("Runtime.evaluate", expression=script)["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Waits until an expression holds on a page that is loaded."""
        until = time.monotonic() + PATIENCE
        while not self.run(f'document.readyState === "complete" && Boolean({condition})'):
            assert time.monotonic() < until, f"{condition} at {self.run('location.href')}"
            time.sleep(0.05)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        self._connection.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=PATIENCE))
            if message.get("id") == self._count:
                return message.get("result", message)
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.errors.append(json.dumps(message["params"]))


@contextmanager
def browser(chromium: str, folder: Path) -> Iterator[Browser]:
    """Chromium with an empty profile in `folder`."""
    command = [chromium, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port = _port(folder / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as response:
                tabs = json.load(response)
            tab = next(tab for tab in tabs if tab["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=2**26) as connection:
                yield Browser(connection)
        finally:
            process.terminate()


def _port(file: Path) -> int:
    until = time.monotonic() + PATIENCE
    while not (file.is_file() and len(file.read_text().splitlines()) == 2):
        assert time.monotonic() < until, "Chromium does not start"
        time.sleep(0.05)
    return int(file.read_text().splitlines()[0])
