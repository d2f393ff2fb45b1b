"""Headless Chromium for tests: screenshots, clicks, scripts (Chrome DevTools protocol)."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
     if (found := shutil.which(name))),
    None,
)  # fmt: skip
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL in software: test machines have no graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
]


class Browser:
    """One page of a headless Chromium. A context manager; ends only the process it started."""

    def __init__(
        self, url: str, profile: Path, size: tuple[int, int] = (640, 480), offline: bool = False
    ) -> None:
        from websockets.sync.client import connect

        assert CHROMIUM is not None
        # Only this machine resolves, so anything that needs a network fails.
        rules = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"]
        self._process = subprocess.Popen(
            [CHROMIUM, *SWITCHES, *(rules if offline else []), f"--user-data-dir={profile}",
             f"--window-size={size[0]},{size[1]}", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._count = 0
        self.console: list[str] = []
        try:
            port_file = profile / "DevToolsActivePort"
            self.until(lambda: port_file.exists() and port_file.read_text().strip(), 120)
            port = port_file.read_text().split()[0]
            page = self.until(lambda: self._find_page(port), 60)
            self._socket = connect(page["webSocketDebuggerUrl"], max_size=None)
            self.call("Runtime.enable")
            self.call("Page.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=20)

    def call(self, method: str, **params: Any) -> Any:
        """Result of one command of the protocol."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=120))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.console.append(str(answer["params"]["exceptionDetails"].get("text")))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self) -> np.ndarray:
        """RGB image of the whole page, (h, w, 3)."""
        answer = self.call("Page.captureScreenshot", format="png")
        image = Image.open(io.BytesIO(base64.b64decode(answer["data"])))
        return np.asarray(image.convert("RGB"))

    def press(self, text: str) -> None:
        """Click the button with this text."""
        found = self.run(
            "(() => { const b = [...document.querySelectorAll('button')]"
            f".find(b => b.innerText.trim().toLowerCase() === {json.dumps(text.lower())});"
            " if (b) b.click(); return !!b; })()"
        )
        assert found, f"there is no button {text!r}"

    def set_slider(self, label: str, share: float) -> None:
        """Click the track of the slider with this label, from left (0) to right (1)."""
        box = self.run(
            "(() => { const l = [...document.querySelectorAll('label')]"
            f".find(l => l.innerText.trim() === {json.dumps(label)});"
            " if (!l) return null; let n = l;"
            " for (let i = 0; i < 6 && n; i++, n = n.parentElement) {"
            "   const s = n.querySelector('[class*=Slider-track]');"
            "   if (s) { s.scrollIntoView({block: 'center'}); const r = s.getBoundingClientRect();"
            "     return [r.left, r.top, r.width, r.height]; } }"
            " return null; })()"
        )
        assert box, f"there is no slider {label!r}"
        x, y = box[0] + share * box[2], box[1] + box[3] / 2
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                      buttons=int(kind == "mousePressed"), clickCount=1)  # fmt: skip

    @staticmethod
    def until(condition: Any, seconds: float) -> Any:
        """Wait until a condition is true, and return its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError(f"the condition was not met within {seconds} s")

    @staticmethod
    def _find_page(port: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            pages = [p for p in json.load(answer) if p["type"] == "page"]
        return pages[0] if pages else None
