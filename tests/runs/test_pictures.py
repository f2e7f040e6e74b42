"""The grid of pictures, laid out where a reader expects each pixel."""

import numpy as np
import pytest

from convmixer_jax.runs.pictures import image_grid, load_picture, save_picture


def test_three_images_in_two_columns():
    # 32 pixels a side are doubled to 64.
    images = np.zeros((3, 32, 32, 1), np.uint8)
    images[0], images[1], images[2] = 10, 20, 30
    images[1, 0, 31] = 21  # the upper right corner of the second
    images[2, 31, 0] = 31  # the lower left corner of the third
    grid = image_grid(images, columns=2)
    assert (grid.shape, grid.dtype) == ((128, 128, 3), np.uint8)
    expected = np.zeros((128, 128), np.uint8)
    expected[:64, :64], expected[:64, 64:], expected[64:, :64] = 10, 20, 30
    expected[0:2, 126:128] = 21
    expected[126:128, 0:2] = 31
    for channel in range(3):  # grey in all three colours
        np.testing.assert_array_equal(grid[..., channel], expected)


def test_colours_stay_in_their_channels():
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[..., 0], images[..., 1], images[..., 2] = 1, 2, 3
    grid = image_grid(images, columns=1)
    np.testing.assert_array_equal(grid, images[0])


SHAPES = {
    "digits": ((64, 8, 8, 1), 8, (512, 512, 3)),
    "cifar10": ((64, 32, 32, 3), 8, (512, 512, 3)),
    "fewer than a row": ((3, 8, 8, 1), 8, (64, 512, 3)),
    "one above a row": ((9, 8, 8, 1), 8, (128, 512, 3)),
    "oblong": ((2, 8, 16, 1), 2, (32, 128, 3)),
    "large ones as they are": ((2, 100, 80, 3), 2, (100, 160, 3)),
}


@pytest.mark.parametrize("shape, columns, expected", SHAPES.values(), ids=SHAPES)
def test_shapes(shape, columns, expected):
    grid = image_grid(np.full(shape, 255, np.uint8), columns)
    assert grid.shape == expected
    filled = shape[0] / (-(-shape[0] // columns) * columns)  # the rest of the last row is black
    assert grid.mean() == pytest.approx(255 * filled)


def test_a_picture_comes_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    save_picture(tmp_path / "x.png", image)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    np.testing.assert_array_equal(load_picture(tmp_path / "x.png"), image, strict=True)
