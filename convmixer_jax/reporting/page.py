"""A report as one HTML file that needs nothing else: no network, no other file.

    write_bytes(out / "report.html", html(content, reload_seconds=None).encode())

Names of runs, reasons of failures and the like are data: all of it is escaped.
"""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from convmixer_jax.reporting.content import Content


def data_url(png: bytes) -> str:
    """Returns a PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def html(content: Content, reload_seconds: int | None) -> str:
    """Returns the page. reload_seconds: after how many it loads itself anew; None for never."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = data_url
    return environment.get_template("report.html").render(content=content, reload_seconds=reload_seconds)
