"""Parameters split over devices: the numbers of one device, a part of them on each, no activation sent around.

With micro-batches and moving averages; the runs and the bounds are those of digits.py.
"""

import jax
import numpy as np
import pytest

from convmixer_jax.training.mesh import DATA_AXIS, FSDP_AXIS
from tests.training.digits import Trained, assert_same_run, through_disk, train
from tests.training.steps import bits, sent

FSDP = (1, 2, 4, 8)
KERNEL_SIZE = 3


pytestmark = pytest.mark.usefixtures("quick_compilation")


def trained(devices: int, fsdp_devices: int, as_users: bool = False) -> Trained:
    changes = {"fsdp_devices": fsdp_devices, "accumulate_steps": 2, "ema_decay": 0.5}
    return train("float32", KERNEL_SIZE, devices, as_users, order=("horizontal_flip",), **changes)


@pytest.mark.slow
@pytest.mark.parametrize("fsdp_devices", FSDP)
def test_twenty_updates_are_those_of_one_device(fsdp_devices):
    eight = trained(8, fsdp_devices, as_users=True)
    assert dict(eight.experiment.mesh.shape) == {DATA_AXIS: 8 // fsdp_devices, FSDP_AXIS: fsdp_devices}
    assert_same_run(trained(1, 1, as_users=True), [eight])


# dim 8, depth 1, patch 1, kernel 3, one channel, ten classes: 8 + 8 + 72 + 8 + 64 + 8 + 3 * 16 + 80 + 10 numbers.
PARAMETERS = 306
# All leaves have an axis of 8 or, the head's bias, of 10: that one two devices can split, four and eight cannot.
A_DEVICE_HOLDS = {1: 306, 2: 153, 4: 296 // 4 + 10, 8: 296 // 8 + 10}


@pytest.mark.parametrize("fsdp_devices", FSDP)
def test_each_device_holds_its_part(fsdp_devices):
    state = trained(8, fsdp_devices).on_devices

    def held(tree) -> set[int]:
        """Returns the bytes of the tree that a device holds, for all devices."""
        bytes_on = dict.fromkeys(jax.devices(), 0)
        for leaf in jax.tree.leaves(tree):
            for shard in leaf.addressable_shards:
                bytes_on[shard.device] += shard.data.nbytes
        return set(bytes_on.values())

    part = 4 * A_DEVICE_HOLDS[fsdp_devices]
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == PARAMETERS
    assert held(state.params) == held(state.ema["params"]) == {part}
    # Two moments of each parameter, and one count, which every device has.
    assert held(state.opt_state) == {2 * part + 4}
    # Mean and variance of three norms, whole.
    assert held(state.batch_stats) == held(state.ema["batch_stats"]) == {4 * 3 * 2 * 8}


LARGEST = 80  # numbers in the head's kernel


@pytest.mark.parametrize("fsdp_devices", FSDP)
def test_only_parameters_and_sums_are_sent(fsdp_devices):
    operations = sent(trained(8, fsdp_devices).program.as_text())
    # A device's part of the activations of one micro-batch has 4 * 8 * 8 * 8 = 2048 numbers, of its images 256.
    assert max(size for _, size in operations) <= LARGEST, operations
    gathered = {name for name, _ in operations if name != "all-reduce"}
    assert gathered == ({"all-gather"} if fsdp_devices > 1 else set())


def test_a_checkpoint_of_one_layout_goes_to_any_other_and_back(tmp_path):
    start = trained(8, 4)
    assert all(bits(start.before.params)[name] != value for name, value in bits(start.state.params).items())
    state = start.on_devices
    for devices, fsdp_devices in ((1, 1), (8, 4), (8, 1), (8, 4)):
        folder = tmp_path / f"{devices}_{fsdp_devices}_{len(list(tmp_path.iterdir()))}"
        state = through_disk(state, folder, trained(devices, fsdp_devices).experiment)
        assert bits(state) == bits(start.state)
    parts = state.params["block_0_pointwise"]["kernel"].addressable_shards
    assert {np.shape(shard.data) for shard in parts} == {(1, 1, 8, 2)}
