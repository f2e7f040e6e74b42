"""Which input path a run takes."""

import pytest

from convmixer_jax.data.inputs import INPUTS, choose_input
from convmixer_jax.errors import UserError


@pytest.mark.parametrize("limit", [None, 1000])
def test_what_fits_is_as_asked(limit):
    for name in INPUTS:
        assert choose_input(name, 1000, limit, crop_on_host=False) == (name, None)


def test_what_does_not_fit_is_streamed_and_told():
    name, told = choose_input("resident", 192_860_000_000, 141_000_000_000, crop_on_host=False)
    assert (name, told) == ("stream", "the data need 192.86 GB on each device and there are 141.00 GB")
    assert choose_input("stream", 192_860_000_000, 1, crop_on_host=True) == ("stream", None)


def test_crops_of_whole_images_are_streamed_and_told():
    name, told = choose_input("resident", 1, None, crop_on_host=True)
    assert name == "stream"
    assert told.startswith("random_resized_crop chooses from whole images")


def test_an_unknown_path_is_told():
    with pytest.raises(UserError, match="^config.input is 'streams'.*did you mean stream"):
        choose_input("streams", 1, None, crop_on_host=False)
