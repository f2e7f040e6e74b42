"""The page in headless Chromium, opened from disk. Where there is no browser the same is looked for in its text."""

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from convmixer_jax.reporting.content import Reporter
from convmixer_jax.reporting.page import html
from tests.reporting.made_up import write_run, write_study
from tests.reporting.parsed import Parsed

POINTS = [f"kernel_size={k}" for k in (3, 5, 7, 9)]
BY_SCORE = [0, 2, 1]  # the places of the points that have one, ascending


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_study(folder / "kernels")
    write_run(folder / "other <b>", 0.5, dataset="cifar10")
    content = Reporter(folder).make([folder])
    (folder / "report.html").write_text(html(content, None))
    (folder / "followed.html").write_text(html(content, 600))
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium():
    """A browser; None where there is none."""
    browser, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if browser is None or driver is None:
        yield None
        return
    options = Options()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


def opened(chromium, page: Path, width: int = 1280, scheme: str = "light"):
    """The page, loaded on a screen of this many pixels."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    chromium.get(page.as_uri())
    return chromium


def shown(chromium, head: str = "point") -> list[str]:
    """The cells of a column of the first table, in the order in which rows are shown."""
    place = heads(chromium).index(head) + 1
    cells = chromium.find_elements(By.CSS_SELECTOR, f"#data-1-table tbody tr:not([hidden]) > :nth-child({place})")
    return [cell.text for cell in cells]


def heads(chromium) -> list[str]:
    return [name.text for name in chromium.find_elements(By.CSS_SELECTOR, "#data-1-table thead .name")]


def button(chromium, head: str):
    return chromium.find_elements(By.CSS_SELECTOR, "#data-1-table thead button")[heads(chromium).index(head)]


def sorted_by(chromium) -> dict[str, str]:
    cells = chromium.find_elements(By.CSS_SELECTOR, "#data-1-table thead th")
    orders = [cell.get_attribute("aria-sort") for cell in cells]
    return {head: order for head, order in zip(heads(chromium), orders, strict=True) if order != "none"}


def test_it_opens_from_disk_without_a_complaint(chromium, page):
    if chromium is None:
        assert Parsed(page.read_text()).unclosed == []
        return
    opened(chromium, page)
    assert chromium.title == "Kernel sizes"
    assert chromium.get_log("browser") == []
    sizes = "return [...document.images].map(image => [image.complete, image.naturalWidth])"
    pictures = chromium.execute_script(sizes)
    assert len(pictures) >= 9
    assert all(complete and width > 100 for complete, width in pictures)
    assert (
        chromium.execute_script(
            "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
        )
        == 0
    )


def test_a_click_sorts(chromium, page):
    if chromium is None:
        table = Parsed(page.read_text()).tables["data-1-table"]
        place = next(n for n, head in enumerate(table.heads) if head.startswith("test top-1"))
        values = [row[place] for row in table.values]
        assert sorted(range(3), key=lambda n: float(values[n])) == BY_SCORE
        assert table.buttons == len(table.heads)
        return
    opened(chromium, page)
    assert shown(chromium) == POINTS
    button(chromium, "test top-1").click()
    assert shown(chromium, "test top-1") == ["82.00", "88.00", "90.00", "–"]
    assert shown(chromium) == [POINTS[n] for n in [*BY_SCORE, 3]]
    assert sorted_by(chromium) == {"test top-1": "ascending"}
    button(chromium, "test top-1").click()
    assert shown(chromium, "test top-1") == ["90.00", "88.00", "82.00", "–"]  # what has none stays last
    assert sorted_by(chromium) == {"test top-1": "descending"}
    button(chromium, "published").click()
    assert shown(chromium, "published") == ["85.00", "86.00", "90.00", "–"]
    assert shown(chromium) == [POINTS[n] for n in (0, 2, 3, 1)]
    button(chromium, "published").click()
    assert shown(chromium, "published") == ["90.00", "86.00", "85.00", "–"]
    button(chromium, "forward").click()  # numbers, not texts: 0.035 is more than 0.0186
    assert shown(chromium) == POINTS
    button(chromium, "difference").click()
    assert shown(chromium, "difference") == ["-3.00", "+2.00", "–", "–"]
    # By keyboard; text by its letters.
    button(chromium, "state").send_keys(Keys.ENTER)
    assert shown(chromium, "state") == ["1 done, 1 failed", "1 done, 1 unfinished", "1 pruned, 1 missing", "2 done"]
    assert sorted_by(chromium) == {"state": "ascending"}
    button(chromium, "parameters").send_keys(Keys.SPACE)
    assert shown(chromium) == POINTS


def test_the_filter_hides_rows(chromium, page):
    if chromium is None:
        parsed = Parsed(page.read_text())
        assert [each["data-table"] for each in parsed.of("input")] == list(parsed.tables)
        return
    opened(chromium, page)
    field, count = chromium.find_element(By.ID, "data-1-filter"), chromium.find_element(By.ID, "data-1-count")
    assert count.text == "4 rows"
    field.send_keys("DONE")
    assert shown(chromium) == POINTS[:3]
    assert count.text == "3 of 4 rows"
    field.send_keys(" failed")  # each of the words, wherever it is
    assert shown(chromium) == POINTS[1:2]
    field.clear()
    field.send_keys("x", Keys.BACKSPACE)
    assert shown(chromium) == POINTS
    assert chromium.find_element(By.CSS_SELECTOR, "#data-2-table tbody th").text == "other <b>"


def test_a_page_that_reloads_keeps_its_order_and_filter(chromium, page):
    followed = page.with_name("followed.html")
    if chromium is None:
        assert '<meta http-equiv="refresh" content="600"' in followed.read_text()
        return
    opened(chromium, followed)
    button(chromium, "speed").click()
    chromium.find_element(By.ID, "data-1-filter").send_keys("done")
    before = shown(chromium)
    chromium.refresh()
    assert shown(chromium) == before == [POINTS[n] for n in (2, 1, 0)]
    assert sorted_by(chromium) == {"speed": "ascending"}
    opened(chromium, page)  # a finished report begins anew
    assert shown(chromium) == POINTS


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_screen_in_both_schemes(chromium, page, width, scheme, tmp_path):
    if chromium is None:
        assert re.search(r"@media screen and \(prefers-color-scheme: dark\)", page.read_text())
        return
    opened(chromium, page, width, scheme)
    assert chromium.execute_script("return document.documentElement.scrollWidth") == width
    picture = chromium.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
    assert pixels.shape == (900, width)
    paper, *others = np.bincount(pixels.ravel(), minlength=256).argsort()[::-1]
    assert (paper > 200) == (scheme == "light")
    assert any(abs(int(paper) - int(other)) > 150 for other in others[:40])  # there is text on it
    pictures = chromium.find_elements(By.CSS_SELECTOR, "figure img")
    shown_now = {picture.get_attribute("class") for picture in pictures if picture.is_displayed()}
    assert shown_now == {"by-day" if scheme == "light" else "by-night"}


def test_paper_is_white(chromium, page):
    if chromium is None:
        assert "@media print" in page.read_text()
        return
    opened(chromium, page, scheme="dark")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    [day, night] = chromium.find_elements(By.CSS_SELECTOR, "figure:first-of-type img")[:2]
    assert (day.is_displayed(), night.is_displayed()) == (True, False)
    assert not chromium.find_element(By.ID, "data-1-filter").is_displayed()
    assert (
        chromium.find_element(By.TAG_NAME, "body").value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    )
