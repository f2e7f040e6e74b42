"""Batches of one process in its memory, made ahead of time by a tf.data pipeline: read, decode, crop, batch, prefetch.

    batches = HostBatches(examples, lambda step: batch_indices(0, step, 64, len(examples)), range(1200, 2000))
    batch = next(batches)         # that of step 1200
    batches.close()

What a batch holds is decided by `indices` alone (and by `crops`, where there are), never by which thread was the
quickest.
"""

import contextlib
import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from convmixer_jax.data.bad_examples import Replacements, check_readable, read_patiently
from convmixer_jax.data.bars import bar
from convmixer_jax.data.decode import decode_crops, decode_image
from convmixer_jax.data.examples import EncodedImages, Examples, Stored
from convmixer_jax.data.host_crops import ResizedCrop
from convmixer_jax.data.tensorflow_cpu import load_tensorflow

# Batches that are ready before they are asked for: as many as there are updates under way, and no more memory.
_AHEAD = 2
# Images that a thread reads and decodes in one go: more make no faster, and keep more memory.
_MOST_IN_PART = 32
_BAR_AFTER_S = 3.0
_TRIES = 3  # of a batch, where no fault is found in its images afterwards
_READ_AT_ONCE = 500

HostBatch = dict[str, np.ndarray]
Indices = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Crops:
    """Random crops of whole images. draws: from a step to the draws of its images, float64 [n, DRAWS]."""

    crop: ResizedCrop
    draws: Callable[[int], np.ndarray]


def reading_threads() -> int:
    """Returns the threads of a pipeline: two for each core that this process may use, since some wait for the disk."""
    return 2 * len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read to train on. crop: random ones of encoded images, None for whole images. skip_bad: whether
    the next example takes the place of one that is bad; else that is an error.
    """

    crop: ResizedCrop | None = None
    skip_bad: bool = False

    def replacements(self, examples: Stored) -> Replacements | None:
        """Returns what notes the bad ones of `examples`; None where there can be none, or they are errors."""
        if not (self.skip_bad and isinstance(examples, EncodedImages)):
            return None
        return Replacements(examples, cropped=self.crop is not None)


AS_STORED = Reading()


class HostBatches:
    """An iterator over {image uint8 [n, H, W, C], label int32 [n]}: the examples `indices(step)` for each of `steps`.

    The arrays are not to be written to. All batches but the last have the same n. `indices` is called ahead of time,
    in other threads. Threads run until `close`, or until the interpreter ends.
    crops: random ones of encoded images; None for whole images. replacements: of encoded images that are bad; None
    where these are to raise.
    """

    def __init__(
        self,
        examples: Stored,
        indices: Indices,
        steps: range,
        crops: Crops | None = None,
        replacements: Replacements | None = None,
    ):
        self._examples, self._indices, self._steps = examples, indices, steps
        self._crops, self._replacements = crops, replacements
        self._done = 0
        # Threads that call Python while the interpreter goes away make it hang, so they are ended before, at the latest
        # by `finalize`. They end with the last reference to the iterator, which is this one.
        self._iterator: list[Any] = []
        self._finalizer = weakref.finalize(self, self._iterator.clear)
        self._open()

    def _open(self) -> None:
        """Starts the pipeline at the step that comes next."""
        tf = load_tensorflow()
        steps = self._steps[self._done :]
        if isinstance(self._examples, Examples):
            dataset = _gathered(tf.data.Dataset.range(steps.start, steps.stop), self._examples, self._indices)
        else:
            dataset = _decoded(steps, self._examples, self._indices, self._crops, self._replacements)
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # it would let the buffers grow
        options.threading.private_threadpool_size = reading_threads()  # its own: they end with the iterator
        self._iterator.append(dataset.prefetch(_AHEAD).with_options(options).as_numpy_iterator())

    def __iter__(self) -> "HostBatches":
        return self

    def __next__(self) -> HostBatch:
        """Returns the next batch; raises UserError, naming the file, where one cannot be read and none replaces it."""
        for again in range(_TRIES):
            if again:
                self._open()
            try:
                batch = dict(zip(("image", "label"), next(self._iterator[0]), strict=True))
                self._done += 1
                return batch
            except load_tensorflow().errors.OpError as error:
                failure = error.with_traceback(None)  # whose frames would keep the iterator, and so its threads
                failure.__context__ = None  # as would those of TensorFlow's own first exception
            self._iterator.clear()
            self._explain(self._indices(self._steps[self._done]))
        raise failure

    def _explain(self, indices: np.ndarray) -> None:
        """Finds what is wrong with the examples of a batch that failed. From now on bad ones are replaced; where they
        are not to be, raises UserError. Where nothing is wrong, the fault has passed and the batch can be tried again.
        """
        if self._replacements is not None:
            self._replacements.learn(indices)
        elif isinstance(self._examples, EncodedImages):
            check_readable(self._examples, indices.tolist(), cropped=self._crops is not None)

    def close(self) -> None:
        """Ends the threads; no batch can be taken afterwards."""
        self._finalizer()


def _gathered(numbers: Any, examples: Examples, indices: Indices) -> Any:
    """Returns the dataset of batches that are in memory already: one call of NumPy for each."""
    tf = load_tensorflow()

    def gather(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = indices(int(step))
        return examples.image[wanted], examples.label[wanted]

    @tf.autograph.experimental.do_not_convert
    def batch(step: Any) -> Any:
        return tf.numpy_function(gather, [step], (tf.uint8, tf.int32))

    return numbers.map(batch)


def _decoded(
    steps: range, images: EncodedImages, indices: Indices, crops: Crops | None, replacements: Replacements | None
) -> Any:
    """Returns the dataset of batches of encoded images. Several threads read and decode, each a part of a batch."""
    tf = load_tensorflow()
    threads, batch_size, shape = reading_threads(), len(indices(steps.start)), images.image_shape
    # More threads that decode than cores would only hand the interpreter's lock around; waiting for a disk is free.
    decoding = threading.BoundedSemaphore(max(1, threads // 2))
    in_part = min(_MOST_IN_PART, -(-batch_size // threads))
    parts = -(-batch_size // in_part)

    @functools.lru_cache(maxsize=2 * threads)  # the parts of a batch ask for the same
    def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = indices(step) if replacements is None else replacements.of(indices(step))
        return wanted, np.zeros((len(wanted), 0)) if crops is None else crops.draws(step)

    def read(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step, part = divmod(int(number), parts)
        wanted, draws = (row[part * in_part : (part + 1) * in_part] for row in rows(step))
        contents = [read_patiently(images, index) for index in wanted.tolist()]
        with decoding:
            if crops is not None:
                return decode_crops(contents, draws, shape, crops.crop), images.label[wanted]
            image = np.empty((len(wanted), *shape), np.uint8)
            for row, content in enumerate(contents):
                image[row] = decode_image(content, shape, images.crop_pct)
        return image, images.label[wanted]

    @tf.autograph.experimental.do_not_convert
    def part(number: Any) -> Any:
        image, label = tf.numpy_function(read, [number], (tf.uint8, tf.int32))
        return tf.ensure_shape(image, [None, *shape]), tf.ensure_shape(label, [None])

    numbers = tf.data.Dataset.range(steps.start * parts, min(steps.stop * parts, np.iinfo(np.int64).max))
    return numbers.map(part, num_parallel_calls=threads).rebatch(batch_size)


def in_memory(examples: Stored, replacements: Replacements | None = None) -> Examples:
    """Returns the examples in memory: files are decoded, as the stream does it, N * H * W * C bytes.

    replacements: of bad ones, as for `HostBatches`. Shows a bar where it takes more than some seconds. Raises
    UserError, naming the file, where one cannot be read and none replaces it.
    """
    if isinstance(examples, Examples):
        return examples
    count = len(examples)
    image, label = np.empty((count, *examples.image_shape), np.uint8), np.empty(count, np.int32)
    starts = range(0, count, _READ_AT_ONCE)
    batches = HostBatches(
        examples,
        lambda number: np.arange(starts[number], min(starts[number] + _READ_AT_ONCE, count)),
        range(len(starts)),
        replacements=replacements,
    )
    shown = bar("reading images", total=count, unit=" images", delay_s=_BAR_AFTER_S)
    with contextlib.closing(batches), shown:
        for start, batch in zip(starts, batches, strict=True):
            end = start + len(batch["image"])
            image[start:end], label[start:end] = batch["image"], batch["label"]
            shown.update(len(batch["image"]))
    return Examples(image, label)
