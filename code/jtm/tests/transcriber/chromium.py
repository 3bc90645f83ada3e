"""
A headless Chromium, controlled by the DevTools protocol.

The tests of pages, their benchmark and the picture in the README need one; Debian's
package ``chromium`` is enough. It starts with a temporary profile of its own.
"""

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)

PATIENCE = 60
"""Timeout in seconds of a response or a condition, long enough on a busy machine."""


def find():
    """Return the path of a working browser, or None."""
    for name in NAMES:
        path = shutil.which(name)
        # Ubuntu's package may be a stub that requests another installation.
        if (
            path
            and not subprocess.run((path, "--version"), capture_output=True).returncode
        ):
            return path
    return None


def wait(ready, what):
    """Wait until a function returns a true value, and return it."""
    end = time.monotonic() + PATIENCE
    while not (value := ready()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.02)
    return value


class Browser:
    """One browser with one tab; leaving ``with Browser() as browser`` closes it."""

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            (find(), *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.socket, self.session, self.last, self.events = None, None, 0, []
        try:
            address = Path(self.profile.name) / "DevToolsActivePort"
            wait(lambda: address.exists() and "/" in address.read_text(), "no browser")
            port, path = address.read_text().split()
            self.socket = websocket.create_connection(
                f"ws://127.0.0.1:{port}{path}", timeout=PATIENCE
            )
            tab = self.send("Target.createTarget", url="about:blank")["targetId"]
            attached = self.send("Target.attachToTarget", targetId=tab, flatten=True)
            self.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        if self.socket:
            self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.profile.cleanup()

    def send(self, method, **parameters):
        """Send a command and return its result; collect events until then."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            response = json.loads(self.socket.recv())
            if response.get("id") == self.last:
                if "error" in response:
                    raise RuntimeError(f"{method}: {response['error']}")
                return response["result"]
            self.events.append(response)

    def open(self, url, width=1440, height=900, scale=1, dark=False, touch=False):
        """Open a page in a window of a size; clear earlier events."""
        self.resize(width, height, scale, touch)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def resize(self, width, height, scale, touch=False):
        """Set the size of the window, and its device pixels per CSS pixel."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=touch,
        )

    @contextlib.contextmanager
    def inside_frame(self):
        """Send commands to the page's frame, which is a target of its own."""
        targets = self.send("Target.getTargets")["targetInfos"]
        (frame,) = (t["targetId"] for t in targets if t["type"] == "iframe")
        attached = self.send("Target.attachToTarget", targetId=frame, flatten=True)
        outside, self.session = self.session, attached["sessionId"]
        try:
            yield
        finally:
            self.session = outside

    def run(self, script):
        """Return the value of a script, awaited where it is a promise."""
        result = self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def until(self, script):
        """Wait until a script's value is true."""
        wait(lambda: self.run(f"Boolean({script})"), script)

    def cpu_seconds(self):
        """Return the CPU seconds that all processes of the browser have taken."""
        session, self.session = self.session, None  # addressed to the browser itself
        processes = self.send("SystemInfo.getProcessInfo")["processInfo"]
        self.session = session
        return sum(process["cpuTime"] for process in processes)

    def press(self, key, modifiers=0):
        """Press a key, such as ``" "`` or ``ArrowLeft``."""
        text = {"text": key} if len(key) == 1 else {}
        code = {"code": "Space", "windowsVirtualKeyCode": 32} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                modifiers=modifiers,
                **code,
                **(text if kind == "keyDown" else {}),
            )

    def mouse(self, kind, x, y, **more):
        """Send ``mousePressed``, ``-Moved``, ``-Released`` or ``mouseWheel``."""
        if kind in ("mousePressed", "mouseReleased"):
            more = {"button": "left", "clickCount": 1, **more}
        elif kind == "mouseMoved" and more.pop("held", False):
            more = {"button": "left", "buttons": 1, **more}
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, selector):
        """Click in the middle of an element."""
        x, y = self.run(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def touch(self, kind, *points):
        """Send ``touchStart``, ``touchMove`` or ``touchEnd`` of fingers at points."""
        fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        self.send("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    def picture(self, path, **settings):
        """Save a screenshot as PNG, or as another ``format``."""
        shot = self.send("Page.captureScreenshot", **settings)
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def faults(self):
        """List console messages and uncaught errors."""
        self.run("0")
        messages = []
        for event in self.events:
            kind, facts = event.get("method"), event.get("params", {})
            if kind == "Runtime.exceptionThrown":
                messages.append(str(facts["exceptionDetails"]))
            elif kind == "Runtime.consoleAPICalled":
                messages.append(str(facts["args"]))
            elif kind == "Log.entryAdded":
                messages.append(f"{facts['entry']['text']} {facts['entry'].get('url')}")
        return messages

    def requests(self):
        """List the requested URLs."""
        self.run("0")
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
