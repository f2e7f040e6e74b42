"""A disk, a network or a system that fails for a moment makes no image bad, and one that goes on failing is named."""

import dataclasses
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convmixer_jax.data import bad_examples
from convmixer_jax.data.bad_examples import fault
from convmixer_jax.data.examples import ImageFiles
from convmixer_jax.data.host_batches import HostBatches, Reading
from convmixer_jax.data.order import batch_indices
from convmixer_jax.data.stream import StreamInput
from convmixer_jax.errors import UserError
from convmixer_jax.training.mesh import over_data, replicated
from tests.data.images import numbered, write_files
from tests.data.records import image, images_of, spoil_bytes, write_numbered

SEED, BATCH = 5, 8


@dataclasses.dataclass(frozen=True)
class Failing(ImageFiles):
    """The first `times` readings of image 3 fail, those by any thread counted."""

    number: int
    times: int
    readings: list[int] = dataclasses.field(default_factory=list)
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def read(self, index: int) -> bytes:
        if index == 3:
            with self.lock:
                self.readings.append(index)
                if len(self.readings) <= self.times:
                    raise OSError(self.number, os.strerror(self.number))
        return super().read(index)


@pytest.fixture
def failing(tmp_path, monkeypatch) -> Callable[[int, int], Failing]:
    """Returns a function from an error's number and how often it comes to files; nothing is waited for."""
    monkeypatch.setattr(bad_examples, "_PAUSES_S", (0.0, 0.0))  # three tries
    files = write_files(tmp_path, numbered(8))
    facts = {field.name: getattr(files, field.name) for field in dataclasses.fields(files)}
    return lambda number, times: Failing(**facts, number=number, times=times)


@pytest.mark.parametrize("skip", [False, True])
# One try of the pipeline; all three of them; these, and two of those that look for the fault.
@pytest.mark.parametrize("number, times", [(errno.EMFILE, 1), (errno.EIO, 3), (errno.ESTALE, 5)])
def test_what_fails_for_a_moment_is_no_fault_of_the_image(failing, mesh, capfd, number, times, skip):
    grid = replicated(mesh(1)), over_data(mesh(1))
    source = StreamInput(failing(number, times), *grid, SEED, BATCH, Reading(skip_bad=skip))
    batch = source.batch(0)
    np.testing.assert_array_equal(batch["image"], numbered(8).image[batch_indices(SEED, 0, BATCH, 8)])
    assert source.replaced(range(1)) == 0
    source.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("skip", [False, True])
def test_what_goes_on_failing_ends_the_run_in_one_line(failing, mesh, skip):
    grid = replicated(mesh(1)), over_data(mesh(1))
    source = StreamInput(failing(errno.EMFILE, 10**6), *grid, SEED, BATCH, Reading(skip_bad=skip))
    with pytest.raises(UserError, match=r"3\.png cannot be read \(Too many open files\), tried 3 times .* run again$"):
        source.batch(0)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EBADMSG])
def test_what_is_so_of_the_file_is_not_tried_again(failing, number):
    files = failing(number, 10**6)
    found = fault(files, 3)
    assert found is not None
    assert (found.lasting, len(files.readings)) == (True, 1)


def test_a_failure_without_a_fault_is_raised_at_last(tmp_path, monkeypatch):
    # As one of the pipeline itself would be: no image is to blame.
    files = write_files(tmp_path, numbered(8))
    (tmp_path / "3.png").write_bytes(b"")
    monkeypatch.setattr(bad_examples, "fault", lambda images, index, cropped: None)
    with pytest.raises(Exception, match="cannot identify image file") as caught:
        next(HostBatches(files, lambda step: np.arange(8), range(1)))
    assert not isinstance(caught.value, UserError)


def test_of_array_records_it_is_known_whether_system_or_bytes_failed(tmp_path):
    """The package has one exception for both."""
    shards = write_numbered(tmp_path, "array_record")
    shard = shards[0]
    images = images_of(shards, "array_record")
    assert images.read(3) == image(3)
    (opened,) = (number for number in os.listdir("/proc/self/fd") if is_of(number, shard))
    kept, folder = os.dup(int(opened)), os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, int(opened))  # which cannot be read
    with pytest.raises(OSError, match=r"pread\(\) failed") as caught:
        images.read(3)
    assert caught.value.errno == errno.EIO
    os.dup2(kept, int(opened))
    os.close(kept)
    os.close(folder)
    assert images.read(3) == image(3)
    images = dataclasses.replace(images, files=type(images.files)(images.files.paths))  # nothing is buffered
    spoil_bytes(shard)
    numbers = set()
    for n in range(5):
        try:
            images.read(n)
        except OSError as error:
            numbers.add(error.errno)
    assert numbers == {errno.EBADMSG}


def is_of(number: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}") == str(path)
    except FileNotFoundError:  # that of the listing
        return False
