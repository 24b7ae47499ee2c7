"""`perceptune inspect` in Chromium: keys, narrow screens, dark mode, and what the browser refuses."""

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from perceptune.commands.inspect import server

from tests.inspect.browser import Browser, browser
from tests.inspect.pages import PAIRS

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on the path")


@pytest.fixture(scope="module")
def served(run_folder: Path) -> Iterator[str]:
    """The address that the command prints, while it runs."""
    code = "import sys; from perceptune.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "inspect", str(run_folder / "results")]
    environment = {"PYTHONPATH": str(Path(server.__file__).parents[3]), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{run_folder / 'results'}: 68 answers of 4 policies\n"
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert CHROMIUM is not None
    with browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_the_command_serves_what_it_prints(served: str) -> None:
    with urllib.request.urlopen(served) as response:
        assert "server" not in response.headers
        assert b"Benchmarks" in response.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(served[:-2] + "/")


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_pages_fit_their_window_and_follow_the_colour_scheme(
    served: str, chrome: Browser, width: int, dark: bool
) -> None:
    for address in ("", "answers", "compare?a=tiny&b=perpo&plan=benchmarks", f"group?table={quote(PAIRS)}&id=g0"):
        chrome.open(served + address, width, dark)
        assert chrome.run("document.documentElement.scrollWidth") <= width, address
        assert chrome.run("getComputedStyle(document.body).backgroundColor") == ("rgb(18, 21, 25)" if dark else "rgb(255, 255, 255)")  # fmt: skip
        failed = "[...document.images].filter(i => i.loading !== 'lazy' && (!i.complete || !i.naturalWidth)).length"
        assert chrome.run(failed) == 0
    assert chrome.errors == []  # it refused neither our style nor our script, images or links


@needs_chromium
def test_lists_and_questions_are_read_with_the_keyboard(served: str, chrome: Browser) -> None:
    chrome.open(f"{served}answers?policy=tiny&condition=greedy&sort=-reward")
    focused = "[...document.querySelectorAll('a.open')].indexOf(document.activeElement)"
    chrome.press("j")
    chrome.press("j")
    assert chrome.run(focused) == 1
    chrome.press("k")
    assert chrome.run(focused) == 0
    chrome.press("Enter")
    chrome.wait_for("location.pathname.endsWith('/question')")
    assert "e1" in chrome.run("document.querySelector('.facts').textContent")  # the largest reward
    chrome.press("n")
    chrome.wait_for("location.search.includes('at=1')")
    chrome.press("u")
    chrome.wait_for("location.pathname.endsWith('/answers')")
    chrome.press("/")
    assert chrome.run("document.activeElement.name") == "text"
    chrome.press("j")
    assert chrome.run("document.activeElement.value") == "j"  # typing moves nothing


@needs_chromium
def test_what_a_model_wrote_is_text(served: str, chrome: Browser) -> None:
    chrome.open(f"{served}answers?text={quote('<script>')}")
    assert chrome.run("document.querySelectorAll('main script, main img[src=x]').length") == 0
    assert "<script>alert(1)</script>" in chrome.run("document.querySelector('a.open').textContent")


@needs_chromium
def test_a_click_on_a_bar_filters(served: str, chrome: Browser) -> None:
    chrome.open(f"{served}answers?policy=perpo&condition=greedy")
    chrome.run(
        "document.querySelector('.histogram a[aria-label^=\"0.7 to\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    chrome.wait_for("location.search.includes('reward_min=0.7')")
    assert chrome.run("document.querySelectorAll('a.open').length") == 1
