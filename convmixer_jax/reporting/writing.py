"""Writes a report into a folder: report.html, report.md and the figures of the latter.

    write_report(content, Path("report"), reload_seconds=None)

Each file is replaced in one move, the page last: whoever looks meanwhile sees the old one or the new one.
"""

from pathlib import Path

from convmixer_jax.inference.pictures import remove_earlier
from convmixer_jax.reporting.content import Content
from convmixer_jax.reporting.markdown import file_name, markdown
from convmixer_jax.reporting.page import html
from convmixer_jax.runs.files import write_bytes

FIGURES = "figures"


def write_report(content: Content, out: Path, reload_seconds: int | None) -> None:
    """Writes the report. out: a folder that is there. reload_seconds: see `html`. Raises OSError."""
    folder = out / FIGURES
    folder.mkdir(exist_ok=True)
    written = []
    for part in content.parts:
        for picture in part.pictures:
            if picture.light:
                written.append(folder / file_name(part, picture))
                write_bytes(written[-1], picture.light)
    remove_earlier(folder, r"data-\d+-[a-z0-9-]+\.png", written)
    write_bytes(out / "report.md", markdown(content, FIGURES).encode())
    write_bytes(out / "report.html", html(content, reload_seconds).encode())
