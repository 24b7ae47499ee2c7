"""`perceptune inspect` in Chromium: accessible names, contrast, keys, narrow screens, and what the browser refuses."""

import itertools
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from perceptune.commands.inspect import server

from tests.browser import WIDTHS, Tab
from tests.inspect.pages import PAIRS, QUESTION, trained_on
from tests.results_folder import QUESTIONS

PAGES = {
    "start": "",
    "answers": "answers?text=says&policy=perpo&reward_min=0.2",
    "question": f"question?{urlencode({**QUESTION, 'against': 'tiny/benchmarks/overlap'})}",
    "long answer": f"question?{urlencode({**QUESTION, 'request': 'shapes-test/e5/original/greedy'})}",
    "comparison": "compare?a=tiny&b=perpo&plan=benchmarks&scored=overlap",
    "pairs": f"groups?table={quote(PAIRS)}",
    "pair": f"group?table={quote(PAIRS)}&id=g0",
    "rollout group": "group?table=tiny/shapes/g2/overlap/all&id=shapes/e0/original/round-1",
    "rounds": "rounds?experiment=grpo",
    "examples": "examples?dataset=shapes",
    "example": "example?dataset=shapes&id=e0",
}


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


def test_the_command_serves_what_it_prints(served: str) -> None:
    with urllib.request.urlopen(served) as response:
        assert "server" not in response.headers
        assert b"Benchmarks" in response.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(served[:-2] + "/")


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_accessible_and_fit_their_window(served: str, tab: Tab, name: str) -> None:
    tab.open(served + PAGES[name])
    for width in WIDTHS:
        tab.look(width, dark=False)
        tab.run("for (const one of document.querySelectorAll('details')) one.open = true")
        assert tab.violations() == "", f"{width} pixels"
        assert tab.overhang() == 0, f"{width} pixels"
        tab.look(width, dark=True)
        assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 25)"
        assert tab.violations("color-contrast") == "", f"{width} pixels, dark"


def test_an_error_page_is_accessible(served: str, opened: Tab) -> None:
    opened.open(f"{served}answers?reward_min=x", width=WIDTHS[1])
    assert opened.run("document.querySelector('[role=alert]').textContent").startswith("`reward_min` in the address")
    assert opened.violations() == ""


def test_everything_is_reached_with_the_tab_key_and_its_focus_is_seen(served: str, tab: Tab) -> None:
    """From the skip link to the last link, and out of the page again."""
    tab.open(f"{served}answers?policy=tiny&condition=greedy")
    stops = tab.tab_stops()
    assert len(stops) < 300
    assert stops[0]["what"] == "Skip to the content"
    assert [one for one in stops if not one["visible"] or not one["inside"]] == []
    reached = [one["what"] for one in stops]
    for first, second in itertools.pairwise(("Answers", "text", "reward_min", "0 to 0.05: 1", "Export as JSONL")):
        assert reached.index(first) < reached.index(second)
    assert sum(one["kind"] == "a" and "says" in one["what"] for one in stops) == QUESTIONS - 1  # and a hostile one
    tab.press("Shift+Tab", *["Shift+Tab"] * len(stops))
    tab.page.locator(".skip").focus()
    tab.press("Enter")
    assert tab.run("document.activeElement.id") == "main"


def test_lists_and_questions_are_read_with_the_keyboard(served: str, tab: Tab) -> None:
    tab.open(f"{served}answers?policy=tiny&condition=greedy&sort=-reward")
    focused = "[...document.querySelectorAll('a.open')].indexOf(document.activeElement)"
    tab.press("j", "j")
    assert tab.run(focused) == 1
    tab.press("k")
    assert tab.run(focused) == 0
    tab.press("Enter")
    tab.page.wait_for_url("**/question?*")
    assert "e1" in tab.page.locator(".facts").inner_text()  # the largest reward
    tab.press("n")
    tab.page.wait_for_url("**at=1*")
    tab.press("u")
    tab.page.wait_for_url("**/answers?*")
    tab.press("/")
    assert tab.run("document.activeElement.name") == "text"
    tab.press("j")
    assert tab.run("document.activeElement.value") == "j"  # typing moves nothing
    tab.press("Escape", "j")
    assert tab.run(focused) == 0


def test_what_a_model_or_a_user_wrote_is_text(served: str, tab: Tab) -> None:
    """No script runs: `tab` would have seen its dialog."""
    for address, selector in (
        (f"answers?text={quote('<script>')}", "a.open"),
        (f"question?{urlencode({**QUESTION, 'request': 'shapes-test/e0/original/greedy'})}", ".said"),
        ("example?dataset=shapes&id=e0", "h1"),
        (PAGES["pair"], ".pair .said"),
    ):
        tab.open(served + address)
        shown = tab.page.locator(selector).first.inner_text()
        assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in shown
        assert tab.page.locator("main script, main img[src=x], main [onerror]").count() == 0


def test_a_click_on_a_bar_filters(served: str, tab: Tab) -> None:
    tab.open(f"{served}answers?policy=perpo&condition=greedy")
    tab.page.get_by_role("link", name="0.7 to 0.75").first.click()
    tab.page.wait_for_url("**reward_min=0.7*")
    assert tab.page.locator("a.open").count() == 1
    tab.page.get_by_role("link", name="show all").click()
    tab.page.wait_for_url("**/answers?*condition=greedy")
    assert tab.page.locator("a.open").count() == QUESTIONS


def test_a_permanent_link_restores_filters_and_order(served: str, tab: Tab) -> None:
    tab.open(f"{served}answers")
    chosen = {"policy": "perpo", "condition": "greedy", "sort": "-reward"}
    for name, value in chosen.items():
        tab.page.locator(f"select[name={name}]").select_option(value)
    typed = {"text": "SAYS", "reward_min": "0.15", "margin_below": ""}
    for name, value in typed.items():
        tab.page.locator(f"input[name={name}]").fill(value)
    tab.press("Enter")
    tab.page.wait_for_url("**reward_min=0.15*")
    address, shown = tab.page.url, tab.page.locator("a.open").all_inner_texts()
    assert len(shown) == 4 and "60.0" in shown[0]
    command = shlex.split(tab.page.locator("footer code").inner_text())
    assert served + command[-1] == address
    tab.open("about:blank")
    tab.open(address)
    assert tab.page.locator("a.open").all_inner_texts() == shown
    for name, value in {**chosen, **typed}.items():
        assert tab.page.locator(f"[name={name}]").input_value() == value


def test_an_export_can_be_trained_on(served: str, tab: Tab, tmp_path: Path) -> None:
    tab.open(f"{served}answers?policy=tiny&condition=sampled&reward_min=0.1")
    with tab.page.expect_download() as download:
        tab.page.get_by_role("link", name="Export as JSONL").click()
    assert download.value.suggested_filename == "answers.jsonl"
    download.value.save_as(tmp_path / "answers.jsonl")
    assert trained_on(tmp_path / "answers.jsonl") == {f"e{i}": [1.0, 0.5] for i in range(QUESTIONS)}
