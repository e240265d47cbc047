"""Check the published dashboard in a real browser that cannot reach the web.

    python asv_benchmarks/tools/check_dashboard.py [--screenshots FOLDER]

Opens the grid of all benchmarks, the list of them, the page of one, and the regressions: from a
server and from the folder, on a large screen and on a phone. Fails unless each draws its content
without a message in the console, without a request to another host, and no wider than the screen,
and the scale of a graph can be switched.
Skips, with the reason, if Chromium is not installed.
"""

from __future__ import annotations

import argparse
import base64
import functools
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HTML = Path(__file__).parents[1] / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
TIMEOUT = 10
SCREENS = {"large": (1440, 900), "phone": (390, 844)}

COUNT_PLOTS = """
[...document.querySelectorAll('%s canvas.flot-base')].filter(canvas => {
    if (!canvas.width || !canvas.offsetParent) return false;
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext('2d', {willReadFrequently: true});
    context.drawImage(canvas, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < pixels.length; i += 4) {
        const [red, green, blue, alpha] = pixels.slice(i, i + 4);
        if (alpha > 128 && %s) return true;
    }
    return false;
}).length
"""
COLOURED = "Math.max(red, green, blue) - Math.min(red, green, blue) > 40"  # a curve, not an axis
PAGES = {  # address, and an expression that counts what is drawn
    # A benchmark with results for one commit only has an empty frame in the grid.
    "grid": ("", COUNT_PLOTS % ("#summarygrid-display", "true")),
    "list": ("summarylist", "document.querySelectorAll('#summarylist-body tbody tr').length"),
    "graph": ("{benchmark}", COUNT_PLOTS % ("#main-graph", COLOURED)),
    "regressions": ("regressions", "document.querySelectorAll('#regressions-body thead').length"),
}
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
USUAL_BENCHMARK = "plans.MakePlan.time_make_plan"


def measured_benchmark() -> str:
    """Return the name of a benchmark that has a result to draw, if possible the usual one."""
    folder = HTML / "graphs" / "summary"
    names = sorted(file.name.removesuffix(".json.js") for file in folder.glob("*.json.js"))
    if not names:
        sys.exit("no benchmark has a result: run `make bench` first")
    return USUAL_BENCHMARK if USUAL_BENCHMARK in names else names[0]


class Browser:
    """Chromium's own protocol over two pipes: JSON messages that end with a zero byte."""

    def __init__(self, commands: int, messages: int) -> None:
        self._commands = commands
        self._messages = messages
        self._unread = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def open_page(self) -> None:
        """Make a page, to which all later calls apply."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") != number:
                self.events.append(message)
            elif "error" in message:
                raise RuntimeError(f"{method}: {message['error']['message']}")
            else:
                return message["result"]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self._messages], [], [], TIMEOUT)[0]:
                raise TimeoutError(f"no message from the browser for {TIMEOUT} s")
            received = os.read(self._messages, 1 << 16)
            if not received:
                raise ConnectionError("the browser has closed the connection")
            self._unread += received
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)


@contextmanager
def running_browser(program: str) -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    its_commands, commands = os.pipe()
    messages, its_messages = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # It reads commands from descriptor 3 and writes messages to 4.
        shell = f'exec "$@" 3<&{its_commands} 4>&{its_messages}'
        process = subprocess.Popen(
            ["sh", "-c", shell, "sh", program, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(its_commands, its_messages),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_commands)
        os.close(its_messages)
        try:
            yield Browser(commands, messages)
        finally:
            process.terminate()
            process.wait()
            os.close(commands)
            os.close(messages)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine, and yield its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def look_at(browser: Browser, address: str, screen: tuple[int, int], count_drawn: str) -> list[str]:
    """Open a page; return what is wrong with it."""
    browser.open_page()
    browser.events.clear()
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(f"{domain}.enable")
    width, height = screen
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < height,
    )
    browser.call("Page.navigate", url=address)
    end = time.monotonic() + TIMEOUT
    while not browser.evaluate(count_drawn) and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(0.5)  # for late errors and requests
    drawn = browser.evaluate(count_drawn)
    problems = list(complaints(browser.events))
    if not drawn:
        problems.append(f"nothing was drawn in {TIMEOUT} s")
    too_wide = browser.evaluate(TOO_WIDE)
    if too_wide > 0:
        problems.append(f"wider than the screen by {too_wide} pixels")
    return problems


def wrong_scales(browser: Browser, benchmark: str) -> list[str]:
    """Switch the scale of a graph to the other one and back; return what does not follow."""
    described = f"$.asv.main_json.benchmarks[{json.dumps(benchmark)}].log_scale"
    at_first = browser.evaluate(described)
    problems = []
    for expected in (at_first, not at_first, at_first):
        if browser.evaluate("$('#log-scale').hasClass('active')") != expected:
            problems.append(f"the scale is {'not ' if expected else ''}logarithmic")
        browser.evaluate("document.getElementById('log-scale').click()")
        time.sleep(0.3)
    return problems


def complaints(events: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the console's messages and the requests to other hosts."""
    for event in events:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                yield details.get("exception", {}).get("description", details["text"])
            case "Runtime.consoleAPICalled":
                yield " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
            case "Log.entryAdded":
                entry = params["entry"]
                yield f"{entry['text']} {entry.get('url', '')}"
            case "Network.requestWillBeSent":
                parts = urlsplit(params["request"]["url"])
                if parts.scheme in ("http", "https") and parts.hostname != "127.0.0.1":
                    yield f"asked another host for {params['request']['url']}"


def main() -> None:
    """Check every page and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--screenshots", type=Path, help="folder to write pictures into")
    parser.add_argument("--benchmark", help="benchmark to open; by default one with results")
    arguments = parser.parse_args()
    if not (HTML / "index.html").exists():
        sys.exit(f"{HTML / 'index.html'} does not exist: run `make dashboard` first")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(f"skipped: none of {', '.join(BROWSERS)} is installed")
        return
    benchmark = arguments.benchmark or measured_benchmark()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    failed = False
    with served(HTML) as host, running_browser(program) as browser:
        ways = {"server": host, "folder": HTML.as_uri()}
        for (way, place), (screen, size), page in itertools.product(
            ways.items(), SCREENS.items(), PAGES
        ):
            hash_of_page, count_drawn = PAGES[page]
            address = f"{place}/index.html#/{hash_of_page.format(benchmark=benchmark)}"
            problems = look_at(browser, address, size, count_drawn)
            if page == "graph":
                problems += wrong_scales(browser, benchmark)
            print(f"{page}, {way}, {screen}: {'; '.join(problems) or 'ok'}", flush=True)
            failed = failed or bool(problems)
            if arguments.screenshots:
                picture = browser.call("Page.captureScreenshot")["data"]
                file = arguments.screenshots / f"{page}-{way}-{screen}.png"
                file.write_bytes(base64.b64decode(picture))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
