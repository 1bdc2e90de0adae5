"""A headless Chromium driven over a pipe: the DevTools protocol without websockets.

Chromium started with --remote-debugging-pipe reads commands from file descriptor 3 and writes
answers and events to 4; every message is JSON and ends with a NUL byte. Standard library only.
Every wait is bounded.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 20.0  # seconds for anything; a healthy page needs milliseconds


class BrowserError(Exception):
    """The browser did not do what it was told: no answer, an exception in the page, a crash."""


def find_chromium():
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    def __init__(self, path):
        self.profile = tempfile.mkdtemp(prefix="glasshead-page-")
        commands_out, self.commands = os.pipe()
        self.answers, answers_in = os.pipe()
        # above 9, so that putting one at 3 never overwrites the other
        child_reads = fcntl.fcntl(commands_out, fcntl.F_DUPFD_CLOEXEC, 10)
        child_writes = fcntl.fcntl(answers_in, fcntl.F_DUPFD_CLOEXEC, 10)

        def place_pipes():
            os.dup2(child_reads, 3)
            os.dup2(child_writes, 4)

        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-default-apps", "--disable-extensions",
            "--disable-sync", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={self.profile}",
        ]
        self.process = subprocess.Popen(
            [path, *flags, "about:blank"], preexec_fn=place_pipes, close_fds=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in (commands_out, answers_in, child_reads, child_writes):
            os.close(fd)
        self.buffer = b""
        self.serial = 0
        self.session = None
        self.events = []
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call(
                "Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        except BaseException:
            self.close()
            raise

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(5)
        except (BrowserError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait(5)
        os.close(self.commands)
        os.close(self.answers)
        shutil.rmtree(self.profile, ignore_errors=True)

    # messages

    def call(self, method, **params):
        """Sends one command and waits for its answer; events that arrive meanwhile are kept."""
        self.serial += 1
        message = {"id": self.serial, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self.commands, data):]
        except BrokenPipeError:
            raise BrowserError(f"{method}: the browser is gone") from None
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") != self.serial:
                if "method" in answer:
                    self.events.append(answer)
                continue
            if "error" in answer:
                raise BrowserError(f"{method}: {answer['error'].get('message')}")
            return answer["result"]

    def _receive(self, deadline, what):
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.answers], [], [], left)[0]:
                raise BrowserError(f"{what}: no answer within {PATIENCE:.0f} s")
            chunk = os.read(self.answers, 1 << 20)
            if not chunk:
                raise BrowserError(f"{what}: the browser closed its pipe")
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    # what a page is asked

    def evaluate(self, expression):
        """The JSON value of a JavaScript expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text")
            raise BrowserError(f"in the page: {text}")
        return answer["result"].get("value")

    def wait_for(self, expression, what):
        deadline = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise BrowserError(f"{what}: not within {PATIENCE:.0f} s")
            time.sleep(0.02)

    def settle(self):
        """Two drawn frames: whatever was asked for is on the page now."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def keep_events(self):
        """From here on `events` holds what the page throws, logs and asks of the network."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, url):
        answer = self.call("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")

    def wait(self, seconds):
        time.sleep(seconds)

    def media(self, scheme):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride",
                  width=width, height=height, deviceScaleFactor=1, mobile=False)

    # what a hand does

    def click(self, selector):
        """A real click into the middle of the element."""
        spot = self.evaluate(
            "(() => { const node = document.querySelector(%s); if (!node) return null;"
            " node.scrollIntoView({block: 'center', inline: 'nearest', behavior: 'instant'});"
            " const box = node.getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()" % json.dumps(selector))
        if spot is None:
            raise BrowserError(f"nothing to click at {selector}")
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1],
                      button="none" if kind == "mouseMoved" else "left", clickCount=1)
        self.settle()

    def hover(self, selector):
        spot = self.evaluate(
            "(() => { const node = document.querySelector(%s);"
            " node.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const box = node.getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()" % json.dumps(selector))
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=spot[0], y=spot[1], button="none")
        self.settle()

    KEY_CODES = {"Tab": 9, "Enter": 13, "+": 187, "-": 189, "0": 48, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38,
                 "ArrowRight": 39, "ArrowDown": 40}

    def press(self, key, shift=False):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=self.KEY_CODES[key], modifiers=8 if shift else 0)
        self.settle()

    def screenshot(self, path, whole_page=True):
        options = {"format": "png"}
        if whole_page:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options.update(captureBeyondViewport=True, clip={
                "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1})
        image = self.call("Page.captureScreenshot", **options)["data"]
        with open(path, "wb") as out:
            out.write(base64.b64decode(image))
