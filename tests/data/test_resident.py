"""Examples on the devices: batches taken there are those that NumPy takes, on any number of devices."""

import jax
import numpy as np
import pytest

from convmixer_jax.data.order import epoch_order
from convmixer_jax.data.placing import put
from convmixer_jax.data.resident import ResidentEvaluation, ResidentInput, take
from convmixer_jax.training.mesh import over_data, replicated
from tests.data.images import numbered


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_take_is_numpy_indexing(mesh, devices):
    examples, grid = numbered(50), mesh(devices)
    source = ResidentInput(examples, replicated(grid), over_data(grid), seed=3, batch_size=16)
    assert all(values.sharding.is_fully_replicated for values in source.data.values())
    for step in (0, 2, 3, 100):
        batch = source.batch(step)
        # Three batches of 16 in an epoch of 50.
        index = epoch_order(3, step // 3, 50)[step % 3 * 16 :][:16]
        assert [shard.data.shape for shard in batch["index"].addressable_shards] == [(16 // devices,)] * devices
        taken = jax.jit(take, out_shardings=over_data(grid))(source.data, batch)
        assert taken.keys() == {"image", "label"}
        assert (taken["image"].dtype, taken["label"].dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(taken["image"], examples.image[index])
        np.testing.assert_array_equal(taken["label"], examples.label[index])


@pytest.mark.parametrize("devices", [1, 8])
def test_batches_are_several_of_them_on_a_new_axis(mesh, devices):
    grid = mesh(devices)
    source = ResidentInput(numbered(50), replicated(grid), over_data(grid), seed=3, batch_size=16)
    # Over the end of an epoch of three batches, and with place for two more.
    index = source.batches(step=1, count=3, capacity=5)["index"]
    assert (index.shape, index.dtype) == ((5, 16), np.int32)
    assert [shard.data.shape for shard in index.addressable_shards] == [(5, 16 // devices)] * devices
    np.testing.assert_array_equal(index[:3], [source.batch(step)["index"] for step in (1, 2, 3)])
    np.testing.assert_array_equal(index[3:], 0)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_put_gives_each_device_its_own_part(mesh, devices):
    grid, values = mesh(devices), np.arange(16)
    split = put(values, over_data(grid))
    parts = [np.asarray(shard.data).tolist() for shard in split.addressable_shards]
    assert parts == values.reshape(devices, -1).tolist()
    whole = put(values, replicated(grid))
    assert [np.asarray(shard.data).tolist() for shard in whole.addressable_shards] == [values.tolist()] * devices


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [8, 16, 56])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 55, 56, 57, 100])
def test_evaluation_covers_each_example_exactly_once(mesh, count, batch_size, devices):
    examples, grid = numbered(count), mesh(devices)
    source = ResidentEvaluation(examples, replicated(grid), over_data(grid), batch_size)
    batches = list(source.batches())
    assert len(batches) == -(-count // batch_size)
    seen: list[int] = []
    for batch in batches:
        assert batch["index"].shape == batch["mask"].shape == (batch_size,)
        index, mask = np.asarray(batch["index"]), np.asarray(batch["mask"])
        assert np.all((index >= 0) & (index < count)), "padding must be a real example: nothing else can be taken"
        seen += index[mask].tolist()
    assert seen == list(range(count))


def test_the_mask_travels_with_the_examples(mesh):
    examples, grid = numbered(10), mesh(8)
    source = ResidentEvaluation(examples, replicated(grid), over_data(grid), 8)
    last = list(source.batches())[-1]
    taken = jax.jit(take)(source.data, last)
    assert taken["mask"].tolist() == [True, True] + [False] * 6
    np.testing.assert_array_equal(taken["image"][:2], examples.image[8:])
    assert taken["label"][:2].tolist() == [1, 2]
