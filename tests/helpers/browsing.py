"""A service in a process of its own, and a page of a browser that is checked screen by screen."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserType, Locator, Page

HEIGHTS = {1200: 800, 390: 844}  # of a window by its width, in pixels
LEAST_TARGET = 44  # pixels of what a finger must hit
# Files that a user drops or pastes, as the browser hands them to a page.
GIVE = """([selector, kind, name, text]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: "image/jpeg"}));
  const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
    : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
  document.querySelector(selector).dispatchEvent(event);
}"""
# How many pixels in a row, down and across its middle, belong to each thing that can be pressed.
SMALL = """(least) => {
  const shown = document.querySelector("dialog") ?? document, found = [];
  for (const each of shown.querySelectorAll("a, button, summary, label.button, .field input, .picks label")) {
    if (!each.checkVisibility() || each.matches(".skip, p a")) continue;
    each.scrollIntoView({block: "center", behavior: "instant"});
    const {x, y, width, height} = each.getBoundingClientRect();
    const hit = (right, down) => {
      const there = document.elementFromPoint(x + width / 2 + right, y + height / 2 + down);
      return there !== null && (each.contains(there) || there.closest("label") === each);
    };
    const steps = [...Array(4 * least).keys()].map((step) => step - 2 * least);
    const sizes = [steps.filter((step) => hit(step, 0)).length, steps.filter((step) => hit(0, step)).length];
    if (Math.min(...sizes) < least) found.push(`${each.outerHTML.slice(0, 80)}: ${sizes.join("x")}`);
  }
  scrollTo(0, 0);
  return found;
}"""


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """Run ``facenet serve`` with the encoder sface for the gallery in `folder`; yields its address."""
    script, run = ROOT / "scripts" / "serve.py", f"hydra.run.dir={folder / 'run'}"
    line = [sys.executable, str(script), f"gallery={folder / 'gallery'}", "encoder=sface", "port=0", run, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=folder) as process,
    ):
        try:
            assert process.stdout is not None
            told = next((text for text in process.stdout if text.startswith("serving at ")), None)
            assert told, (folder / "log").read_text()
            yield told.split()[-1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start chromium; skips the test if it, or what drives it, is not installed."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; it is in the extra dev")
    with driver.sync_playwright() as playwright, launched(playwright.chromium) as browser:
        yield browser


@contextmanager
def launched(kind: BrowserType, *arguments: str) -> Iterator[Browser]:
    """Start a browser of a kind with arguments; FACENET_CHROMIUM names the program."""
    program = os.environ.get("FACENET_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip("no chromium; install it, or set FACENET_CHROMIUM to the program")
    browser = kind.launch(executable_path=program, args=["--no-sandbox", *arguments])
    try:
        yield browser
    finally:
        browser.close()


class Visit:
    """A page of the service in a window of a width; every screen it looks at is checked."""

    def __init__(self, browser: Browser, address: str, width: int) -> None:
        phone = width < 500
        self.address, self.width, self.failed = address, width, 0
        self.context = browser.new_context(
            viewport={"width": width, "height": HEIGHTS[width]}, has_touch=phone, is_mobile=phone
        )
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note_request(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._note_message(message.type, message.text))

    def __enter__(self) -> Visit:
        return self.open("#/")

    def __exit__(self, kind: object, *rest: object) -> None:
        self.context.close()
        if kind is None:
            assert self.elsewhere == []
            assert self.errors == []

    def open(self, screen: str) -> Visit:
        """Go to a screen: the address's part from # on."""
        self.page.goto(f"{self.address}/{screen}")
        return self

    def find(self, kind: Any, name: str | None = None, **more: Any) -> Locator:
        """Find by role, as a screen reader does."""
        return self.page.get_by_role(kind, name=name, **more)

    def choose(self, photo: Path, place: int = 0) -> None:
        """Choose a photo in a place for one."""
        self.page.locator("main input[type=file]").nth(place).set_input_files(photo)

    def give(self, kind: str, photo: Path) -> None:
        """Drop or paste a photo."""
        self.page.locator("main .drop").first.wait_for()
        selector = "main .drop" if kind == "drop" else "body"
        self.page.evaluate(GIVE, [selector, kind, photo.name, base64.b64encode(photo.read_bytes()).decode()])

    def faces(self) -> list[Locator]:
        """Wait for the answer to a photo; returns the cards of its faces."""
        self.page.locator(".face").first.wait_for()
        return self.page.locator(".face").all()

    def look(self, screen: str) -> None:
        """Check a screen, dark and light: nothing serious for axe, nothing cut off or too small; keep a picture."""
        from axe_playwright_python.sync_playwright import Axe

        self.page.wait_for_load_state("networkidle")
        self.page.mouse.move(0, 0)
        for scheme in ("dark", "light"):
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found = Axe().run(self.page).response["violations"]
            serious = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found if _is_serious(each)]
            assert not serious, f"{screen}, {scheme}: {serious}"
            if shots := os.environ.get("FACENET_SCREENSHOTS"):
                Path(shots).mkdir(parents=True, exist_ok=True)
                file = Path(shots) / f"{screen}-{self.width}-{scheme}.png"
                self.page.screenshot(path=file, full_page=True, animations="disabled")
        beyond = self.page.evaluate("document.documentElement.scrollWidth") - self.width  # a phone widens innerWidth
        assert beyond <= 0, f"{screen}: {beyond} pixels beyond the right edge"
        small: Sequence[str] = self.page.evaluate(SMALL, LEAST_TARGET)
        assert not small, f"{screen}: {small}"

    def _note_request(self, url: str) -> None:
        if not url.startswith((f"{self.address}/", "blob:", "data:")):
            self.elsewhere.append(url)

    def _note_message(self, kind: str, text: str) -> None:
        if kind == "error" and not text.startswith("Failed to load resource"):  # an answer that the page shows
            self.errors.append(text)


def _is_serious(violation: dict[str, Any]) -> bool:
    return violation["impact"] in ("serious", "critical")
