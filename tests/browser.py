"""The system's Chromium for tests, driven by Playwright, with the checks of axe-core."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

PACKAGES = (Path(__file__).parent / "browser-packages.txt").read_text().split()
"""Debian packages that `.ci/run` installs; elsewhere, installing them is up to the machine's owner."""
REQUIRED = "PERCEPTUNE_REQUIRE_BROWSER"
"""Environment variable that makes a missing browser fail the tests, as in CI."""
OPTIONS = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
"""Root has no sandbox, and no host has an address but this one."""
PATIENCE = 60.0
"""Seconds to wait for the browser or a page: other tests may use all cores."""
WIDTHS = (1280, 400)
FOCUSED = """
() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const box = one.getBoundingClientRect();
  const style = getComputedStyle(one.querySelector(".hit") || one);
  return {
    what: one.getAttribute("aria-label") || one.name || one.textContent.trim().slice(0, 60),
    kind: one.tagName.toLowerCase(),
    visible: style.outlineStyle === "auto" || (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2),
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}
"""


class Tab:
    """A tab, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(1000 * PATIENCE)
        self.problems: list[str] = []
        """What the browser refused or failed to load, errors of scripts, and requests to other hosts."""
        page.on("console", lambda said: self._note(said.type in ("error", "warning"), said.text))
        page.on("pageerror", lambda error: self._note(True, str(error)))
        page.on("dialog", lambda dialog: (self._note(True, f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._note(not _is_local(request.url), request.url))

    def open(self, address: str, width: int = WIDTHS[0], dark: bool = False) -> None:
        """Loads a page and its images, except those further down that are loaded when they are needed."""
        self.look(width, dark)
        self.page.goto(address)

    def look(self, width: int, dark: bool) -> None:
        """Sets the width of the window and the colour scheme."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if dark else "light")

    def press(self, *keys: str) -> None:
        """Presses and releases keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(script)

    def overhang(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def violations(self, *rules: str) -> str:
        """What axe-core finds against these rules, by default all but experimental ones: a line per element; empty
        if they hold."""
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = {"type": "rule", "values": list(rules)}
        found = Axe().run(self.page, options=options).response["violations"]
        lines = [
            f"{rule['id']}: {' '.join(map(str, node['target']))}: {' '.join(node['failureSummary'].split())}"
            for rule in found
            for node in rule["nodes"]
        ]
        return "\n".join(lines)

    def tab_stops(self, most: int = 300) -> list[dict[str, Any]]:
        """What the Tab key reaches, in its order: `what` and `kind` of each element, whether its focus is
        `visible`, and whether it is `inside` the window."""
        found: list[dict[str, Any]] = []
        while len(found) < most:
            self.press("Tab")
            focused = self.run(FOCUSED)
            if focused is None:
                break
            found.append(focused)
        return found

    def _note(self, condition: bool, problem: str) -> None:
        if condition:
            self.problems.append(problem)


@pytest.fixture(scope="module")
def opened() -> Iterator[Tab]:
    """A tab of a browser with an empty profile. Skips the tests if there is no browser, or fails them if
    `REQUIRED` is set."""
    chromium = shutil.which("chromium")
    if chromium is None:
        reason = f"no `chromium` on the path; Debian package: {' '.join(PACKAGES)}"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{reason}; {REQUIRED} is set")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(OPTIONS), timeout=1000 * PATIENCE)
        try:
            yield Tab(browser.new_page())
        finally:
            browser.close()


def _is_local(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("data", "file", "about", "blob") or parts.hostname == "127.0.0.1"


@pytest.fixture
def tab(opened: Tab) -> Iterator[Tab]:
    """Fails the test if the browser refused or failed to load something, or a script ran or failed."""
    opened.problems.clear()
    yield opened
    assert opened.problems == []
