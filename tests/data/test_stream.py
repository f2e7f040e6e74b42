"""The stream gives what the resident path gives, batch by batch, and reads nothing that it does not need."""

import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from convmixer_jax.data import host_batches, resident, stream
from convmixer_jax.data.datasets import DATASETS, load_split
from convmixer_jax.data.examples import Examples, ImageFiles
from convmixer_jax.data.host_batches import HostBatches, in_memory
from convmixer_jax.data.order import batch_indices
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput
from convmixer_jax.data.stream import StreamEvaluation, StreamInput, local_rows
from convmixer_jax.errors import UserError
from convmixer_jax.training.mesh import over_data, replicated
from tests.data.images import make_it_a_folder, numbered, write_files

ROOT = Path(__file__).parents[2]
COUNT, BATCH, SEED = 50, 16, 3  # three batches in an epoch


@pytest.fixture(params=["memory", "files"])
def stored(request, tmp_path):
    """The numbered examples, in memory and as files."""
    examples = numbered(COUNT)
    return examples if request.param == "memory" else write_files(tmp_path, examples)


@pytest.fixture
def stream_of(mesh):
    """Returns a function to a StreamInput, closed at the end of the test."""
    opened = []

    def make(examples: Examples | ImageFiles, devices: int = 8) -> StreamInput:
        grid = mesh(devices)
        opened.append(StreamInput(examples, replicated(grid), over_data(grid), SEED, BATCH))
        return opened[-1]

    yield make
    for source in opened:
        source.close()


def check_batch(batch: dict[str, Any], step: int, examples: Examples) -> None:
    index = batch_indices(SEED, step, BATCH, COUNT)
    np.testing.assert_array_equal(batch["image"], examples.image[index], strict=True)
    np.testing.assert_array_equal(batch["label"], examples.label[index], strict=True)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_stream_equals_the_resident_path(mesh, stored, stream_of, devices):
    grid = mesh(devices)
    ours = stream_of(stored, devices)
    theirs = ResidentInput(stored, replicated(grid), over_data(grid), SEED, BATCH)
    assert (ours.num_examples, ours.data) == (COUNT, {})
    for step in range(7):  # over two ends of an epoch
        batch = ours.batch(step)
        check_batch(batch, step, numbered(COUNT))
        taken = jax.jit(stream.take, out_shardings=over_data(grid))(ours.data, batch)
        resident_taken = jax.jit(resident.take, out_shardings=over_data(grid))(theirs.data, theirs.batch(step))
        assert taken.keys() == resident_taken.keys() == {"image", "label"}
        for name, values in taken.items():
            assert batch[name].sharding.is_equivalent_to(over_data(grid), values.ndim)
            assert (values.dtype, values.shape) == (resident_taken[name].dtype, resident_taken[name].shape)
            np.testing.assert_array_equal(values, resident_taken[name])


def test_the_digits_stream_as_they_lie_in_memory(mesh):
    grid, digits = mesh(8), load_split(DATASETS["digits"], "train", Path())
    ours = StreamInput(digits, replicated(grid), over_data(grid), SEED, 64)
    theirs = ResidentInput(digits, replicated(grid), over_data(grid), SEED, 64)
    for step in (0, 1, 21, 22, 23, 1000):  # 1,437 digits: 22 batches in an epoch
        taken = resident.take(theirs.data, theirs.batch(step))
        for name, values in ours.batch(step).items():
            np.testing.assert_array_equal(values, taken[name])
    ours.close()


def test_any_order_of_calls(stored, stream_of):
    source = stream_of(stored)
    for step in (7, 8, 9, 3, 3, 4, 1_000_000, 0, 1):
        check_batch(source.batch(step), step, numbered(COUNT))


def test_the_same_batch_again_costs_nothing(stored, stream_of, monkeypatch):
    # The picture of training images asks for the first batch, and so does the first update.
    opened = []

    def open_pipeline(examples: Any, indices: Any, steps: range, *others: Any) -> HostBatches:
        opened.append(steps.start)
        return HostBatches(examples, indices, steps, *others)

    monkeypatch.setattr(stream, "HostBatches", open_pipeline)
    source = stream_of(stored)
    first = source.batch(0)
    assert source.batch(0) is first
    for step in (1, 2, 2, 2, 3):
        check_batch(source.batch(step), step, numbered(COUNT))
    assert opened == [0]
    source.close()  # keeps no batch either
    check_batch(source.batch(3), 3, numbered(COUNT))
    assert opened == [0, 3]


def test_the_shapes_are_known_before(mesh, stream_of):
    grid, source = mesh(8), stream_of(numbered(COUNT))
    layout = replicated(grid), over_data(grid)
    for path, made in ((stream, source), (resident, ResidentInput(numbered(COUNT), *layout, SEED, BATCH))):
        shapes = path.abstract_inputs(COUNT, (4, 4, 3), BATCH, *layout)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), (made.data, made.batch(0))
        )


def test_a_start_anywhere_replays_nothing(stored):
    asked = []

    def indices(step: int) -> np.ndarray:
        asked.append(step)
        return batch_indices(SEED, step, BATCH, COUNT)

    batches = HostBatches(stored, indices, range(1200, 2000))
    check_batch(next(batches), 1200, numbered(COUNT))
    time.sleep(0.2)  # long enough for it to run ahead, had it no bound
    batches.close()
    assert min(asked) == 1200
    assert max(asked) < 1200 + 10


def test_threads_do_not_change_the_order(tmp_path, monkeypatch):
    # Large files between small ones: whoever takes what is ready first would give another order.
    draw = np.random.default_rng(0)
    for n in range(24):
        size = 400 if n % 3 == 0 else 8
        Image.fromarray(draw.integers(0, 256, (size, size, 3), np.uint8)).save(tmp_path / f"{n}.png")
    names, label = np.array([f"{n}.png" for n in range(24)]), np.arange(24, dtype=np.int32)
    files = ImageFiles(tmp_path, names, label=label, image_shape=(8, 8, 3))
    seen = []
    for threads in (1, 7, 7):
        monkeypatch.setattr(host_batches, "reading_threads", lambda threads=threads: threads)
        batches = HostBatches(files, lambda step: batch_indices(0, step, 8, 24), range(6))
        seen.append([(batch["image"].tobytes(), batch["label"].tolist()) for batch in batches])
    assert len(seen[0]) == 6
    assert seen[0] == seen[1] == seen[2]
    assert [label for _, label in seen[0]] == [batch_indices(0, step, 8, 24).tolist() for step in range(6)]


def part_of(sharding: Any, first: int, last: int) -> Any:
    """Stands for the sharding that one process of several sees: devices `first` to `last` are its own."""

    def indices_map(shape: tuple[int, ...]) -> dict:
        return dict(list(sharding.addressable_devices_indices_map(shape).items())[first:last])

    return types.SimpleNamespace(addressable_devices_indices_map=indices_map)


def put_part(shape: tuple[int, ...], sharding: Any, callback: Callable[[Any], np.ndarray]) -> Any:
    """What JAX asks one process of several for: (global shape, the rows of its own devices)."""
    return shape, np.concatenate(
        [callback(index) for index in sharding.addressable_devices_indices_map(shape).values()]
    )


@pytest.mark.parametrize("first, last", [(0, 4), (4, 8), (6, 7)])
def test_a_process_reads_the_rows_of_its_own_devices_alone(mesh, tmp_path, monkeypatch, first, last):
    part = part_of(over_data(mesh(8)), first, last)
    mine = slice(2 * first, 2 * last)  # of 16 rows each of 8 devices has two
    assert local_rows(part, BATCH).tolist() == list(range(BATCH))[mine]
    monkeypatch.setattr(jax, "make_array_from_callback", put_part)
    files, examples = write_files(tmp_path, numbered(COUNT)), numbered(COUNT)
    needed = {n for step in range(3) for n in batch_indices(SEED, step, BATCH, COUNT)[mine].tolist()}
    for n in set(range(COUNT)) - needed:
        (tmp_path / f"{n}.png").unlink()
    source = StreamInput(files, part, part, SEED, BATCH)
    for step in range(3):
        batch = source.batch(step)
        index = batch_indices(SEED, step, BATCH, COUNT)[mine]
        assert (batch["image"][0], batch["label"][0]) == ((BATCH, 4, 4, 3), (BATCH,))
        np.testing.assert_array_equal(batch["image"][1], examples.image[index])
        np.testing.assert_array_equal(batch["label"][1], examples.label[index])
    source.close()


def test_a_process_asks_for_no_more_rows_than_its_own(mesh):
    part = part_of(over_data(mesh(8)), 2, 4)
    source = StreamInput(numbered(COUNT), part, part, SEED, BATCH)
    assert source._indices(5).tolist() == batch_indices(SEED, 5, BATCH, COUNT)[4:8].tolist()


def test_rows_that_several_devices_hold_are_read_once(mesh):
    assert local_rows(replicated(mesh(8)), BATCH).tolist() == list(range(BATCH))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("count, batch_size", [(9, 8), (32, 16), (7, 56)])
def test_evaluation_covers_each_example_exactly_once(mesh, tmp_path, count, batch_size, devices):
    grid, examples = mesh(devices), numbered(count)
    theirs = ResidentEvaluation(examples, replicated(grid), over_data(grid), batch_size)
    for kind in (examples, write_files(tmp_path, examples)):
        source = StreamEvaluation(kind, replicated(grid), over_data(grid), batch_size)
        for _ in range(2):  # a pass can be made again
            batches = list(source.batches())
            kept = [np.asarray(batch["image"])[np.asarray(batch["mask"])] for batch in batches]
            labels = [np.asarray(batch["label"])[np.asarray(batch["mask"])] for batch in batches]
            np.testing.assert_array_equal(np.concatenate(kept), examples.image)
            np.testing.assert_array_equal(np.concatenate(labels), examples.label)
            for ours, resident_batch in zip(batches, theirs.batches(), strict=True):
                taken = resident.take(theirs.data, resident_batch)
                assert ours.keys() == taken.keys() == {"image", "label", "mask"}
                assert all(bool((ours[name] == taken[name]).all()) for name in ours)


DAMAGE = {
    "missing": (lambda path: path.unlink(), r"cannot be read \(No such file or directory\): put it back"),
    "empty": (lambda path: path.write_bytes(b""), r"\(0 bytes\) is damaged or no image"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:40]), r"\(40 bytes\) is damaged or no image"),
    "a folder": (make_it_a_folder, r"cannot be read \(Is a directory\)"),
}


@pytest.mark.parametrize("damage, words", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_cannot_be_read_is_named(tmp_path, stream_of, mesh, capfd, damage, words):
    files = write_files(tmp_path, numbered(COUNT))
    bad = tmp_path / f"{batch_indices(SEED, 4, BATCH, COUNT)[9]}.png"
    damage(bad)
    source = stream_of(files)
    check_batch(source.batch(3), 3, numbered(COUNT))
    with pytest.raises(UserError, match=re.escape(str(bad)) + " " + words):
        source.batch(4)
    check_batch(source.batch(5), 5, numbered(COUNT))  # a caller may go on
    evaluation = StreamEvaluation(files, replicated(mesh(1)), over_data(mesh(1)), 8)
    for read in (lambda: list(evaluation.batches()), lambda: in_memory(files)):
        with pytest.raises(UserError, match=re.escape(str(bad)) + " " + words) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_close_ends_the_threads(stored, stream_of):
    source = stream_of(stored)
    source.batch(0)  # TensorFlow's own threads, which stay
    source.close()
    before = threads()
    for step in range(100, 120, 2):
        check_batch(source.batch(step), step, numbered(COUNT))
        source.close()
    source.close()  # again
    deadline = time.monotonic() + 10.0  # on a busy machine they take a moment
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threads() <= before, "ten pipelines were opened"


# In a fresh process: this one has imported TensorFlow. It ends without closing the source, which once made it hang.
LATE = """
import os, sys
import jax
jax.config.update("jax_platforms", "cpu")
from convmixer_jax.data.stream import StreamInput
from convmixer_jax.training.mesh import make_mesh, over_data, replicated
from convmixer_jax.training import assembly
from tests.data.images import numbered
before = dict(os.environ)
assert "tensorflow" not in sys.modules
source = StreamInput(numbered(50), replicated(make_mesh()), over_data(make_mesh()), 3, 16)
# TensorFlow leaves variables of its own; none that was there may change, and ours go.
assert {name: os.environ.get(name) for name in before} == before
assert not {"TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"} & (os.environ.keys() - before.keys())
tf = sys.modules["tensorflow"]
assert tf.config.get_visible_devices("GPU") == tf.config.get_visible_devices("TPU") == []
print(source.batch(0)["label"].shape)
"""


@pytest.mark.slow
def test_tensorflow_comes_late_and_quietly_and_goes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(16,)\n", "")
