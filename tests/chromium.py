"""Chromium as a reader drives it, for tests of pages: real keys and clicks, a phone's screen, pictures of what is seen.

It speaks the DevTools protocol over two pipes (file descriptors 3 and 4, messages that end in a zero byte).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
PATIENCE = 60.0  # seconds until something that must come is given up
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


@dataclass
class Chromium:
    """One page of a browser.

    Attributes:
        console: what the page and its policy said, line by line.
    """

    to: IO[bytes]
    answers: IO[bytes]
    session: str = ""
    console: list[str] = field(default_factory=list)
    number: int = 0

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """The answer to a command of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        message |= {"sessionId": self.session} if self.session else {}
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            found = json.loads(self._message())
            self._note(found)
            if found.get("id") == self.number:
                assert "error" not in found, (method, found["error"])
                return dict(found["result"])

    def _message(self) -> bytes:
        text = b""
        while not text.endswith(b"\0"):
            one = self.answers.read(1)
            assert one, "the browser has ended"
            text += one
        return text[:-1]

    def _note(self, found: dict[str, Any]) -> None:
        if found.get("method") == "Log.entryAdded":
            self.console.append(found["params"]["entry"]["text"])
        if found.get("method") == "Runtime.consoleAPICalled":
            self.console.append(str([one.get("value") for one in found["params"]["args"]]))
        if found.get("method") == "Runtime.exceptionThrown":
            self.console.append(str(found["params"]["exceptionDetails"].get("exception", {}).get("description")))

    def open(self, address: str) -> None:
        """Open an address and wait until it has loaded."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until(f"location.href.startsWith({json.dumps(address[:60])}) && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until it holds."""
        end = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < end, f"waited for {expression}"
            time.sleep(0.02)

    def key(self, name: str, shift: bool = False) -> None:
        """Press a key, as a keyboard does."""
        one = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS[name], "modifiers": 8 if shift else 0}
        text = {"text": "\r"} if name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **one, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **one)

    def screen(self, width: int, height: int, phone: bool = False) -> None:
        """The size of the screen in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def picture(self, path: Path) -> None:
        """What is on the screen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def printed(self, path: Path) -> None:
        """What a printer gets, as PDF."""
        found = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """A browser with a profile of its own in a folder."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
               f"--user-data-dir={folder / 'profile'}", "about:blank"]  # fmt: skip
    # In a shell, which can move descriptors to 3 and 4 whatever numbers they have here.
    moved = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'
    process = subprocess.Popen(
        ["bash", "-c", moved, CHROMIUM, *options], pass_fds=(command_read, answer_write), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(command_read)
    os.close(answer_write)
    try:
        with os.fdopen(command_write, "wb") as to, os.fdopen(answer_read, "rb") as answers:
            page = Chromium(to, answers)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            yield page
    finally:
        process.terminate()
        process.wait(PATIENCE)
