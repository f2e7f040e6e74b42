"""The table of results, as Markdown, and its place in a document.

    lines = table_lines(read_records(Path("results")))
    text = placed(readme, lines, "README.md")

The place is between two comments, which stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from convmixer_jax.errors import UserError
from convmixer_jax.publishing.record import fields_of
from convmixer_jax.reporting.markdown import escape
from convmixer_jax.runs.progress import duration

BEGIN, END = "<!-- results: made by `results table --write` -->", "<!-- end of results -->"
HEADS = ("result", "model", "epochs", "published", "here", "gap", "seeds", "time a seed", "on")


def percent(share: float) -> str:
    """Returns 0.926 as 92.60."""
    return f"{100 * share:.2f}"


def model_of(record: Mapping[str, Any]) -> str:
    """Returns what was trained on what, and in which dtype: "cifar10, 256/8 p2 k5, 594,186 parameters, bfloat16"."""
    fields = fields_of(record)
    sizes = (
        f"{fields['model.dim']}/{fields['model.depth']} p{fields['model.patch_size']} k{fields['model.kernel_size']}"
    )
    variant = fields["model.variant"]
    named = sizes if variant == "convmixer" else f"{variant} {sizes}"
    params = record.get("params")
    told = [fields["dataset"], named, *([f"{params:,} parameters"] if params else [])]
    return ", ".join(told + ([fields["dtype"]] if fields["dtype"] != "float32" else []))


def cells(record: Mapping[str, Any]) -> Iterator[str]:
    """Yields a record's cells in the order of HEADS."""
    published, mean, spread = record.get("published"), record["top1_mean"], record.get("top1_spread")
    times = [seconds for seconds in record.get("seconds_per_seed", []) if seconds is not None]
    yield f"`{record['name']}`"
    yield escape(model_of(record))
    yield f"{record['epochs']:g}"
    yield percent(published["top1"]) if published else "-"
    yield f"**{percent(mean)}**" + (f" ± {percent(spread)}" if spread is not None else "")
    yield f"{100 * (mean - published['top1']):+.2f}" if published else "-"
    yield str(len(record["seeds"]))
    yield duration(sum(times) / len(times)) if times else "-"
    yield escape("; ".join(record.get("hardware", [])))


def table_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of the table, a row for each record, and one with sources and notes for each that has some.

    Raises UserError for a record that lacks what a row shows.
    """
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    for record in records:
        try:
            lines.append(f"| {' | '.join(cells(record))} |")
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            wrong = f"{record['name']}.json is no result: a field is not as `results add` wrote it ({error!r})"
            raise UserError(wrong) from error
    for record in records:
        told = [f"published in {record['published']['source']}"] if record.get("published") else []
        told += [record["note"]] if record.get("note") else []
        if told:
            lines += ["", f"`{record['name']}`: {'; '.join(map(escape, told))}."]
    return lines


def placed(text: str, lines: Sequence[str], what: str) -> str:
    """Returns a document with the lines between its comments. what: the document's name, for errors.

    Raises UserError where the comments are not there once each, in their order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(f"{what} has no place for the table: put the lines {BEGIN} and {END} where it is to be")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    return "\n".join([before + BEGIN, "", *lines, "", after])
