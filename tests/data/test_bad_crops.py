"""What is cropped on the host is bad or good as a whole where bad examples are replaced, whatever the boxes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from convmixer_jax.data.bad_examples import check_readable
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.host_batches import Crops, HostBatches, Reading
from convmixer_jax.data.host_crops import ResizedCrop, crop_draws
from convmixer_jax.errors import UserError
from tests.data.test_host_crops import JPEGS, china, jpeg

SMALL = ResizedCrop((0.01, 0.02), (1.0, 1.0), "bilinear")
WIDE = ResizedCrop((0.3, 1.0), (3 / 4, 4 / 3), "bilinear")


def of_two_files(folder: Path, first: bytes) -> ImageFiles:
    (folder / "0.jpg").write_bytes(first)
    (folder / "1.jpg").write_bytes(JPEGS["4:2:0"])
    return ImageFiles(folder, np.array(["0.jpg", "1.jpg"]), label=np.array([0, 1], np.int32), image_shape=(8, 8, 3))


def test_a_file_that_was_cut_is_bad_whatever_the_box(tmp_path):
    files = of_two_files(tmp_path, JPEGS["4:2:0"][:-300])  # the upper rows are whole
    for step in range(3):
        crops = Crops(SMALL, lambda step: crop_draws(0, step, 2))
        batches = HostBatches(files, lambda step: np.array([1, 0]), range(step, step + 1), crops)
        with pytest.raises(UserError, match=r"0\.jpg .* is damaged"):
            next(batches)


def damaged_in_its_middle() -> bytes:
    """A JPEG whose end is there, and in whose middle is a marker that does not belong there."""
    content = JPEGS["4:2:0"]
    return content[: len(content) // 2] + b"\xff\xc4" + content[len(content) // 2 + 2 :]


def test_what_is_replaced_does_not_depend_on_the_box(tmp_path, capsys):
    files = of_two_files(tmp_path, damaged_in_its_middle())
    for crop in (SMALL, WIDE):
        reading = Reading(crop, skip_bad=True)
        for step in range(8):  # each as a run that was resumed here, which does not know yet that it is bad
            crops = Crops(crop, lambda step: crop_draws(0, step, 1))
            replacements = reading.replacements(files)
            batch = next(HostBatches(files, lambda step: np.array([0]), range(step, 9), crops, replacements))
            assert batch["label"].tolist() == [1]
            assert capsys.readouterr().err.count("0.jpg") == 1


def test_what_only_an_evaluation_refuses_is_cropped_even_beside_a_bad_one(tmp_path, capsys):
    # To cover the evaluated shape it would become 1,000 x 3,000,000.
    files = dataclasses.replace(of_two_files(tmp_path, b""), image_shape=(1_000, 8, 3))
    (tmp_path / "1.jpg").write_bytes(jpeg(china()[:1].repeat(5, 1)[:, :3_000]))
    crops = Crops(SMALL, lambda step: crop_draws(0, step, 2))
    replacements = Reading(SMALL, skip_bad=True).replacements(files)
    batch = next(HostBatches(files, lambda step: np.array([0, 1]), range(1), crops, replacements))
    assert batch["label"].tolist() == [1, 1]
    told = capsys.readouterr().err
    assert ("0.jpg" in told, "1.jpg" in told) == (True, False)
    with pytest.raises(UserError, match=r"1\.jpg .*too many"):
        check_readable(files, [1])
