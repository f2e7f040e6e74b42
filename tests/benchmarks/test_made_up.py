"""The photographs that are written are whole, of their size, and a data set."""

from PIL import Image

from convmixer_jax.benchmarks.made_up import CLASSES, HEIGHT, WIDTH, write_photographs
from convmixer_jax.data.datasets import find_dataset, open_split


def test_the_photographs_are_a_data_set(tmp_path):
    write_photographs(tmp_path / "a", 11)
    dataset = find_dataset(f"folder:{tmp_path / 'a'}", tmp_path)
    assert dataset.num_examples == {"train": 11, "test": CLASSES}
    train = open_split(dataset, "train", tmp_path)
    assert train.label.tolist() == [0, 0, *range(1, CLASSES)]
    contents = [train.read(index) for index in range(len(train))]
    assert len(set(contents)) == 11
    for path in (tmp_path / "a/train").rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.size == (WIDTH, HEIGHT)
    write_photographs(tmp_path / "b", 11)
    again = open_split(find_dataset(f"folder:{tmp_path / 'b'}", tmp_path), "train", tmp_path)
    assert [again.read(index) for index in range(len(again))] == contents
