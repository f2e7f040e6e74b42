"""Tell what images show: `python -m convmixer_jax.predict --workdir runs/cifar10 cat.jpg photos "more/*.png"`.

Images may have any size, mode and rotation. Folders are searched with all below them. Results go to standard output;
a file that cannot be used is named on standard error, the others go on, and the exit code is 2.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from convmixer_jax.commands import Parser, count, end_process, run_command, start_jax
from convmixer_jax.errors import ExitCode
from convmixer_jax.inference.image_files import find_images
from convmixer_jax.runs.files import to_json
from convmixer_jax.runs.progress import Progress, printable, show, tell

if TYPE_CHECKING:  # it imports JAX
    from convmixer_jax.inference.prediction import Prediction


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("convmixer_jax.predict", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--workdir", required=True, help="trained weights: a run's workdir, a converted directory, a file, hub:ORG/NAME"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder, or a pattern in quotes")
    parser.add_argument("--top", type=count, default=5, help="likeliest classes to tell (5)")
    parser.add_argument("--batch_size", type=count, default=32, help="images that are computed at once (32)")
    parser.add_argument("--json", action="store_true", help="the last line is one object")
    return parser


def show_table(predictions: Iterable["Prediction"], files: Sequence[str]) -> list["Prediction"]:
    """Prints predictions of `files` as they come, errors on standard error; returns all of them."""
    width = max(len(printable(file)) for file in files)
    show(f"{'file':<{width}}  probability  class")
    done = []
    with Progress(len(files), 0, 1) as progress:
        for prediction in predictions:
            if prediction.error:
                tell(f"error: {printable(prediction.error)}")
            for place, candidate in enumerate(prediction.top):
                name = "" if place else printable(prediction.file)
                show(f"{name:<{width}}  {candidate.probability:>11.2%}  {printable(candidate.name)}")
            done.append(prediction)
            progress.advance(1)
    return done


def as_record(predictions: Iterable["Prediction"], errors: Mapping[str, str]) -> dict[str, Any]:
    """Returns what --json prints. errors: of the places that lead to no file."""
    told, failed = [], [{"file": place, "error": error} for place, error in errors.items()]
    for prediction in predictions:
        top = [{"class": each.name, "index": each.index, "probability": each.probability} for each in prediction.top]
        if prediction.error:
            failed.append({"file": prediction.file, "error": prediction.error})
        else:
            told.append({"file": prediction.file, "top": top})
    return {"predictions": told, "errors": failed}


def run(argv: Sequence[str] | None) -> ExitCode:
    """Predicts what the command line names; raises UserError."""
    flags = make_parser().parse_args(argv)
    files, errors = find_images(flags.images)
    for error in errors.values():
        tell(f"error: {printable(error)}")
    predictions = []
    if files:
        start_jax(compilation_cache=True)
        from convmixer_jax.inference.loading import load_weights
        from convmixer_jax.inference.prediction import predict_images

        loaded = load_weights(flags.workdir)
        predictions = show_table(predict_images(loaded, files, flags.top, flags.batch_size), files)
    if flags.json:
        show(json.dumps(to_json(as_record(predictions, errors)), allow_nan=False))
    failed = errors or any(prediction.error for prediction in predictions)
    return ExitCode.USER_MISTAKE if failed else ExitCode.DONE


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command line; returns the exit code."""
    return run_command(lambda stop: run(argv))


if __name__ == "__main__":
    end_process(main())
