"""A small made-up Tiny ImageNet, of noise, as a folder and as the zip archive of it."""

import dataclasses
import functools
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.sources.prepared import prefer_prepared
from convmixer_jax.data.sources.tiny_imagenet import TINY_IMAGENET, find_tiny_imagenet, load_tiny_imagenet
from convmixer_jax.preparing import preparations
from convmixer_jax.preparing.decoded import prepare_tiny_imagenet, source_of_tiny_imagenet

WNIDS = ("n03", "n01", "n02")
SPEC = dataclasses.replace(
    TINY_IMAGENET, classes=WNIDS, per_class={"train": 5, "test": 2}, image_shape=(16, 16, 3), url="http://127.0.0.1:9/x"
)
SIZES = {"train": 15, "test": 6}


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(levels).save(path, format="JPEG")


def write_tiny(data_dir: Path) -> Path:
    """Writes the folder into data_dir; validation image n is of class n // 2. Returns the folder."""
    folder = data_dir / SPEC.folder
    for label, wnid in enumerate(WNIDS):
        for k in range(5):
            write_image(folder / f"train/{wnid}/images/{wnid}_{k}.JPEG", 10 * label + k)
    for n in range(6):
        write_image(folder / f"val/images/val_{n}.JPEG", 100 + n)
    rows = [f"val_{n}.JPEG\t{WNIDS[n // 2]}\t0\t0\t7\t7\n" for n in range(6)]
    (folder / "val/val_annotations.txt").write_text("".join(rows))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    return folder


def write_zip(folder: Path, archive: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Writes the archive of the folder, which it holds by its own name; returns it."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", compression) as opened:
        for path in sorted(folder.rglob("*")):
            opened.write(path, path.relative_to(folder.parent).as_posix())
    return archive


def use_small_tiny(monkeypatch: pytest.MonkeyPatch, md5: str = "0" * 32) -> None:
    """From here on `tiny_imagenet` is the small one, in the tables of data sets and of preparations."""
    load = functools.partial(load_tiny_imagenet, spec=SPEC)
    find = functools.partial(find_tiny_imagenet, spec=SPEC)
    row = dataclasses.replace(
        DATASETS["tiny_imagenet"],
        load=prefer_prepared("tiny_imagenet", load, find),
        num_examples=SIZES,
        image_shape=SPEC.image_shape,
        class_names=WNIDS,
    )
    monkeypatch.setitem(DATASETS, "tiny_imagenet", row)
    preparation = dataclasses.replace(
        preparations.PREPARATIONS["tiny_imagenet"],
        prepare=functools.partial(prepare_tiny_imagenet, spec=SPEC, md5=md5),
        source=functools.partial(source_of_tiny_imagenet, spec=SPEC),
    )
    monkeypatch.setitem(preparations.PREPARATIONS, "tiny_imagenet", preparation)
