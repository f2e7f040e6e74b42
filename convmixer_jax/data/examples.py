"""A split as it is stored: arrays in memory, or the files of its images.

Both have `label`, a length, `take`, and a `digest` by which a resumed run knows its data.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from convmixer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Examples:
    """A split in memory: image uint8 [N, H, W, C], label int32 [N]."""

    image: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.image.shape[1:]

    def take(self, indices: np.ndarray) -> "Examples":
        """Returns the examples at `indices`, copied."""
        return Examples(self.image[indices], self.label[indices])

    def digest(self) -> str:
        """Returns the SHA-256 of all pixels and labels in their order, in hexadecimal."""
        sha = hashlib.sha256(np.ascontiguousarray(self.image).data)
        sha.update(np.ascontiguousarray(self.label, dtype="<i4").data)
        return sha.hexdigest()


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """A split as image files, JPEG or PNG of any size, which are read as (H, W, C) = image_shape (see decode.py).

    folder: of the data set. name: str [N], the files as seen from there, with "/". label: int32 [N].
    crop_pct: share of the shorter side of an image of another size that is looked at.
    """

    folder: Path
    name: np.ndarray
    label: np.ndarray
    image_shape: tuple[int, int, int]
    crop_pct: float = 1.0

    def __len__(self) -> int:
        return len(self.label)

    def take(self, indices: np.ndarray) -> "ImageFiles":
        """Returns the examples at `indices`."""
        return dataclasses.replace(self, name=self.name[indices], label=self.label[indices])

    def paths(self, indices: np.ndarray | slice = slice(None)) -> list[Path]:
        """Returns the files at `indices`."""
        return [self.folder / name for name in self.name[indices]]

    def digest(self) -> str:
        """Returns the SHA-256 of all names, sizes in bytes and labels in their order, in hexadecimal.

        It is the same wherever the folder lies, and quick, since no file is opened: other bytes of the same number are
        not noticed. Raises UserError for a file that is missing.
        """
        sha = hashlib.sha256()
        for name, path in zip(self.name, self.paths(), strict=True):
            try:
                sha.update(f"{name}\0{path.stat().st_size}\n".encode())
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}): put it back, or take it anew") from error
        sha.update(np.ascontiguousarray(self.label, dtype="<i4").data)
        return sha.hexdigest()
