"""The page holds the numbers, all of them escaped, needs nothing else, and Markdown says the same."""

import dataclasses
import re

import pytest

from convmixer_jax.reporting.content import Reporter
from convmixer_jax.reporting.markdown import escape, markdown
from convmixer_jax.reporting.page import html
from convmixer_jax.reporting.tables import NOTHING, Cell, significant
from convmixer_jax.reporting.writing import write_report
from tests.reporting.made_up import write_run, write_study
from tests.reporting.parsed import Parsed

NASTY = "<script>alert(\"x\")</script> & 'a|b' $x_1$ `c`"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A study, a run of another data set with a nasty name and a damaged file."""
    folder = tmp_path_factory.mktemp("report")
    study = write_study(folder / "kernels")
    other = write_run(folder / NASTY.replace("/", "⁄"), 0.5, dataset="cifar10")
    with (other / "metrics.jsonl").open("a") as file:
        file.write("{torn\n")
    return [study, other]


@pytest.fixture(scope="module")
def content(places, tmp_path_factory):
    return Reporter(tmp_path_factory.mktemp("no data")).make(places)


@pytest.fixture(scope="module")
def page(content):
    return Parsed(html(content, None))


def test_the_page_is_well_formed_and_all_its_anchors_resolve(page):
    assert page.unclosed == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    pointed = [attributes["href"].removeprefix("#") for attributes in page.of("a")]
    pointed += [attributes["for"] for attributes in page.of("label")]
    pointed += [attributes["data-table"] for attributes in page.of("input")]
    pointed += [attributes["data-count"] for attributes in page.of("table") if "data-count" in attributes]
    assert len(pointed) >= 9
    assert set(pointed) <= set(ids)


def test_nothing_is_loaded_from_anywhere(page, content):
    loaded = [value for _, attributes in page.elements for name in ("src", "srcset") if (value := attributes.get(name))]
    assert len(loaded) > 10
    assert all(value.startswith("data:image/png;base64,") for value in loaded)
    assert page.of("link") == []
    assert [attributes for attributes in page.of("script") if attributes] == []
    outside = re.compile(r"https?://|//[a-z]|@import|url\(", re.IGNORECASE)
    text = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html(content, None))
    assert [line for line in text.splitlines() if outside.search(line) and not line.lstrip().startswith("//")] == []


def test_there_is_one_table_for_each_data_set(page):
    assert list(page.tables) == ["data-1-table", "data-2-table"]
    assert [len(table.rows) for table in page.tables.values()] == [4, 1]


def test_the_table_has_the_numbers(page):
    table = page.tables["data-1-table"]
    assert table.column("point") == [f"kernel_size={k}" for k in (3, 5, 7, 9)]
    assert table.column("kernel_size") == ["3", "5", "7", "9"]
    assert table.column("test top-1") == ["82.00", "90.00", "88.00", NOTHING]
    assert table.column("spread") == ["2.83", NOTHING, NOTHING, NOTHING]
    assert table.column("published") == ["85.00", NOTHING, "86.00", "90.00"]
    assert table.column("difference") == ["-3.00", NOTHING, "+2.00", NOTHING]
    assert table.column("training") == ["25", "50", "60", NOTHING]
    assert table.column("seeds") == ["2 of 2", "1 of 2", "1 of 2", "0 of 2"]
    assert table.column("state") == ["2 done", "1 done, 1 failed", "1 done, 1 unfinished", "1 pruned, 1 missing"]
    # h = 8, d = 1, p = 1, one grey channel, ten classes: 3h of the stem's kernel, bias and norm less one h; k²h + 3h
    # and h² + 3h of the block, 11 n of the classifier.
    assert table.column("parameters") == [f"{8 + 24 + k * k * 8 + 24 + 64 + 24 + 90:,}" for k in (3, 5, 7, 9)]
    # 64 positions; the stem, the block, and once the classifier.
    assert table.column("forward") == [
        significant(2 * (64 * (8 + 8 * k * k + 64) + 80) / 1e6).text for k in (3, 5, 7, 9)
    ]


def test_cells_say_what_they_sort_by(page):
    table = page.tables["data-1-table"]
    place = next(n for n, head in enumerate(table.heads) if head.startswith("test top-1"))
    values = [row[place] for row in table.values]
    assert [round(float(value), 6) for value in values[:3]] == [82, 90, 88]
    assert values[3] == ""
    assert table.sorts == ["none"] * len(table.heads)
    assert table.buttons == len(table.heads)


def test_every_run_without_a_result_is_there_with_the_reason(page):
    assert "8 runs" not in page.text
    assert "9 runs: 5 done, 1 unfinished, 1 failed, 1 pruned, 1 missing." in page.text
    for name, why in (("5/seed-1", "the loss was not finite"), ("9/seed-0", "worse than most at step 11"),
                      ("7/seed-1", "step 22, epoch 2 of 4"), ("9/seed-1", "not begun")):  # fmt: skip
        assert re.search(f"kernel_size={name}.*: {why}", page.text), name


def test_what_the_page_is_about_is_said(page):
    assert page.text.count("Kernel sizes") == 2  # the title and the heading
    assert "Published scores: document A, its table of kernels." in page.text
    assert "The published scores are of the full scale" in page.text
    assert "On 2 × TPU v5e; convmixer_jax 0.1.0, python 3.11.7, jax 0.10.2" in page.text
    assert "revision 0123456789ab." in page.text
    assert "metrics.jsonl: line 9 cannot be read; the other 8 rows are used" in page.text


def test_names_are_escaped(page, content):
    assert NASTY.replace("/", "⁄") in page.text
    assert len(page.of("script")) == 1
    assert "<script>alert" not in html(content, None)


def test_pictures_have_words(page):
    pictures = page.of("img")
    assert len(pictures) >= 9
    assert all(len(attributes["alt"]) > 20 and int(attributes["width"]) > 100 for attributes in pictures)
    kinds = [attributes["class"] for attributes in pictures]
    assert set(kinds) == {"by-day", "by-night"}  # and "always", of what is alike on both
    assert kinds == ["by-day", "by-night"] * (len(kinds) // 2)


def test_a_picture_that_cannot_be_drawn_says_why(page):
    assert re.search(r"Left out: .*seed-0 has no checkpoint yet", page.text)


def test_only_a_page_that_is_followed_reloads_itself(content, page):
    def refreshes(parsed):
        return [each["content"] for each in parsed.of("meta") if each.get("http-equiv") == "refresh"]

    followed = Parsed(html(content, 5))
    assert refreshes(page) == []
    assert refreshes(followed) == ["5"]
    assert "it reloads itself every 5 s" in followed.text
    assert "reloads" not in page.text


def test_markdown_says_the_same_and_is_escaped(content):
    text = markdown(content, "figures")
    assert "| kernel\\_size=3 | 3 | 306 | 0.0186 | 2 of 2 | 82.00 | 2.83 | 85.00 | -3.00 | 25 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows if "kernel\\_size=" in row and "done" in row} == {13}
    assert "<script" not in text
    assert "&lt;script&gt;alert" in text
    assert "- kernels/kernel\\_size=5/seed-1: failed: the loss was not finite" in text
    assert escape("a|b <c>\n`d` *e*") == r"a\|b &lt;c&gt; \`d\` \*e\*"


def test_figures_of_an_earlier_report_go(content, tmp_path):
    write_report(content, tmp_path, None)
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    linked = set(re.findall(r"\]\(figures/(.*?)\)", (tmp_path / "report.md").read_text()))
    assert figures == linked
    assert "data-2-goodput.png" in figures
    (tmp_path / "figures" / "data-9-mine.png").write_bytes(b"not ours")
    write_report(dataclasses.replace(content, parts=content.parts[:1]), tmp_path, None)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert left == {name for name in figures if name.startswith("data-1-")} | {"data-9-mine.png"}


def test_numbers_have_as_many_digits_as_they_deserve():
    assert [significant(value) for value in (None, 0.012345, 3.14159, 99.94, 1234.5)] == [
        Cell(NOTHING), Cell("0.0123", 0.012345), Cell("3.14", 3.14159), Cell("99.9", 99.94), Cell("1,234", 1234.5),
    ]  # fmt: skip
