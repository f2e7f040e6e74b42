"""An export from beginning to end: the files, the comparison with the model, what smaller models cost and win.

done = export(weights, Request("onnx", Path("model.onnx"), int8=Path("model.int8.onnx"), ...))
print("\n".join(table(done)))
"""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convmixer_jax.exporting.comparison import difference, quickest
from convmixer_jax.exporting.formats import FORMATS, Run
from convmixer_jax.exporting.pruning import pruned
from convmixer_jax.exporting.study import Study
from convmixer_jax.inference.loading import Weights
from convmixer_jax.measuring.machine import describe_processor


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be written. format: a row of FORMATS; int8: of "onnx" alone, None for no such file.

    prune: files by the fraction of the kernels' weights that becomes zero. calibration_images: training images that
    the quantisation looks at. batch_sizes, repetitions: how int8 is timed.
    """

    format: str
    file: Path
    int8: Path | None
    prune: Mapping[float, Path]
    data_dir: Path
    calibration_images: int
    batch_sizes: tuple[int, ...]
    repetitions: int


def write(weights: Weights, name: str, path: Path, expected: Run) -> dict[str, Any]:
    """Writes a file and compares it with the model; returns its path, its bytes and the largest difference.

    A file that differs too much is not kept, and what was at `path` stays.
    """
    file_format = FORMATS[name]
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        written = Path(folder) / path.name
        file_format.write(weights, written)
        differs = difference(file_format.load(written), expected, weights.description.image_shape)
        for new, target in zip(file_format.files(written), file_format.files(path), strict=True):
            new.replace(target)
    return {"path": str(path), "bytes": path.stat().st_size, "difference": differs}


def quantised(request: Request, target: Path, study: Study) -> dict[str, Any]:
    """Writes the int8 model of the ONNX file; returns its path, its bytes and its accuracy."""
    from convmixer_jax.exporting.quantisation import quantise

    quantise(request.file, target, study.calibration(request.calibration_images))
    top1 = study.top1(FORMATS["onnx"].load(target))
    return {"path": str(target), "bytes": target.stat().st_size, "top1": top1}


def timed(request: Request, in_jax: Run, int8: Path, study: Study) -> dict[str, Any]:
    """Returns milliseconds per call of JAX, the ONNX file and the int8 one, by batch size, and what they ran on."""
    load = FORMATS["onnx"].load
    runs = {"jax": in_jax, "onnx": load(request.file), "int8": load(int8)}
    rows = [
        {"batch_size": size, "milliseconds": study.milliseconds(runs, size, request.repetitions)}
        for size in request.batch_sizes
    ]
    return {**describe_processor(), "repetitions": request.repetitions, "rows": rows}


def export(weights: Weights, request: Request) -> dict[str, Any]:
    """Writes the files; returns what is told of them. Raises UserError.

    The accuracies, fractions of the test split, are there where a smaller model is asked for.
    """
    with_variables = quickest(weights.description)
    in_jax = with_variables(weights.variables)
    done: dict[str, Any] = {"source": weights.description.source, "format": request.format}
    study = Study(weights.description, request.data_dir) if request.int8 or request.prune else None
    done["model"] = write(weights, request.format, request.file, in_jax)
    done["notes"] = FORMATS[request.format].notes(weights.description)
    if study is None:
        return done
    done["model"]["top1"] = study.top1(in_jax)
    if request.int8:
        done["int8"] = quantised(request, request.int8, study)
        done["speed"] = timed(request, in_jax, request.int8, study)
    done["pruned"] = []
    for fraction, path in request.prune.items():
        variables = weights.variables | {"params": pruned(weights.variables["params"], fraction)}
        smaller, run = dataclasses.replace(weights, variables=variables), with_variables(variables)
        row = write(smaller, request.format, path, run)
        done["pruned"].append({"fraction": fraction, **row, "top1": study.top1(run)})
    return done


def accuracy_lines(done: Mapping[str, Any]) -> Iterator[str]:
    """Yields the table of the files."""
    rows = [("float32", done["model"])]
    rows += [("int8", done["int8"])] if "int8" in done else []
    rows += [(f"{row['fraction']:g} of the kernels pruned", row) for row in done.get("pruned", [])]
    width = max(len(name) for name, _ in rows)
    yield f"{'':<{width}}  {'bytes':>11}  {'top-1':>6}  {'lost':>6}  file"
    for name, row in rows:
        top1, lost = f"{'-':>6}", f"{'-':>6}"
        if "top1" in row:
            top1, lost = f"{row['top1']:>6.4f}", f"{done['model']['top1'] - row['top1']:>6.4f}"
        yield f"{name:<{width}}  {row['bytes']:>11,}  {top1}  {lost}  {row['path']}"


def speed_lines(speed: Mapping[str, Any]) -> Iterator[str]:
    """Yields the table of the times."""
    yield f"{'images':>6}  {'what':<5}  {'ms a call':>9}  {'quartiles':>19}  {'speed over onnx':>15}"
    for row in speed["rows"]:
        times = row["milliseconds"]
        for name, time in times.items():
            quartiles = f"{time['low']:.2f} - {time['high']:.2f}"
            ratio = times["onnx"]["median"] / time["median"]
            yield f"{row['batch_size']:>6}  {name:<5}  {time['median']:>9.2f}  {quartiles:>19}  {ratio:>15.2f}"
    yield (
        f"{speed['processor']}, {speed['cores']} cores; {speed['repetitions']} calls of each in turn, medians; "
        "onnx and int8 by onnxruntime, each program with the threads that it takes by itself"
    )


def table(done: Mapping[str, Any]) -> list[str]:
    """Returns what a person reads of an export."""
    lines = list(accuracy_lines(done))
    if "speed" in done:
        lines += speed_lines(done["speed"])
    lines += done["notes"]
    return [*lines, f"logits differ from the model's by at most {done['model']['difference']:.1e}"]
