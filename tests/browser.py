"""A headless Chromium, driven over the DevTools protocol through a pair of pipes.

Chromium reads commands from file descriptor 3 and answers on 4, JSON ended by a NUL each, so that
neither a port nor a library is needed. https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, final

from tests.waiting import TIME_LIMIT

__all__ = ["Browser", "BrowserError", "Page", "chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_KEYS = {  # key: (code, Windows virtual key code, the text that it types)
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Tab": ("Tab", 9, ""),
    " ": ("Space", 32, " "),
}


class BrowserError(Exception):
    """The browser refused a command, a script in it failed, or it took too long."""


def chromium() -> str | None:
    """Return the program, or None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


@final
class Browser:
    """Chromium without a window, from ``with`` to its end."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}  # by session
        self._last, self._rest = 0, b""

    def __enter__(self) -> "Browser":
        program = chromium()
        if program is None:
            raise BrowserError(f"one of {', '.join(_NAMES)} must be on the path; install one")
        self._folder = tempfile.mkdtemp(prefix="dpvae-browser-")
        its_input, self._commands = os.pipe()
        self._answers, its_output = os.pipe()
        own = [f"--user-data-dir={self._folder}"]
        # A shell puts the pipes where Chromium expects them: nothing of ours runs after a fork.
        redirected = f'exec "$0" "$@" 3<&{its_input} 4>&{its_output}'
        try:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", redirected, program, *_FLAGS, *own, "about:blank"],
                pass_fds=(its_input, its_output),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(its_input)
            os.close(its_output)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with its children; nothing is kept
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(
        self,
        url: str,
        width: int = 1280,
        height: int = 900,
        *,
        dark: bool = False,
        mobile: bool = False,
    ) -> "Page":
        """Return a new page of its own profile, when it is loaded."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.command("Target.attachToTarget", flatten=True, **target)["sessionId"]
        page = self._pages[session] = Page(self, session, target["targetId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.command(f"{domain}.enable")
        size = {"width": width, "height": height, "mobile": mobile}
        page.command(
            "Emulation.setDeviceMetricsOverride", deviceScaleFactor=2 if mobile else 1, **size
        )
        page.command("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.command("Emulation.setEmulatedMedia", features=[scheme])
        page.go(url)
        return page

    def command(self, method: str, session: str | None = None, **more: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            BrowserError: if it is refused, or not answered in time.
        """
        self._last += 1
        message = {"id": self._last, "method": method, "params": more}
        if session is not None:
            message["sessionId"] = session
        text = json.dumps(message).encode() + b"\0"
        try:
            while text:
                text = text[os.write(self._commands, text) :]
        except BrokenPipeError as error:
            raise BrowserError(f"{method}: the browser has ended") from error
        end = time.monotonic() + TIME_LIMIT
        while True:
            answer = self._read(end, method)
            if answer.get("id") == self._last:
                break
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        return dict(answer["result"])

    def listen(self, seconds: float) -> None:
        """Read what the browser reports, for so long or until something has come."""
        with suppress(TimeoutError):
            self._read(time.monotonic() + seconds, None)

    def _read(self, end: float, method: str | None) -> dict[str, Any]:
        """Return the next message, having told its page of it."""
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                if method is None:
                    raise TimeoutError
                raise BrowserError(f"{method} must be answered in time, and was not")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise BrowserError(f"{method or 'listening'}: the browser has ended")
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.told(message["method"], message["params"])
        return message


@final
class Page:
    """A page of a browser; :meth:`Browser.open` makes one.

    Attributes:
        errors: exceptions, console errors, and what the browser itself logged as errors.
        requests: the addresses that were asked for, other than data: and blob: ones.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self._loaded = False
        self.errors: list[str] = []
        self.requests: list[str] = []

    def command(self, method: str, **more: Any) -> dict[str, Any]:
        """Send the page a command of the protocol and return its result."""
        return self._browser.command(method, self._session, **more)

    def go(self, url: str) -> None:
        """Load an address, and wait until it has loaded."""
        self._loaded = False
        failure = self.command("Page.navigate", url=url).get("errorText")
        if failure:
            raise BrowserError(f"{url} must load, got {failure}")
        self._wait_for_load(url)

    def reload(self) -> None:
        """Load the page again, and wait until it has loaded."""
        self._loaded = False
        self.command("Page.reload")
        self._wait_for_load("the page")

    def _wait_for_load(self, what: str) -> None:
        end = time.monotonic() + TIME_LIMIT
        while not self._loaded:
            if time.monotonic() > end:
                raise BrowserError(f"{what} must load, and did not in {TIME_LIMIT} s")
            self._browser.listen(0.1)

    def evaluate(self, javascript: str) -> Any:
        """Return the value of an expression, of a promise the value that it comes to."""
        answer = self.command(
            "Runtime.evaluate",
            expression=javascript,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{javascript}: {_exception(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> Any:
        """Return the value of an expression as soon as it is true.

        Raises:
            BrowserError: if the page has errors before, or the time limit has passed.
        """
        end = time.monotonic() + TIME_LIMIT
        while not (value := self.evaluate(condition)):
            if self.errors or time.monotonic() > end:
                raise BrowserError(f"{condition} must come true; errors: {self.errors}")
            self._browser.listen(0.02)
        return value

    def click(self, x: float, y: float) -> None:
        """Press and release the mouse at a point of the window, in pixels."""
        self.drag(x, y, x, y, steps=0)

    def drag(self, x0: float, y0: float, x1: float, y1: float, *, steps: int = 5) -> None:
        """Move the mouse with its button pressed from one point to another."""
        self._mouse("mouseMoved", x0, y0, 0)
        self._mouse("mousePressed", x0, y0, 1)
        for step in range(1, steps + 1):
            part = step / steps
            self._mouse("mouseMoved", x0 + part * (x1 - x0), y0 + part * (y1 - y0), 1)
        self._mouse("mouseReleased", x1, y1, 0)

    def _mouse(self, kind: str, x: float, y: float, pressed: int) -> None:
        button = "none" if kind == "mouseMoved" and not pressed else "left"
        place = {"x": x, "y": y, "button": button, "buttons": pressed}
        self.command("Input.dispatchMouseEvent", type=kind, clickCount=1, **place)

    def touch(self, *points: tuple[float, float]) -> None:
        """Put a finger on the first point, move it over the others, and lift it."""
        for number, (x, y) in enumerate(points):
            kind = "touchMove" if number else "touchStart"
            self.command("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key: a character, or a name such as ``ArrowLeft``."""
        code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key[0].upper()), key))
        about: Mapping[str, Any] = {
            "key": key,
            "code": code,
            "windowsVirtualKeyCode": number,
            "modifiers": 8 if shift else 0,
        }
        typed = {"text": text} if text else {}
        self.command(
            "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **about, **typed
        )
        self.command("Input.dispatchKeyEvent", type="keyUp", **about)

    def screenshot(self, path: str | Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        answer = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """Close the page."""
        self._browser.command("Target.closeTarget", targetId=self._target)

    def told(self, method: str, about: Mapping[str, Any]) -> None:
        """Take down what the browser reports of the page."""
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requests.append(url)
        elif method == "Runtime.exceptionThrown":
            self.errors.append(_exception(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            values = (str(one.get("value", one.get("description"))) for one in about["args"])
            self.errors.append(" ".join(values))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}".strip())


def _exception(details: Mapping[str, Any]) -> str:
    return str(details.get("exception", {}).get("description", details.get("text")))
