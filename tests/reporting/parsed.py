"""A page as Python's own parser reads it: what a test looks at without a browser.

page = Parsed(text)
page.tables["data-1-table"].column("test top-1")
"""

import dataclasses
from html.parser import HTMLParser

VOID = {"meta", "input", "img", "source", "br", "link", "hr"}


@dataclasses.dataclass
class Grid:
    """A table: the text of its heads, and of each row's cells with what they sort by."""

    heads: list[str] = dataclasses.field(default_factory=list)
    sorts: list[str | None] = dataclasses.field(default_factory=list)
    buttons: int = 0
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    values: list[list[str | None]] = dataclasses.field(default_factory=list)

    def column(self, head: str) -> list[str]:
        """The cells under a head, by the words that it begins with."""
        [place] = [n for n, text in enumerate(self.heads) if text.startswith(head)]
        return [row[place] for row in self.rows]


class Parsed(HTMLParser):
    """elements: (tag, attributes) of all. text: of all. unclosed: tags that were never closed, or closed wrongly."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, Grid] = {}
        self.plain: list[Grid] = []
        self.text = ""
        self.unclosed: list[str] = []
        self._open: list[str] = []
        self._grid = Grid()
        self.feed(page)
        self.unclosed += self._open

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._grid = Grid()
            if attributes.get("id"):
                self.tables[attributes["id"]] = self._grid
            else:
                self.plain.append(self._grid)
        elif tag == "tr" and "tbody" in self._open:
            self._grid.rows.append([])
            self._grid.values.append([])
        elif tag in ("td", "th") and "tbody" in self._open:
            self._grid.rows[-1].append("")
            self._grid.values[-1].append(attributes.get("data-value"))
        elif tag == "th":
            self._grid.heads.append("")
            self._grid.sorts.append(attributes.get("aria-sort"))
        elif tag == "button" and "thead" in self._open:
            self._grid.buttons += 1

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unclosed.append(f"/{tag}")

    def handle_data(self, data):
        if self._open and self._open[-1] in ("style", "script"):
            return
        self.text += data
        if "td" in self._open or ("th" in self._open and "tbody" in self._open):
            self._grid.rows[-1][-1] += data
        elif "th" in self._open:
            self._grid.heads[-1] += data
