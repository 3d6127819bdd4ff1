"""A real browser, driven through a pipe by its own protocol: what it loads, what it complains of, and what it shows."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run --disable-extensions"


class Browser:
    """One tab of it. *events* has what has happened since the last page was opened."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM
        theirs, self._in = os.pipe()
        self._out, ours = os.pipe()
        command = f'exec "$0" {_FLAGS} --remote-debugging-pipe --user-data-dir="$1" 3<&{theirs} 4>&{ours}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, PROGRAM, str(folder)],
            pass_fds=(theirs, ours),
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        self._read, self._number, self.events = b"", 0, list[dict[str, Any]]()
        self._session: dict[str, str] = {}
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return answer["result"]  # type: ignore[no-any-return]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            came = os.read(self._out, 1 << 20)
            assert came, "the browser has gone"
            self._read += came
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def open(self, address: str, width: int = 1280, *, dark: bool = False) -> None:
        """Show a page in a window of that width, and wait until all of it is loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self._load("about:blank")  # another address in the same page would not load it
        self._load(address)

    def _load(self, address: str) -> None:
        self.events = []
        loader = self.ask("Page.navigate", url=address)["loaderId"]
        while not any((each["name"], each["loaderId"]) == ("load", loader) for each in self.of("Page.lifecycleEvent")):
            self.events.append(self._next())

    def of(self, method: str) -> list[dict[str, Any]]:
        """What these events have said."""
        return [each["params"] for each in self.events if each.get("method") == method]

    @property
    def requests(self) -> list[str]:
        """What was loaded, or would have been."""
        return [each["request"]["url"] for each in self.of("Network.requestWillBeSent")]

    @property
    def complaints(self) -> list[str]:
        """What stands in its console."""
        logged = [each["entry"]["text"] for each in self.of("Log.entryAdded")]
        return logged + [str(each["exceptionDetails"]) for each in self.of("Runtime.exceptionThrown")]

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page; no policy of the page's stands in its way."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self) -> bytes:
        """The whole page as a PNG."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
