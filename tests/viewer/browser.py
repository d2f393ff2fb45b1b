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
            # no keepalive: a busy machine may hold Chromium up for longer than its 20 seconds
            url = page["webSocketDebuggerUrl"]
            self._socket = connect(url, max_size=None, ping_interval=None)
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

    def key(self, code: str, number: int, text: str = "") -> None:
        """Press and release a key, given its code and its number."""
        for kind in ("keyDown", "keyUp"):
            typed = text if kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, code=code, key=text or code,
                      windowsVirtualKeyCode=number, text=typed)  # fmt: skip

    def click(self, x: float, y: float) -> None:
        """Click this place of the page."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                      buttons=int(kind == "mousePressed"), clickCount=1)  # fmt: skip

    def drag(self, places: list[tuple[float, float]]) -> None:
        """Press the left button at the first place, move through the others, and release it."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*places, places[-1]]):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left",
                      buttons=int(kind != "mouseReleased"), clickCount=1)  # fmt: skip

    def settled(self) -> np.ndarray:
        """Screenshot after which nothing has changed for a while."""
        same, last = 0, self.screenshot()
        while same < 3:
            time.sleep(0.1)
            image = self.screenshot()
            same = same + 1 if np.array_equal(image, last) else 0
            last = image
        return last

    def drop(self, path: Path, x: float = 500, y: float = 300) -> None:
        """Drop a file or a folder onto this place of the page, as from a file manager."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def check(self, label: str) -> None:
        """Click the checkbox with this label."""
        left, top, width, height = self._box(label, "[class*=Checkbox-inner]")
        self.click(left + width / 2, top + height / 2)

    def slider_value(self, label: str) -> float:
        """Number that the slider with this label shows."""
        return float(self._near_label(label, "[role=slider]", "found.ariaValueNow"))

    def set_slider(self, label: str, share: float) -> None:
        """Click the track of the slider with this label, from left (0) to right (1)."""
        left, top, width, height = self._box(label, "[class*=Slider-track]")
        self.click(left + share * width, top + height / 2)

    def _box(self, label: str, selector: str) -> list[float]:
        """Left, top, width and height of the control next to a label."""
        script = (
            "found.scrollIntoView({block: 'center'}), (r => [r.left, r.top, r.width, r.height])"
            "(found.getBoundingClientRect())"
        )
        return self._near_label(label, selector, script)

    def _near_label(self, label: str, selector: str, script: str) -> Any:
        """Value of a script about the control (`found`) next to a label."""
        value = self.run(
            "(() => { const l = [...document.querySelectorAll('label')]"
            f".find(l => l.innerText.trim() === {json.dumps(label)});"
            " for (let i = 0, n = l; i < 6 && n; i++, n = n.parentElement) {"
            f"   const found = n.querySelector('{selector}');"
            f"   if (found) return {script}; }}"
            " return null; })()"
        )
        assert value is not None, f"there is no control {label!r}"
        return value

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
