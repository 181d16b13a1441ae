"""The page in a real browser: nothing fails, nothing is fetched, names stay text, and its controls work."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ytvis.small_set import EVIL
from tests.ytvis.viewer.browser import new_page
from ytvis.report import write_report
from ytvis.report.chart import precision_chart

MAX_BYTES = 5_000_000


@pytest.fixture
def opened(browser, page) -> Iterator:
    """The open page. At the end it must have fetched only itself, and no script may have failed."""
    with new_page(browser, viewport={"width": 1280, "height": 900}) as tab:
        fetched: list[str] = []
        tab.on("request", lambda request: fetched.append(request.url))
        tab.goto(page.as_uri())
        yield tab
        assert [url for url in fetched if not url.startswith("data:")] == [page.as_uri()]


def first_column(tab) -> list[str]:
    return tab.locator("#categories tbody th").all_text_contents()


def test_the_file_holds_all_it_needs(page):
    text = page.read_text("utf-8")
    assert len(text.encode()) < MAX_BYTES
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'; img-src data:;", text)
    assert "unsafe" not in text and "http://" not in text and "https://" not in text


def test_names_stay_text(opened):
    assert opened.title() == "Report of found.json"
    assert first_column(opened) == ["cat", EVIL]
    assert opened.locator("script").count() == 1
    assert EVIL.replace("/", "") in opened.locator("#videos h3").last.text_content()


def test_all_sections_are_there_and_filled(opened):
    for key in ("scores", "categories", "curves", "groups", "confusion", "videos"):
        assert opened.locator(f"#{key} h2").is_visible()
    scores = json.loads(Path(opened.url.removeprefix("file://")).with_name("metrics.json").read_text("utf-8"))["scores"]
    assert opened.locator("#scores dt").all_text_contents() == [*list(scores)[:-1], "ID switches"]
    assert opened.locator("#scores dd b").first.text_content() == f"{100 * scores['AP']['value']:.1f}"
    assert opened.locator("#confusion tbody tr").count() == 3  # cat, EVIL, nothing there; no dog is involved
    widths = opened.locator("#videos img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert widths and all(width == 2 * 320 + 8 for width in widths)


def test_columns_sort_by_click_and_by_key(opened):
    head = opened.locator("#categories thead button")
    head.nth(1).click()
    assert first_column(opened) == ["cat", EVIL]  # 3 and 2 objects
    assert opened.locator("#categories thead th").nth(1).get_attribute("aria-sort") == "descending"
    head.nth(1).press("Enter")
    assert first_column(opened) == [EVIL, "cat"]
    assert opened.locator("#categories thead th").nth(1).get_attribute("aria-sort") == "ascending"
    head.nth(0).press("Space")
    assert first_column(opened) == [EVIL, "cat"]  # signs come before letters
    assert opened.locator("#categories thead th[aria-sort=none]").count() == 9


def test_curves_are_chosen_and_read(opened):
    shown = opened.locator("#plot .curves:not(.hidden)")
    assert shown.count() == 1 and shown.locator("path").count() == 3
    box = shown.locator("path").first.bounding_box()
    assert box["width"] > 300 and box["height"] > 50
    opened.select_option("#category", label="cat")
    assert shown.count() == 1 and shown.get_attribute("data-key") == "1"
    opened.locator("#plot").press("Home")
    assert "Recall 0 %: precision 100.0 at IoU 0.5" in opened.locator("#readout").text_content()
    opened.locator("#plot").press("ArrowRight")
    assert "Recall 1 %" in opened.locator("#readout").text_content()
    opened.locator("#plot").hover(position={"x": 100, "y": 50})
    assert re.search(r"Recall [2-9]\d? %", opened.locator("#readout").text_content())


def test_a_chart_has_a_group_for_each_category_whatever_its_lines_look_like():
    level = {"mean": [0.5] * 101, "low": [1.0] * 50 + [0.0] * 51, "high": [index / 100 for index in range(101)]}
    text = precision_chart([level, level, level])
    assert text == precision_chart([level, level, level])
    groups = re.findall(r'<g class="(curves[^"]*)" data-key="(\d)">(.*?)</g>', text, re.DOTALL)
    assert [group[:2] for group in groups] == [("curves", "0"), ("curves hidden", "1"), ("curves hidden", "2")]
    for *_, lines in groups:
        assert [line.count("L") for line in re.findall(r' d="([^"]*)"', lines)] == [1, 3, 100]
    assert "style=" not in text and "xmlns" not in text and "font" not in text
    empty = precision_chart([])
    assert 'id="area"' in empty and "curves" not in empty


def test_time_lines_tell_what_they_draw(opened):
    lines = opened.locator("#videos .timeline")
    labels = [line.get_attribute("aria-label") for line in lines.all()]
    assert labels == [
        "frames 0 to 5: not covered",  # video 2, whose track is under the cut of 0.8
        "frames 0 to 5: track 0",
        "frames 0 to 3: track 1, frames 4 to 5: not covered",
        "frames 0 to 5: not covered",
        "frames 0 to 5: not covered",
    ]
    assert lines.nth(2).locator("rect.missed").count() == 1 and lines.nth(2).locator("rect.covered").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(browser, page, scheme):
    with new_page(browser, viewport={"width": 375, "height": 700}, color_scheme=scheme) as tab:
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 375
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", ground)))
        assert brightness > 600 if scheme == "light" else brightness < 100


def test_a_page_without_predictions_opens(browser, files, tmp_path):
    files[1].write_text("[]", "utf-8")
    with new_page(browser) as tab:
        tab.goto(write_report(*files, tmp_path / "out").as_uri())
        tab.locator("#plot").press("ArrowRight")
        assert "precision 0.0" in tab.locator("#readout").text_content()
        assert tab.locator("#videos article").count() == 2
