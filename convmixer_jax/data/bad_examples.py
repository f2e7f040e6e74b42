"""Images that cannot be read: found and named, and in training replaced where that is asked for.

check_readable(images, indices)              # raises UserError for the first bad one
instead = Replacements(images)
if instead.learn(indices):                   # there were bad ones that were not known before
    indices = instead.of(indices)

What another try may change (a disk or network that fails for a moment, too many open files) makes no image bad.
"""

import dataclasses
import errno
import sys
import time
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from convmixer_jax.data.decode import decode_image, decode_levels
from convmixer_jax.data.examples import EncodedImages
from convmixer_jax.errors import UserError

# What is so of the file itself, for every process and at any time.
_LASTING = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EBADMSG))
_PAUSES_S = (0.1, 1.0, 5.0)  # between tries: a network disk that changes servers is away for seconds


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with an image. words: a sentence without its name. lasting: whether it is the image's own; else
    the disk, the network or the system fails, which says nothing about the image.
    """

    words: str
    lasting: bool


def read_patiently(images: EncodedImages, index: int) -> bytes:
    """Returns the bytes of the image at `index`; tries again for seconds where that may help. Raises OSError."""
    for pause_s in _PAUSES_S:
        try:
            return images.read(index)
        except OSError as error:
            if error.errno in _LASTING:
                raise
        time.sleep(pause_s)
    return images.read(index)


def fault(images: EncodedImages, index: int, cropped: bool = False) -> Fault | None:
    """Returns what is wrong with the image at `index`; None where it can be used.

    cropped: whether crops of the whole image are used; else the image as it is evaluated.
    """
    try:
        content = read_patiently(images, index)
    except OSError as error:
        reason = error.strerror or error
        if error.errno in _LASTING:
            return Fault(f"cannot be read ({reason}): put it back, or take it anew", lasting=True)
        tried = f"cannot be read ({reason}), tried {len(_PAUSES_S) + 1} times in {sum(_PAUSES_S):.0f} s"
        return Fault(f"{tried}: see to the disk, the network or the system's limits, and run again", lasting=False)
    try:
        if cropped:
            decode_levels(content, images.image_shape[2])
        else:
            decode_image(content, images.image_shape, images.crop_pct)
    except MemoryError:
        raise  # which is not the image's fault
    except Exception as error:  # Pillow's readers of damaged files raise almost anything
        words = f"({len(content):,} bytes) is damaged or no image ({reason_of(error)}): put a whole one in its place"
        return Fault(words, lasting=True)
    return None


def reason_of(error: Exception) -> str:
    """Returns in the words of Pillow, or of whatever decoded it, why bytes make no image, in one line."""
    words = str(error).partition(" <_io")[0].splitlines()  # of a file it would tell the address in memory
    return words[0] if words else type(error).__name__


def check_readable(images: EncodedImages, indices: Iterable[int], cropped: bool = False) -> None:
    """Raises UserError, naming the first of the images at `indices` that is missing, unreadable, or no whole image.

    It reads them one by one: it is for finding out which one made a pipeline fail, since its own error does not say.
    cropped: as for `fault`.
    """
    for index in indices:
        found = fault(images, index, cropped)
        if found is not None:
            raise UserError(f"{images.called(index)} {found.words}")


class Replacements:
    """For each bad example that has come up, the next one in the order of storage that is not bad; after the last
    comes the first.

    Which one that is follows from the data alone, so every process, thread and resumed run finds the same.
    cropped: as for `fault`.
    """

    def __init__(self, images: EncodedImages, cropped: bool = False):
        self._images, self._cropped = images, cropped
        self._instead: dict[int, int] = {}

    def of(self, indices: np.ndarray) -> np.ndarray:
        """Returns `indices`, [n], with what comes instead of the bad examples that are known."""
        if not self._instead:
            return indices
        return np.array([self._instead.get(index, index) for index in indices.tolist()], indices.dtype)

    def count(self, indices: np.ndarray) -> int:
        """Returns how many of the examples at `indices` are known to be bad."""
        return sum(index in self._instead for index in indices.tolist()) if self._instead else 0

    def learn(self, indices: np.ndarray) -> bool:
        """Reads the examples at `indices` one by one; returns whether there are bad ones that were not known.

        Each is told on standard error. Raises UserError where no example of all is left, or where disk, network or
        system fail, so that nobody can say which ones are bad.
        """
        before = len(self._instead)
        for index in indices.tolist():
            if index not in self._instead and self._is_bad(index):
                self._replace(index)
        return len(self._instead) > before

    def _is_bad(self, index: int) -> bool:
        found = fault(self._images, index, self._cropped)
        if found is None:
            return False
        name = self._images.called(index)
        if not found.lasting:
            raise UserError(f"{name} {found.words}")
        line = f"warning: {name} {found.words}; the next example is taken instead (config.on_bad_example)"
        tqdm.write(line, file=sys.stderr)
        return True

    def _replace(self, bad: int) -> None:
        """Finds what comes instead of `bad`, and of the bad ones that follow it."""
        found, count = [bad], len(self._images)
        following = (bad + 1) % count
        while following not in self._instead and following != bad and self._is_bad(following):
            found.append(following)
            following = (following + 1) % count
        if following == bad:
            raise UserError(
                f"all {count} images are bad, {self._images.called(bad)} among them: take the data set anew"
            )
        good = self._instead.get(following, following)
        self._instead.update(dict.fromkeys(found, good))
