"""The report page in Chromium: accessible names, contrast, keys, narrow screens, and model output as text."""

from collections.abc import Mapping

import pytest

from tests.browser import WIDTHS, Tab
from tests.report_pages import DEMO, HOSTILE, written


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The address of a page with usual and of one with hostile answers; both have pairs and their pictures."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        name: written(folder / name, DEMO, pairs=True, hostile=hostile).as_uri()
        for name, hostile in (("usual", False), ("hostile", True))
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_accessible_and_fits_its_window(pages: Mapping[str, str], tab: Tab, width: int) -> None:
    tab.open(pages["usual"], width)
    tab.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.violations() == ""
    assert tab.overhang() == 0
    tab.look(width, dark=True)
    assert tab.violations("color-contrast") == ""


def test_hostile_answers_are_text_and_fit_the_window(pages: Mapping[str, str], tab: Tab) -> None:
    """No script runs and nothing is loaded: `tab` would have seen it."""
    for width in WIDTHS:
        tab.open(pages["hostile"], width)
        shown = "\n".join(tab.page.locator("dd").all_inner_texts())
        for text in HOSTILE[:2]:
            assert text in shown
        assert "\\u202egnp.exe\\u200b" in shown
        assert tab.page.locator("script, img, iframe, [onerror], [onload]").count() == 0
        assert tab.overhang() == 0
    assert tab.violations() == ""


def test_everything_is_reached_with_the_tab_key_and_its_focus_is_seen(pages: Mapping[str, str], tab: Tab) -> None:
    """From the skip link to the last table, and out of the page again."""
    tab.open(pages["usual"])
    stops = tab.tab_stops()
    assert len(stops) < 300
    assert [one for one in stops if not one["visible"] or not one["inside"]] == []
    reached = [one["what"] for one in stops]
    links = tab.page.locator("nav a").all_inner_texts()
    assert reached[: len(links) + 1] == [reached[0], *links]
    assert sum(one["kind"] == "summary" for one in stops) == tab.page.locator("summary").count()
    tab.page.locator("a.skip").focus()
    tab.press("Enter")
    assert tab.run("location.hash") == "#main"
    tab.page.locator("summary").last.focus()
    tab.press("Enter")
    assert tab.run("[...document.querySelectorAll('details')].at(-1).open")


def test_links_of_the_page_lead_to_its_sections(pages: Mapping[str, str], tab: Tab) -> None:
    tab.open(pages["usual"])
    for link in tab.page.locator("nav a").all():
        link.click()
        heading = tab.page.locator(f"{link.get_attribute('href')} h2").first
        assert heading.bounding_box() is not None
        assert tab.run("document.querySelector(':target h2').getBoundingClientRect().top") >= 30  # below the links
