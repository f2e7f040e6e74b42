"""What a split knows of its files: a digest of them, and their sizes."""

import os

import numpy as np
import pytest

from convmixer_jax.data import examples
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.errors import UserError
from tests.data.images import numbered, write_files


def test_the_digest_sees_names_sizes_labels_and_order(tmp_path):
    files = write_files(tmp_path / "here", numbered(7))
    first = files.digest()
    assert write_files(tmp_path / "elsewhere", numbered(7)).digest() == first, "not where the folder lies"
    labels = files.label.copy()
    labels[0] += 1
    others = [
        ImageFiles(files.folder, files.name, label=labels, image_shape=files.image_shape),
        ImageFiles(files.folder, files.name[::-1], label=files.label, image_shape=files.image_shape),
        files.take(np.arange(6)),
    ]
    digests = {first} | {other.digest() for other in others}
    os.rename(files.folder / "0.png", files.folder / "new.png")
    renamed = np.array(["new.png", *files.name[1:]])
    digests.add(ImageFiles(files.folder, renamed, label=files.label, image_shape=(4, 4, 3)).digest())
    os.rename(files.folder / "new.png", files.folder / "0.png")
    with open(files.folder / "3.png", "ab") as file:
        file.write(b"x")
    assert len(digests | {files.digest()}) == 6
    (files.folder / "3.png").unlink()
    with pytest.raises(UserError, match=r"3\.png cannot be read \(No such file or directory\)"):
        files.digest()


def test_a_digest_may_look_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "_FILES_IN_GO", 2)
    for n in range(5):
        (tmp_path / f"{n}.bmp").write_bytes(bytes(1000) + bytes([n]) * 100 + bytes(1000))
    names, labels = np.array([f"{n}.bmp" for n in range(5)]), np.arange(5, dtype=np.int32)
    by_name = ImageFiles(tmp_path, names, label=labels, image_shape=(4, 4, 3))
    inside = ImageFiles(tmp_path, names, label=labels, image_shape=(4, 4, 3), digest_looks_inside=True)
    before = by_name.digest(), inside.digest()
    assert before == (by_name.digest(), inside.digest())
    (tmp_path / "0.bmp").rename(tmp_path / "x")
    (tmp_path / "1.bmp").rename(tmp_path / "0.bmp")
    (tmp_path / "x").rename(tmp_path / "1.bmp")
    assert by_name.digest() == before[0], "names and sizes are as they were"
    assert inside.digest() != before[1]
    (tmp_path / "2.bmp").write_bytes(b"short")
    assert len(inside.digest()) == 64
    (tmp_path / "3.bmp").unlink()
    with pytest.raises(UserError, match=r"3\.bmp cannot be read"):
        inside.digest()


def test_sizes_are_asked_for_in_parts_and_told_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "_FILES_IN_GO", 3)
    files = write_files(tmp_path, numbered(8))
    assert list(files.sizes()) == [(f"{n}.png", (tmp_path / f"{n}.png").stat().st_size) for n in range(8)]
    assert list(files.take(np.arange(0)).sizes()) == []
