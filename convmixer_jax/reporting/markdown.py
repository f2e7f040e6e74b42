r"""A report as Markdown, with its figures in files beside it.

    write_bytes(out / "report.md", markdown(content, "figures").encode())

What comes from runs is escaped: `a|b<c` is written as `a\|b&lt;c`.
"""

import html
import re
from collections.abc import Iterator

from convmixer_jax.reporting.content import Content, Part
from convmixer_jax.reporting.pictures import Picture
from convmixer_jax.reporting.tables import Head, Table

SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def escape(text: str) -> str:
    """Returns text as Markdown that shows it as it is, in one line."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def file_name(part: Part, picture: Picture) -> str:
    """Returns the name of a picture's file."""
    return f"{part.id}-{picture.name}.png"


def head_text(head: Head) -> str:
    """Returns a head with its unit."""
    return escape(f"{head.text} ({head.unit})" if head.unit else head.text)


def table_lines(table: Table) -> Iterator[str]:
    """Yields the lines of a table; columns of numbers are aligned to the right."""
    yield f"| {' | '.join(map(head_text, table.heads))} |"
    yield f"|{'|'.join('---:' if head.numeric else '---' for head in table.heads)}|"
    for row in table.rows:
        yield f"| {' | '.join(escape(cell.text) for cell in row)} |"


def part_lines(part: Part, figures: str) -> Iterator[str]:
    """Yields what is said of one data set. figures: the folder of their files, as the report sees it."""
    yield from ("", f"## Data set {escape(part.title)}")
    for note in part.notes:
        yield from ("", escape(note))
    yield ""
    yield from table_lines(part.table)
    if part.left:
        yield from ("", "Runs without a result:", "")
        yield from (f"- {escape(name)}: {state}: {escape(why)}" for name, state, why in part.left)
    yield from ("", escape(part.best))
    for picture in part.pictures:
        yield from ("", f"### {escape(picture.title)}", "", escape(picture.caption))
        if picture.light:
            yield from ("", f"![{escape(picture.title)}]({figures}/{file_name(part, picture)})")
    yield from ("", "### What differs between the configs", "")
    yield from table_lines(part.differences) if part.differences.rows else ("Nothing.",)


def markdown(content: Content, figures: str) -> str:
    """Returns the report. figures: the folder of their files, as the report sees it."""
    lines = [f"# {escape(content.title)}", "", *map(escape, content.summary), f"Written {content.written}."]
    if content.warnings:
        lines += ["", "## Warnings", "", *(f"- {escape(warning)}" for warning in content.warnings)]
    for part in content.parts:
        lines += part_lines(part, figures)
    lines += ["", "## Hardware and versions", ""]
    lines += table_lines(content.machines) if content.machines.rows else ["No start is recorded."]
    return "\n".join(lines) + "\n"
