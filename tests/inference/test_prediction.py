"""Images are found, read ahead and computed in batches of one size; each gets what it would get alone."""

import dataclasses
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from convmixer_jax.errors import UserError
from convmixer_jax.inference.image_files import find_images
from convmixer_jax.inference.prediction import predict_images, read_ahead, rounded_batch_size
from tests.inference.stand_in import loaded_levels, write_level


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Seven images, of the levels 1 to 7."""
    return [write_level(tmp_path / f"{level}.png", level) for level in range(1, 8)]


@pytest.mark.parametrize("batch_size, computed", [(1, 1), (3, 3), (7, 7), (32, 8)])
def test_one_program_for_all_batches(files, batch_size, computed):
    loaded = loaded_levels(10)
    told = list(predict_images(loaded, files, top=3, batch_size=batch_size))
    assert [prediction.file for prediction in told] == files
    assert [prediction.top[0].name for prediction in told] == [f"level {level}" for level in range(1, 8)]
    assert [prediction.top[0].index for prediction in told] == list(range(1, 8))
    assert loaded.model.traced == [(computed, 4, 4, 1)]


def test_probabilities_by_hand(files):
    first = next(predict_images(loaded_levels(3), files, top=5, batch_size=2))
    # Of level 1 the logits are -1, 0, -1; of two alike the first comes first.
    total = 1 + 2 / np.e
    assert [candidate.index for candidate in first.top] == [1, 0, 2]
    np.testing.assert_allclose(
        [each.probability for each in first.top], np.array([1, 1 / np.e, 1 / np.e]) / total, rtol=1e-5
    )


def test_classes_without_names_have_numbers(files):
    assert next(predict_images(loaded_levels(10, named=False), files, top=1, batch_size=2)).top[0].name == "1"


def test_a_damaged_file_has_its_error_and_the_others_go_on(files):
    Path(files[1]).write_bytes(b"")
    Path(files[6]).unlink()
    told = list(predict_images(loaded_levels(10), files, top=1, batch_size=2))
    assert [[candidate.index for candidate in each.top] for each in told] == [[1], [], [3], [4], [5], [6], []]
    errors = [each.error for each in told]
    assert [error is None for error in errors] == [True, False, True, True, True, True, False]
    assert errors[1].startswith(f"{files[1]}: this is no image")
    assert errors[6] == f"{files[6]}: there is no such file"


def test_where_no_file_is_an_image_nothing_is_computed(tmp_path):
    loaded = loaded_levels(10)
    (told,) = predict_images(loaded, [str(tmp_path)], top=1, batch_size=2)
    assert told.error is not None
    assert loaded.model.traced == []


def test_logits_that_are_no_numbers_are_an_error_of_their_file(files, recwarn):
    loaded = loaded_levels(3)
    infinite = {"params": {"levels": np.array([0, 1, np.inf])}}
    (told,) = predict_images(dataclasses.replace(loaded, variables=infinite), files[:1], top=1, batch_size=1)
    assert (told.top, told.error) == ((), f"{files[0]}: the model's logits for it are NaN or infinite")
    assert list(recwarn) == []


class TooLarge:
    """A model that the device has no memory for."""

    def apply(self, variables, images, train):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 30064771072 bytes.")


def test_too_many_images_for_the_memory(files):
    loaded = loaded_levels(3)
    endless = dataclasses.replace(
        loaded, description=dataclasses.replace(loaded.description, image_shape=(10**8, 10**8, 1))
    )
    for wrong, size in ((endless, "100000000x100000000x1"), (dataclasses.replace(loaded, model=TooLarge()), "4x4x1")):
        with pytest.raises(
            UserError, match=f"^2 images of {size} at once do not fit into memory: take a smaller batch"
        ):
            list(predict_images(wrong, files, top=1, batch_size=2))


@pytest.mark.parametrize("images, expected", [(1, 1), (2, 2), (3, 4), (5, 8), (17, 32), (33, 32), (1000, 32)])
def test_few_images_make_a_small_batch(images, expected):
    assert rounded_batch_size(images, 32) == expected


def test_the_next_batch_is_read_while_one_is_computed():
    begun = [threading.Event() for _ in range(6)]

    def read(file: str) -> np.ndarray:
        begun[int(file)].set()
        return np.array(int(file))

    batches = read_ahead("012345", 2, read)
    assert [(file, int(image.result())) for file, image in next(batches)] == [("0", 0), ("1", 1)]
    assert begun[2].wait(10)
    assert begun[3].wait(10)
    time.sleep(0.05)
    assert not begun[4].is_set()  # one batch ahead, no more: images take memory
    assert [[file for file, _ in batch] for batch in batches] == [["2", "3"], ["4", "5"]]


def test_a_pass_that_is_given_up_reads_no_more():
    begun: list[str] = []
    blocked = threading.Event()

    def read(file: str) -> None:
        begun.append(file)
        blocked.wait(10)

    batches = read_ahead([str(n) for n in range(2000)], 1000, read)
    next(batches)
    batches.close()
    blocked.set()
    time.sleep(0.05)
    assert len(begun) < 100


def test_files_folders_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/10.PNG", "b/deep/er/1.png", "a.png", "c1.png", "c2.png", "[x].png"):
        write_level(tmp_path / name.replace("PNG", "png"), 1)
    Path("b/10.png").rename("b/10.PNG")
    Path("b/notes.txt").write_text("no image")
    for hidden in (".hidden.png", ".thumbs/a.png", "deep/.cache/er/a.png"):
        write_level(Path("b") / hidden, 1)
    Path("b/link.png").symlink_to("nothing")
    Path("b/folder.png").mkdir()
    Path("empty").mkdir()
    found, without = find_images(
        ["c?.png", "b", "a.png", "none.png", "[x].png", "c1.png", "empty", "*.gif", "**/1.png", ""]
    )
    assert found == [
        "c1.png", "c2.png", "b/10.PNG", "b/2.png", "b/deep/er/1.png", "b/link.png", "a.png", "none.png", "[x].png"
    ]  # fmt: skip
    assert without == {
        "empty": "empty: there is no image in it",
        "*.gif": "*.gif: there is no image with such a name",
        "": "'' is no name of an image: name a file, a folder (. is the current one) or a pattern",
    }
    assert find_images(["b/.thumbs"])[0] == ["b/.thumbs/a.png"]  # one that is named itself
    assert find_images(["e*"])[1] == {"e*": "e*: there is no image in it"}
