"""CIFAR-100 with its fine and its coarse labels, which must belong together, and the names of its classes."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from convmixer_jax.command_line import parse
from convmixer_jax.data.datasets import DATASETS
from convmixer_jax.data.sources import cifar
from convmixer_jax.data.sources.cifar import load_cifar
from convmixer_jax.data.sources.cifar_specs import CIFAR10, CIFAR100, CIFAR100_COARSE
from convmixer_jax.data.sources.tfds_directory import read_tfds_directory
from convmixer_jax.errors import UserError
from convmixer_jax.training.assembly import assemble
from tests.commands import CIFAR, SMALL
from tests.data.cifar100 import (
    COARSE,
    COARSE_OF,
    FILES,
    FINE,
    arrays,
    batch,
    names,
    write_archive,
    write_binary,
    write_prepared,
    write_python,
)

FORMS = {"python": write_python, "archive": write_archive, "binary": write_binary}


@pytest.mark.parametrize("split", FILES)
@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_every_form_gives_both_labels(tmp_path, write, split):
    write(tmp_path)
    pixels, fine, coarse = arrays(split)
    for spec, expected in ((FINE, fine), (COARSE, coarse)):
        images, labels = load_cifar(tmp_path, split, spec)
        np.testing.assert_array_equal(images, np.broadcast_to(pixels[:, 0, None, None, None], images.shape))
        np.testing.assert_array_equal(labels, np.array(expected, np.int32), strict=True)
        assert images.shape[1:] == (32, 32, 3)


def test_the_published_classes():
    coarse, fine = CIFAR100.labels
    for labels, count in ((coarse, 20), (fine, 100)):
        assert list(labels.classes) == sorted(set(labels.classes))
        assert len(labels.classes) == count
    assert CIFAR100.coarse_of == COARSE_OF
    assert (CIFAR100.target, CIFAR100_COARSE.target) == (fine, coarse)
    assert [fine.classes[label] for label in (0, 19, 49, 99)] == ["apple", "cattle", "mountain", "worm"]


@pytest.mark.parametrize("name, per_class", [("cifar100", (500, 100)), ("cifar100_coarse", (2500, 500))])
def test_the_rows(name, per_class):
    dataset, spec = DATASETS[name], {"cifar100": CIFAR100, "cifar100_coarse": CIFAR100_COARSE}[name]
    assert dataset.num_examples == {"train": 50_000, "test": 10_000}
    assert (spec.per_class("train"), spec.per_class("test")) == per_class
    assert (dataset.class_names, dataset.image_shape) == (spec.target.classes, (32, 32, 3))
    assert all(url.startswith("https://") and spec.archive in url for url in spec.urls)
    assert spec.archive != CIFAR10.archive


def rewrite(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda data_dir: (data_dir / name).write_bytes(content((data_dir / name).read_bytes()))


def swapped(labels: list[int]) -> list[int]:
    return [labels[1], labels[0], *labels[2:]]


def swapped_bytes(content: bytes, record: int) -> bytes:
    """The first two bytes of each record change places."""
    rows = [content[start : start + record] for start in range(0, len(content), record)]
    return b"".join(row[1::-1] + row[2:] for row in rows)


TRAIN = arrays("train")
# For each: the form of the files, what is done to them, and what the message says.
MISTAKES = {
    "coarse labels of other images": (
        write_python,
        rewrite("cifar-100-python/train", lambda _: batch("train", coarse_labels=swapped(TRAIN[2]))),
        "cifar-100-python/train has an image of apple that is called fish in row 0:",
    ),
    "fine labels of other images": (
        write_python,
        rewrite("cifar-100-python/train", lambda _: batch("train", fine_labels=swapped(TRAIN[1]))),
        "cifar-100-python/train has an image of aquarium_fish that is called fruit_and_vegetables in row 0:",
    ),
    "no coarse labels": (
        write_python,
        rewrite("cifar-100-python/train", lambda _: batch("train", coarse_labels=None)),
        "cifar-100-python/train has nothing as 'coarse_labels', expected 200 whole numbers:",
    ),
    "a fine label too high": (
        write_python,
        rewrite("cifar-100-python/train", lambda _: batch("train", fine_labels=[100, *TRAIN[1][1:]])),
        "cifar-100-python/train has the label 100 in row 0, expected 0-99:",
    ),
    "a coarse label too high": (
        write_binary,
        rewrite("cifar-100-binary/train.bin", lambda content: b"\x14" + content[1:]),
        "cifar-100-binary/train.bin has the label 20 in row 0, expected 0-19:",
    ),
    "labels in the other order": (
        write_binary,
        rewrite("cifar-100-binary/train.bin", lambda content: swapped_bytes(content, 3074)),
        "cifar-100-binary/train.bin has the label 20 in row 20, expected 0-19:",
    ),
    "records with one label": (
        write_binary,
        rewrite("cifar-100-binary/train.bin", lambda content: content[200:]),
        "cifar-100-binary/train.bin holds 614,600 bytes, expected 614,800 (200 records of 3,074):",
    ),
    "one image of another class": (
        write_python,
        rewrite(
            "cifar-100-python/train",
            lambda _: batch("train", fine_labels=[1, *TRAIN[1][1:]], coarse_labels=[1, *TRAIN[2][1:]]),
        ),
        "images of each class as 'train', expected ",
    ),
    "names in another order": (
        write_python,
        rewrite("cifar-100-python/meta", lambda _: names(fine_label_names=[*CIFAR100.target.classes][::-1])),
        "cifar-100-python/meta has other classes than the 100 published ones, it has them in another order:",
    ),
    "a name too few": (
        write_python,
        rewrite("cifar-100-python/meta", lambda _: names(coarse_label_names=[*CIFAR100_COARSE.target.classes][1:])),
        "cifar-100-python/meta has other classes than the 20 published ones, it lacks aquatic_mammals:",
    ),
    "no names": (
        write_python,
        rewrite("cifar-100-python/meta", lambda _: names(fine_label_names=None)),
        "cifar-100-python/meta has nothing as 'fine_label_names':",
    ),
    "another name in the archive": (
        lambda data_dir: write_archive(data_dir, names(fine_label_names=["cat", *CIFAR100.target.classes[1:]])),
        lambda data_dir: None,
        "cifar-100-python.tar.gz:cifar-100-python/meta has other classes than the 100 published ones, it lacks apple "
        "and has, beside what belongs there, cat:",
    ),
    "another name in a list": (
        write_binary,
        rewrite("cifar-100-binary/fine_label_names.txt", lambda content: content.replace(b"worm", b"snail")),
        "cifar-100-binary/fine_label_names.txt has other classes than the 100 published ones, it lacks worm and has "
        "twice snail:",
    ),
}


@pytest.mark.parametrize("spec", [FINE, COARSE], ids=["fine", "coarse"])
@pytest.mark.parametrize("write, spoil, words", MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_named(tmp_path, write, spoil, words, spec):
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        load_cifar(tmp_path, "train", spec)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/cifar-100-")
    assert "take it anew from cifar-100-python.tar.gz (md5 eb9058c3a382ffc7106e4002c42a8d85)" in str(caught.value)


def test_a_file_of_names_that_is_cut_short(tmp_path):
    write_python(tmp_path)
    rewrite("cifar-100-python/meta", lambda content: content[:100])(tmp_path)
    with pytest.raises(UserError, match="cifar-100-python/meta is cut short, damaged, or no CIFAR file"):
        load_cifar(tmp_path, "test", FINE)


def test_without_the_files_of_names_nothing_is_missed(tmp_path):
    write_python(tmp_path)
    (tmp_path / "cifar-100-python/meta").unlink()
    assert len(load_cifar(tmp_path, "test", FINE)[1]) == 100


@pytest.mark.slow  # it starts processes that import TensorFlow
def test_a_directory_that_tfds_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "read_tfds_directory", functools.cache(read_tfds_directory))  # one for both labels
    write_prepared(tmp_path)
    for spec, labels in ((FINE, arrays("test")[1]), (COARSE, arrays("test")[2])):
        images, found = load_cifar(tmp_path, "test", spec)
        np.testing.assert_array_equal(found, np.array(labels, np.int32), strict=True)
        assert images[:, 31, 31, 2].tolist() == list(range(100))
    listed = tmp_path / "cifar100/3.0.2/coarse_label.labels.txt"
    listed.write_text(listed.read_text().replace("trees", "shrubs"))
    with pytest.raises(UserError, match=r"3.0.2/coarse_label.labels.txt has other classes .*lacks trees .*shrubs"):
        load_cifar(tmp_path, "test", FINE)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name, classes", [("cifar100", 100), ("cifar100_coarse", 20)])
def test_the_recipes_of_cifar10_take_it(name, classes):
    experiment = assemble(parse(["main", *CIFAR, *SMALL, f"--config.dataset={name}"]).config)
    shapes = {leaf.shape for leaf in jax.tree.leaves(experiment.abstract_state.params)}
    assert {(4, classes), (classes,)} <= shapes
