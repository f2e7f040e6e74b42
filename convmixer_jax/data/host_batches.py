"""Batches of one process in its memory, made ahead of time by a tf.data pipeline: read, decode, crop, batch, prefetch.

    batches = HostBatches(examples, lambda step: batch_indices(0, step, 64, len(examples)), range(1200, 2000))
    batch = next(batches)         # that of step 1200
    batches.close()

What a batch holds is decided by `indices` alone, never by which thread was the quickest.
"""

import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from convmixer_jax.data.decode import check_readable, read_image
from convmixer_jax.data.examples import Examples, ImageFiles
from convmixer_jax.data.tensorflow_cpu import load_tensorflow

# Batches that are ready before they are asked for: as many as there are updates under way, and no more memory.
_AHEAD = 2
_BAR_AFTER_S = 3.0
_READ_AT_ONCE = 500

HostBatch = dict[str, np.ndarray]
Indices = Callable[[int], np.ndarray]


def reading_threads() -> int:
    """Returns the threads of a pipeline: two for each core that this process may use, since some wait for the disk."""
    return 2 * len(os.sched_getaffinity(0))


class HostBatches:
    """An iterator over {image uint8 [n, H, W, C], label int32 [n]}: the examples `indices(step)` for each of `steps`.

    The arrays are not to be written to. All batches but the last have the same n. `indices` is called ahead of time,
    in another thread. Threads run until `close`, or until the interpreter ends.
    """

    def __init__(self, examples: Examples | ImageFiles, indices: Indices, steps: range):
        self._examples, self._indices, self._steps = examples, indices, iter(steps)
        tf = load_tensorflow()
        numbers = tf.data.Dataset.range(steps.start, steps.stop)
        if isinstance(examples, Examples):
            dataset = _gathered(numbers, examples, indices)
        else:
            dataset = _decoded(numbers, examples, indices, len(indices(steps.start)))
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False  # it would let the buffers grow
        options.threading.private_threadpool_size = reading_threads()  # its own: they end with the iterator
        iterator = dataset.prefetch(_AHEAD).with_options(options).as_numpy_iterator()
        # Threads that call Python while the interpreter goes away make it hang, so they are ended before, at the latest
        # by `finalize`. They end with the last reference to the iterator, which is this one.
        self._iterator = [iterator]
        self._finalizer = weakref.finalize(self, self._iterator.clear)

    def __iter__(self) -> "HostBatches":
        return self

    def __next__(self) -> HostBatch:
        """Returns the next batch; raises UserError, naming the file, where one cannot be read."""
        step = next(self._steps)
        try:
            return dict(zip(("image", "label"), next(self._iterator[0]), strict=True))
        except load_tensorflow().errors.OpError as error:
            failure = error.with_traceback(None)  # whose frames would keep the iterator, and so its threads
            failure.__context__ = None  # as would those of TensorFlow's own first exception
        self.close()
        if isinstance(self._examples, ImageFiles):
            check_readable(self._examples.paths(self._indices(step)), self._examples.image_shape)
        raise failure

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


def _decoded(numbers: Any, files: ImageFiles, indices: Indices, batch_size: int) -> Any:
    """Returns the dataset of batches of files, read and decoded by several threads."""
    tf = load_tensorflow()

    def look_up(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = indices(int(step))
        return np.array([os.fsencode(path) for path in files.paths(wanted)], object), files.label[wanted]

    @tf.autograph.experimental.do_not_convert
    def batch_of_paths(step: Any) -> Any:
        paths, labels = tf.numpy_function(look_up, [step], (tf.string, tf.int32))
        return tf.ensure_shape(paths, [None]), tf.ensure_shape(labels, [None])

    @tf.autograph.experimental.do_not_convert
    def read(path: Any, label: Any) -> Any:
        return read_image(path, files.image_shape, files.crop_pct), label

    under_way = 2 * reading_threads()  # so that a thread finds work while the next image in order is not ready yet
    return numbers.map(batch_of_paths).unbatch().map(read, num_parallel_calls=under_way).batch(batch_size)


def in_memory(examples: Examples | ImageFiles) -> Examples:
    """Returns the examples in memory: files are decoded, as the stream does it, N * H * W * C bytes.

    Shows a bar where it takes more than some seconds. Raises UserError, naming the file, where one cannot be read.
    """
    if isinstance(examples, Examples):
        return examples
    count = len(examples)
    image = np.empty((count, *examples.image_shape), np.uint8)
    starts = range(0, count, _READ_AT_ONCE)
    batches = HostBatches(
        examples,
        lambda number: np.arange(starts[number], min(starts[number] + _READ_AT_ONCE, count)),
        range(len(starts)),
    )
    interval_s = 0.2 if sys.stderr.isatty() else 30.0  # a line in a log file stays; keep them few
    bar = tqdm(
        desc=f"reading {examples.folder.name}",
        total=count,
        unit=" images",
        delay=_BAR_AFTER_S,
        mininterval=interval_s,
        file=sys.stderr,
    )
    with contextlib.closing(batches), bar:
        for start, batch in zip(starts, batches, strict=True):
            image[start : start + _READ_AT_ONCE] = batch["image"]
            bar.update(len(batch["image"]))
    return Examples(image, examples.label)
