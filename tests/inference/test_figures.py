"""What is drawn is what there is: pixels of filters, cells of the matrix, names where they can be read."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from convmixer_jax.inference import figures
from convmixer_jax.inference.activation_maps import ActivationMaps
from convmixer_jax.inference.confusion import commonest_confusions, confusion_figure, save_table
from convmixer_jax.inference.layers import Kernel


def drawn(figure) -> np.ndarray:
    """The pixels of a figure as it is saved, [H, W, 3]."""
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    return np.asarray(Image.open(encoded).convert("RGB"))


def texts(figure) -> list[str]:
    """All that is written on a figure."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_colour_filters_are_drawn_pixel_by_pixel_the_strongest_first():
    # Weights [1, 1, 3, 4]: red, and a third of minus green, dark in its green alone; then none; then blue.
    weights = np.zeros((1, 1, 3, 4))
    weights[0, 0, 0, 0], weights[0, 0, 1, 1], weights[0, 0, 2, 3] = 2, -1, 3
    image = drawn(figures.filters_figure(Kernel("stem", weights)))
    top = 2 * figures.MARGIN + figures.LINE * 2  # the title takes two lines
    side = figures.MOST + figures.gap_pixels(figures.MOST, figures.MOST)
    left = figures.MARGIN
    corners = [image[top + row * side, left + column * side] for row in (0, 1) for column in (0, 1)]
    np.testing.assert_allclose(corners, [(127, 127, 255), (255, 127, 127), (127, 0, 127), (127, 127, 127)], atol=1)
    # A filter's last pixel, and the white between it and the next.
    np.testing.assert_array_equal(image[top + figures.MOST - 1, left + figures.MOST - 1], image[top, left])
    np.testing.assert_array_equal(image[top, left + figures.MOST], (255, 255, 255))


def test_filters_of_one_weight_have_one_scale():
    one = np.array([[[[2.0, -1.0, 0.0]]]])
    np.testing.assert_array_equal(figures.to_scale(np.moveaxis(one, -1, 0)).ravel(), [1, -0.5, 0])
    assert any("all on one" in text for text in texts(figures.filters_figure(Kernel("stem", one))))
    several = np.array([[[4.0, -1.0]], [[0.5, 0.25]], [[0, 0]]])
    np.testing.assert_array_equal(figures.to_scale(several).ravel(), [1, -0.25, 1, 0.5, 0, 0])


@pytest.mark.parametrize(
    "n, aspect, columns",
    [(1, 1, 1), (2, 1, 2), (10, 1, 5), (64, 1, 8), (768, 1, 32), (7, 1, 3), (64, 1 / 7, 4), (64, 7, 32), (2, 7, 2)],
)
def test_grids_have_full_rows_where_they_can(n, aspect, columns):
    assert figures.even_columns(n, aspect) == columns


def test_the_sheet_names_every_layer():
    kernels = [Kernel(f"block_{i}", np.ones((3, 3, 1, 70))) for i in range(5)]
    sheet = figures.kernels_sheet(kernels, "kernels")
    assert {f"block_{i}" for i in range(5)} <= set(texts(sheet))
    assert len(sheet.axes) == 5


def test_maps_are_drawn_beside_their_images():
    maps = ActivationMaps(
        np.array([1, 0]), np.array([0.75, 0.5]), np.zeros(2), np.array([[[-1.0, 3.0]], [[-1.0, -2.0]]]), True
    )
    figure = figures.maps_figure(np.zeros((2, 4, 8, 3), np.uint8), ["x.png", "y.png"], maps, ["cat", "dog"], "maps")
    assert {"x.png", "y.png", "dog (75%)", "cat (50%)"} <= set(texts(figure))
    overlay = figure.axes[1].images[1]
    assert overlay.get_clim() == (0, 3)
    assert list(overlay.get_extent()) == [-0.5, 7.5, 3.5, -0.5]  # over the whole image
    assert figure.axes[3].images[1].get_clim() == (0, 1)  # nothing speaks for the class


def test_names_are_drawn_as_they_are(tmp_path):
    names = ["cost_$5_and_$6", "$\\alpha$", "猫", "ひ" * 9]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(confusion_figure(np.eye(4, dtype=int), names, "$x_$ and $y_$"), tmp_path / "confusion.png")
    # Neither is a formula: text that is read as one is drawn differently.
    pictures = []
    for name in ("$x$", "\\$x\\$"):
        figure = figures.new_figure(2, 1)
        figure.text(0.1, 0.5, name)
        pictures.append(drawn(figure))
        figures.save(figure, tmp_path / "name.png")
        pictures.append(np.asarray(Image.open(tmp_path / "name.png").convert("RGB")))
    as_formula, as_it_is, escaped, _ = pictures
    assert (as_formula != as_it_is).any()
    np.testing.assert_array_equal(escaped, as_it_is)


@pytest.mark.parametrize("classes, named, counted", [(20, True, True), (40, True, False), (41, False, False)])
def test_a_matrix_has_names_and_counts_where_they_can_be_read(classes, named, counted):
    matrix = np.eye(classes, dtype=np.int64) * 55
    matrix[3, 4] = 7
    written = texts(confusion_figure(matrix, [f"class {n}" for n in range(classes)], "test split"))
    assert ("class 3" in written) is named
    assert ("55" in written) is counted
    assert any("   7  class 3 → class 4" in text for text in written) is not named


def test_a_cell_of_a_large_matrix_is_a_whole_number_of_pixels():
    classes = 300
    matrix = np.zeros((classes, classes), np.int64)
    matrix[:, 150] = 1  # all are taken for one
    image = drawn(confusion_figure(matrix, [str(n) for n in range(classes)], "test split"))
    yellow = (image == (253, 231, 36)).all(axis=-1)
    pixels = round(800 / classes)
    line = np.flatnonzero(yellow.sum(axis=0) >= classes * pixels - 4)  # some are under the frame
    assert line.tolist() == list(range(line[0], line[0] + pixels))


def test_the_commonest_confusions():
    matrix = np.array([[9, 2, 0], [5, 8, 0], [0, 2, 7]])
    assert commonest_confusions(matrix, 9) == [(5, 1, 0), (2, 0, 1), (2, 2, 1)]
    assert commonest_confusions(matrix, 1) == [(5, 1, 0)]


def test_the_table(tmp_path):
    save_table(np.array([[9, 2], [5, 8]]), ["cat", 'a "dog", wet'], tmp_path / "confusion.csv")
    assert (tmp_path / "confusion.csv").read_text() == (
        'true class,cat,"a ""dog"", wet"\ncat,9,2\n"a ""dog"", wet",5,8\n'
    )
