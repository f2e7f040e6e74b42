"""The likeliest classes of many images: read by threads while the device computes, a batch at a time.

for prediction in predict_images(load_weights("runs/cifar10"), ["cat.jpg", "dog.png"], top=5, batch_size=32):
    print(prediction.file, prediction.top or prediction.error)
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from convmixer_jax.errors import UserError
from convmixer_jax.inference.examination import is_finite, probabilities
from convmixer_jax.inference.loading import Loaded
from convmixer_jax.inference.preprocess import make_preprocess
from convmixer_jax.inference.program import compile_model, memory_mistakes


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A class that an image may be of. index: 0 to classes - 1. probability: 0 to 1."""

    name: str
    index: int
    probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is said of a file: its likeliest classes, the likeliest first, or why there is nothing to say."""

    file: str
    top: tuple[Candidate, ...] = ()
    error: str | None = None


def rounded_batch_size(images: int, batch_size: int) -> int:
    """Returns how many are computed at once: `batch_size`, or where there are fewer images the next power of two.

    So a start has one program, and all starts together have few in the cache of compiled ones.
    """
    return min(batch_size, 1 << (images - 1).bit_length())


def read_ahead(
    files: Sequence[str], batch_size: int, read: Callable[[str], np.ndarray]
) -> Iterator[list[tuple[str, Future[np.ndarray]]]]:
    """Yields batches of files with what `read` makes of each, while threads read those of the following batch."""
    pool = ThreadPoolExecutor()
    try:
        ahead: list[tuple[str, Future[np.ndarray]]] = []
        for start in range(0, len(files), batch_size):
            following = [(file, pool.submit(read, file)) for file in files[start : start + batch_size]]
            if ahead:
                yield ahead
            ahead = following
        yield ahead
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def candidates(shares: np.ndarray, names: Sequence[str], top: int) -> tuple[Candidate, ...]:
    """Returns the likeliest classes of one image, the likeliest first. shares: probabilities [classes]."""
    order = np.argsort(-shares, kind="stable")[:top]
    return tuple(Candidate(names[index], int(index), float(shares[index])) for index in order)


def predict_images(loaded: Loaded, files: Sequence[str], top: int, batch_size: int) -> Iterator[Prediction]:
    """Yields what the model says of each file, in their order; of a file that is no image, why it cannot be used.

    files: one or more. top: how many classes to tell, at most all of them. batch_size: images computed at once.
    Raises UserError where so many do not fit into memory.
    """
    description = loaded.description
    names = description.class_names or [str(index) for index in range(description.num_classes)]
    preprocess = make_preprocess(description)
    size = rounded_batch_size(len(files), batch_size)
    with memory_mistakes(size, description.image_shape):
        levels = np.zeros((size, *description.image_shape), np.uint8)
    program = compile_model(loaded.model, loaded.ops)
    for batch in read_ahead(files, size, preprocess.levels):
        errors: list[str | None] = [None] * len(batch)
        for row, (_, image) in enumerate(batch):
            try:
                levels[row] = image.result()
            except UserError as error:
                errors[row] = str(error)
        if all(errors):
            yield from (Prediction(file, error=error) for (file, _), error in zip(batch, errors, strict=True))
            continue
        with memory_mistakes(size, description.image_shape):
            # All rows, also those that hold nothing or an earlier image: so there is but one program.
            logits = np.asarray(program(loaded.variables, preprocess.normalise(levels)))
        finite = is_finite(logits)
        shares = probabilities(np.where(finite[:, None], logits, 0))
        for row, (file, _) in enumerate(batch):
            if errors[row]:
                yield Prediction(file, error=errors[row])
            elif not finite[row]:
                yield Prediction(file, error=f"{file}: the model's logits for it are NaN or infinite")
            else:
                yield Prediction(file, candidates(shares[row], names, top))
